"""Three handoffs to write, and a module `os` that fails, or does something, at one of its calls."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from modelclient.platform import posix_files
from modelclient.provisioning import replacing

Strike = Callable[[str], None]

COUNTED = {
    "open",
    "write",
    "fsync",
    "fstat",
    "lstat",
    "readlink",
    "close",
    "mkdir",
    "link",
    "replace",
    "unlink",
    "rmdir",
}
OLD = b'{"model": {"id": "old", "path": "/old"}}\n'


def content(number: int) -> bytes:
    return b'{"model": {"id": "m%d", "path": "/srv/models/%d"}}\n' % (number, number)


class Calls:
    """Stands where the modules see the module os: strikes at the n-th counted call, before or after it is made, and
    with `lasting` at all that follow."""

    def __init__(self, nth: int, strike: Strike, *, after: bool = False, lasting: bool = False) -> None:
        self.nth, self.strike, self.after, self.lasting = nth, strike, after, lasting
        self.made: list[tuple[str, tuple[object, ...], object]] = []
        self.count = 0
        self.struck: str | None = None

    def __getattr__(self, name: str) -> object:
        real = getattr(os, name)
        if name not in COUNTED:
            return real

        def call(*arguments: object, **named: object) -> object:
            self.count += 1
            due = self.count == self.nth or (self.lasting and self.count > self.nth)
            # A close that reports an error has closed nonetheless.
            before = due and not self.after and name != "close"
            if before:
                self._strike(name)
            try:
                result = real(*arguments, **named)
            except OSError:
                self.struck = self.struck or (name if due else None)
                raise
            if due and not before:
                self._strike(name)
            self.made.append((name, arguments, result))
            return result

        return call

    def _strike(self, name: str) -> None:
        self.struck = self.struck or name
        self.strike(name)


@contextmanager
def planted(calls: Calls) -> Iterator[Calls]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (replacing, posix_files):
            patch.setattr(module, "os", calls)
        yield calls


def failing(number: int) -> Strike:
    def strike(name: str) -> None:
        raise OSError(number, os.strerror(number))

    return strike


class Site:
    """Three targets: one that is there, one whose directories are missing, and a link to one that is there."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.paths = tuple(str(base / name) for name in ("a/one.json", "b/c/two.json", "link.json"))
        self.handoffs = [(path, f"m{number}", f"/srv/models/{number}") for number, path in enumerate(self.paths)]
        for name in ("a", "d"):
            (base / name).mkdir(parents=True)
        (base / "a" / "one.json").write_bytes(OLD)
        (base / "d" / "three.json").write_bytes(OLD)
        (base / "link.json").symlink_to("d/three.json")
        self.before = self.entries()

    def entries(self) -> dict[str, bytes | str | None]:
        """What is below, by path: the bytes of a file, where a link leads to, None for a directory."""
        return {
            str(path.relative_to(self.base)): os.readlink(path)
            if path.is_symlink()
            else path.read_bytes()
            if path.is_file()
            else None
            for path in self.base.rglob("*")
        }

    def after(self) -> dict[str, bytes | str | None]:
        new = {"a/one.json": content(0), "b": None, "b/c": None, "b/c/two.json": content(1), "d/three.json": content(2)}
        return {**self.before, **new}

    def hidden(self) -> list[Path]:
        return list(self.base.rglob(".modelctl-*.tmp"))

    def assert_each_whole(self) -> None:
        found = self.entries()
        assert found["a/one.json"] in (OLD, content(0))
        assert found["d/three.json"] in (OLD, content(2))
        assert found.get("b/c/two.json", content(1)) == content(1)


def sites(tmp_path: Path) -> Iterator[tuple[int, Site]]:
    """With the number of the call that is struck, for as many as there are."""
    for nth in range(1, 200):
        yield nth, Site(tmp_path / str(nth))
