"""Filesystems in files, for tests of what a store on them survives. Linux, root."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from rigs.block_log import PAGE


def run(*command: str) -> str:
    """What the command prints; when it fails, that is an error which says why."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout.strip()


@dataclass(frozen=True)
class Filesystem:
    name: str
    maker: tuple[str, ...]
    options: str
    whole: tuple[range, ...] = ()
    """Superblocks that are written in place and without a journal: the filesystem does not survive half of one."""
    smallest: int = 0

    def make(self, image: str, size: int) -> None:
        with open(image, "wb") as file:
            file.truncate(size)
        run(*self.maker, image)

    def mount(self, device: str, directory: str) -> None:
        """A file is mounted through a loop device that goes with the filesystem."""
        run("mount", "-t", self.name, "-o", self.options, device, directory)

    @contextlib.contextmanager
    def mounted(self, device: str, directory: str) -> Iterator[None]:
        self.mount(device, directory)
        try:
            yield
        finally:
            run("umount", directory)

    def missing(self, room: str) -> str | None:
        """Why such a filesystem cannot be mounted here; None when it can."""
        if os.geteuid() != 0 or shutil.which(self.maker[0]) is None:
            return f"only root can mount {self.name}, and {self.maker[0]} must be there"
        image, place = f"{room}/probe", f"{room}/probed"
        os.mkdir(place)
        try:
            self.make(image, self.smallest)
            with self.mounted(image, place):
                return None
        except AssertionError as error:
            return str(error)
        finally:
            os.unlink(image)


FILESYSTEMS = {
    # Nothing is written out by the filesystem's own kindness: neither on a rename nor every five seconds.
    "ext4": Filesystem("ext4", ("mkfs.ext4", "-q", "-F"), "noauto_da_alloc,commit=300", (range(PAGE),), 8 << 20),
    "xfs": Filesystem("xfs", ("mkfs.xfs", "-q", "-f"), "nodiscard", (), 300 << 20),
    "btrfs": Filesystem(
        "btrfs",
        ("mkfs.btrfs", "-q", "-f", "-K"),
        "commit=300,nodiscard",
        tuple(range(at, at + PAGE) for at in (64 << 10, 64 << 20)),
        128 << 20,
    ),
}
