"""The stages of a partial, and the events that move it from one to the next.

    stage      begin  resume   write    hash    seal    condemn    keep  remove
    opened     empty  resumed  !        !       !       !          kept  removed
    empty      empty  !        filling  hashed  !       !          kept  removed
    resumed    empty  !        filling  hashed  !       !          kept  removed
    filling    empty  !        filling  hashed  !       !          kept  removed
    hashed     empty  !        !        !       sealed  condemned  kept  removed
    sealed     !      !        !        !       !       !          kept  removed
    condemned  !      !        !        !       !       !          !     removed
    kept       !      !        !        !       !       !          -     !
    removed    !      !        !        !       !       !          -     -

`-`: the event is ignored, the partial has ended already. `!`: it cannot happen here, and raises ImpossibleMove.

- begin: the file starts from its first byte, with a new journal.
- resume: the journal vouches for bytes of an earlier run. Each piece is still to be compared with its checksum.
- write: a connection is about to write bytes. Never into a file that is hashed: that would spoil the hash.
- hash: every byte is there and the digest of the whole is known.
- seal: the file is durable and read-only, and goes to the store, which gives it its name.
- condemn: the digest is wrong. Such a file is never kept, or a later run would resume it.
- keep: the files are closed and the lock is released; a later run resumes them. Without a journal it is a `remove`.
- remove: the files are deleted, before the lock is released. Not after `keep`: they may belong to another run by then.
"""

from __future__ import annotations

from typing import Final, Literal

Stage = Literal["opened", "empty", "resumed", "filling", "hashed", "sealed", "condemned", "kept", "removed"]
Event = Literal["begin", "resume", "write", "hash", "seal", "condemn", "keep", "remove"]

_UNHASHED: Final[dict[Event, Stage]] = {
    "begin": "empty",
    "write": "filling",
    "hash": "hashed",
    "keep": "kept",
    "remove": "removed",
}

TABLE: Final[dict[Stage, dict[Event, Stage]]] = {
    "opened": {"begin": "empty", "resume": "resumed", "keep": "kept", "remove": "removed"},
    "empty": _UNHASHED,
    "resumed": _UNHASHED,
    "filling": _UNHASHED,
    "hashed": {"begin": "empty", "seal": "sealed", "condemn": "condemned", "keep": "kept", "remove": "removed"},
    "sealed": {"keep": "kept", "remove": "removed"},
    "condemned": {"remove": "removed"},
    "kept": {},
    "removed": {},
}

IGNORED: Final[dict[Stage, tuple[Event, ...]]] = {"kept": ("keep",), "removed": ("keep", "remove")}


class ImpossibleMove(Exception):
    """A bug in the caller, never a fault of a source or of the disk."""


def after(stage: Stage, event: Event) -> Stage | None:
    """The stage that the event leads to; None when it is ignored."""
    following = TABLE[stage].get(event)
    if following is None and event not in IGNORED.get(stage, ()):
        raise ImpossibleMove(f"a partial that is {stage} cannot meet the event {event!r}")
    return following
