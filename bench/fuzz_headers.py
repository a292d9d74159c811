"""`make fuzz`: the readers of headers under a fuzzer that their coverage guides, for an hour unless told otherwise.

It ends at the first header that makes a reader raise another error than its own, or take too long, and keeps it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

with atheris.instrument_imports(include=["modeld.inspect"]):
    from modeld.inspect.header import Unreadable
    from modeld.inspect.inspection import inspect
    from modeld.inspect.on_demand import tensors_of, values_of

from rigs.mutations import whole_headers

SECONDS = 3600
SECONDS_EACH = 1
MEMORY_MIB = 512
"""Of the whole process, with the fuzzer."""

LONGEST = 16_384

_FILE = os.memfd_create("header")


def read(content: bytes) -> None:
    os.ftruncate(_FILE, 0)
    os.pwrite(_FILE, content, 0)
    inspect(_FILE, len(content), "m.gguf")
    inspect(_FILE, len(content), "m.safetensors")
    with contextlib.suppress(Unreadable):
        values_of(_FILE, len(content), ("*",))
    with contextlib.suppress(Unreadable):
        list(tensors_of(_FILE, len(content)))


def main() -> None:
    """`python -m bench.fuzz_headers DIRECTORY [SECONDS]`: what covers more than before is kept in the directory."""
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(whole_headers(directory)):
        (directory / f"whole-{number}").write_bytes(content)
    seconds = sys.argv[2] if len(sys.argv) > 2 else str(SECONDS)
    limits = [f"-max_total_time={seconds}", f"-timeout={SECONDS_EACH}", f"-rss_limit_mb={MEMORY_MIB}"]
    atheris.Setup([sys.argv[0], str(directory), f"-max_len={LONGEST}", *limits, f"-artifact_prefix={directory}/"], read)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
