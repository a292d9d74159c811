"""A store whose answers are kept, and what can happen to its directories."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from modeld.platform.posix import watches
from modeld.store.digest import Digest
from modeld.store.manifests.entries import WouldBlock
from modelwire.errors import WireError
from modelwire.values import Resolved
from rigs.shelf import Shelf

_LOOKS, _BETWEEN_SECONDS = 300, 0.02


class Watched(Shelf):
    """A store below a directory of its own, in which one model is known."""

    def __init__(self, root: Path, path: Path | None = None) -> None:
        """`path` is that by which the store is known, when it is another one."""
        self.above = root / "above"
        self.above.mkdir(parents=True)
        super().__init__(path or self.above / "models")

    @classmethod
    def at(cls, root: Path) -> Watched:
        """In a directory whose parent is there."""
        made = cls.__new__(cls)
        made.above = root.parent
        Shelf.__init__(made, root)
        return made

    @property
    def blob_path(self) -> str:
        return self.layout.blob(Digest("61" * 32))

    async def know(self, name: str = "llama") -> None:
        """Until it is known without a look: a change elsewhere, such as a mount, may come in the middle of a look."""
        if not self.is_watched():
            pytest.skip("the temporary directory is on a filesystem that is not watched")
        for _attempt in range(_LOOKS):
            await self.index.look_up(name)
            if self.index.current.answer(name) is not None:
                return
            await anyio.sleep(_BETWEEN_SECONDS)
        pytest.fail(f"{name} does not become known")

    def is_watched(self) -> bool:
        with contextlib.suppress(OSError):
            watches.require_local(self.layout.blobs_dir)
            return True
        return False

    async def outcome(self) -> Resolved | str:
        try:
            return await self.index.look_up("llama")
        except WireError as fault:
            return fault.message
        except WouldBlock:
            return "it is verified first"


@contextlib.contextmanager
def mounted(at: Path) -> Iterator[None]:
    """An empty filesystem."""
    mount = ["mount", "-t", "tmpfs", "modeld-test", str(at)]
    if subprocess.run(mount, capture_output=True, timeout=60, check=False).returncode != 0:
        pytest.skip("may not mount a filesystem here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(at)], check=True, timeout=60)


def placed_watches() -> int:
    """The number of watches in the kernel."""
    count = 0
    for number in os.listdir("/proc/self/fdinfo"):
        with contextlib.suppress(OSError):
            count += Path(f"/proc/self/fdinfo/{number}").read_text().count("inotify wd:")
    return count


def open_queues() -> int:
    """The number of queues of watches that this process has open."""
    count = 0
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            count += "inotify" in os.readlink(f"/proc/self/fd/{number}")
    return count
