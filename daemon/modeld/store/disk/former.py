"""What a store that was moved, or is being moved, notes about itself: two small files in its private directory.

`moving` is in a directory into which a store is copied. As long as the path of that store does not lead there, the
copy is not complete and no daemon may serve it. `former` is in a store that was moved: where the directory is that
the store was in before.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from functools import partial
from typing import Final

import msgspec

from modeld.store.disk import durable
from modeld.store.disk.layout import Layout

_LONGEST: Final = 16 * 1024


class Place(msgspec.Struct, frozen=True):
    path: str
    inode: int


class Moving(msgspec.Struct, frozen=True, kw_only=True):
    root: str
    """The path by which the store is known; empty in a note that cannot be read."""
    former: str | None = None
    """Where its directory will be afterwards; None while that is not decided."""
    inode: int = 0
    """Of that directory. The number of its device may be another after each start of the machine."""
    earlier: tuple[Place, ...] = ()
    """The directories of moves before that one, the latest first."""

    @property
    def places(self) -> tuple[Place, ...]:
        """All directories that the store was in, the latest first."""
        last = () if self.former is None else (Place(self.former, self.inode),)
        return last + self.earlier

    def leads_to(self, layout: Layout) -> bool:
        """Whether the path of the store leads to this directory."""
        return bool(self.root) and os.path.realpath(self.root) == os.path.realpath(layout.root)


_DAMAGED: Final = Moving(root="")


def moving(layout: Layout) -> Moving | None:
    """The note of an unfinished copy; None when the directory is none."""
    return _read(layout.moving)


def former(layout: Layout) -> Moving | None:
    """Of the last move, also when its note could not be settled."""
    last = _read(layout.moving)
    return last if last is not None and last.leads_to(layout) else _read(layout.former)


def note_moving(layout: Layout, note: Moving) -> None:
    """Durable on return, before anything else is in the directory."""
    temporary = f"{layout.moving}-{secrets.token_hex(4)}"
    durable.write_file(temporary, layout.moving, msgspec.json.encode(note) + b"\n")
    durable.sync_directory(layout.private)


def settle(layout: Layout) -> None:
    """The store is where its copy was made: the note becomes one about the former directory."""
    with contextlib.suppress(FileNotFoundError):
        durable.name_replacing(layout.moving, layout.former)
    durable.sync_directory(layout.private)


def note_left(layout: Layout, new: str) -> None:
    """Notes in the former directory that the store has moved to `new`. The catalogue there knows the move as a job that
    has not ended: a daemon that opens this directory again does not repeat the move."""
    with open(layout.left, "wb", opener=partial(os.open, mode=0o600)) as file:
        file.write(os.fsencode(new))


def left_for(layout: Layout) -> tuple[str, float] | None:
    """Where the store has moved to from here, and when; None when it has not."""
    try:
        with open(layout.left, "rb") as file:
            return os.fsdecode(file.read(_LONGEST)), os.fstat(file.fileno()).st_mtime
    except OSError:
        return None


def forget(layout: Layout) -> None:
    """The former directories are gone, or of no interest any more."""
    last = _read(layout.moving)
    if last is not None and last.leads_to(layout):
        durable.remove(layout.moving)
    durable.remove(layout.former)
    durable.sync_directory(layout.private)


def _read(path: str) -> Moving | None:
    """A note that is damaged, or is no file, says nothing: that must not keep a store from being served."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            data = os.read(descriptor, _LONGEST)
        finally:
            os.close(descriptor)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return _DAMAGED
    try:
        note = msgspec.json.decode(data, type=Moving)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return _DAMAGED
    paths = (note.root, *(place.path for place in note.places))
    return note if all(_is_path(path) for path in paths) else _DAMAGED


def _is_path(text: str) -> bool:
    return os.path.isabs(text) and "\0" not in text
