"""The program of the child: `python -m modeld.machine.child`. It writes a JSON document on each line: the cards of
NVIDIA, and when there are some, whether TensorRT loads. The libraries that it loads may crash or hang."""

from __future__ import annotations

import json
from typing import Final

from modeld.platform import children, hardware, nvml

TENSORRT: Final = ("libnvinfer.so.10", "libnvinfer.so.8")
"""The names of its versions that engines use. The loader looks for them where it looks for every library."""


def main() -> None:
    children.end_with_parent()
    children.make_expendable()
    try:
        cards = nvml.cards()
    except OSError as fault:
        _write({"fault": str(fault)[:300]})
        return
    _write({"cards": cards})
    if cards:
        _write({"tensorrt": hardware.loads(*TENSORRT)})


def _write(document: dict[str, object]) -> None:
    print(json.dumps(document), flush=True)  # noqa: T201 - the next library may crash


if __name__ == "__main__":
    main()
