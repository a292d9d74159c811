"""One file while it is being put together: what its connections, its hash and its journal tell each other.

One lock, and a condition for each kind of waiting, so that a chunk wakes who needs it and nobody else.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from modeld.download.partials.buffers import Buffers
from modeld.download.partials.journal import Piece
from modeld.download.partials.segments import Segments
from modeld.store.digest import Digest


@dataclass(slots=True, eq=False)
class Debt:
    """Bytes that one connection has written and nobody has journalled."""

    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Hashed:
    digest: Digest
    blocks: tuple[int, ...]


@dataclass(slots=True, eq=False)
class State:
    """Everything is read and written under `lock`, except where it says so."""

    segments: Segments
    buffers: Buffers
    journalled: bool
    lock: threading.Lock = field(default_factory=threading.Lock)
    kept: dict[int, tuple[memoryview, int]] = field(default_factory=dict)
    """Chunks in memory by their offset, with their length: to be hashed without being read back."""

    unproven: dict[int, Piece] = field(default_factory=dict)
    """Pieces of an earlier run by their offset, not compared with their checksum yet."""

    pending: list[tuple[Piece, Debt]] = field(default_factory=list)
    """Written, not journalled."""

    urgent: bool = False
    """A segment is finished, so the next one may soon have to wait for the journal."""

    hashed: int = 0
    """How far the hash is; may be read without the lock."""

    reused: int = 0
    """Bytes of an earlier run that were proven."""

    stalled: int = 0
    """Connections that are too far ahead of the hash; may be read without the lock."""

    result: Hashed | None = None
    fault: BaseException | None = None
    """Of the store, in any of the threads: nothing can go on."""

    ended: bool = False
    served: dict[int, int] = field(default_factory=dict)
    """Bytes that are in the file by the number of their source's identity."""

    room: threading.Condition = field(init=False)
    """For connections: there may be something to fetch now, or it may be allowed now."""

    bytes: threading.Condition = field(init=False)
    """For the hash: there may be bytes now."""

    unsynced: threading.Condition = field(init=False)
    """For the journal: there is something to write."""

    attention: threading.Condition = field(init=False)
    """For who watches over all of it."""

    def __post_init__(self) -> None:
        self.room = threading.Condition(self.lock)
        self.bytes = threading.Condition(self.lock)
        self.unsynced = threading.Condition(self.lock)
        self.attention = threading.Condition(self.lock)

    def fail(self, fault: BaseException) -> None:
        """From any thread: everything ends."""
        with self.lock:
            if self.fault is None:
                self.fault = fault
            self.wake()

    def end(self) -> None:
        with self.lock:
            self.ended = True
            for buffer, _ in self.kept.values():
                self.buffers.give_back(buffer)
            self.kept.clear()
            self.wake()

    def wake(self) -> None:
        """With the lock held."""
        self.room.notify_all()
        self.bytes.notify_all()
        self.unsynced.notify_all()
        self.attention.notify_all()
