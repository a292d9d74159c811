"""What the threads of one file share while it is fetched: its connections, its hasher, its journal writer.

There is one lock, and a condition for each kind of thread, so that a chunk wakes only the thread that needs it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from modeld.download.partials.buffers import Buffers
from modeld.download.partials.journal import Piece
from modeld.download.partials.segments import Segments
from modeld.store.digest import Digest


@dataclass(slots=True, eq=False)
class ConnectionBytes:
    """What one connection has brought."""

    received: int = 0
    """Over the network."""

    unjournalled: int = 0
    """Written, and not in the journal yet."""


@dataclass(frozen=True, slots=True)
class Hashed:
    digest: Digest
    blocks: tuple[int, ...]


@dataclass(slots=True, eq=False)
class SharedState:
    """Every field is read and written under `lock`, except where it says otherwise."""

    segments: Segments
    buffers: Buffers
    journalled: bool
    lock: threading.Lock = field(default_factory=threading.Lock)
    in_memory: dict[int, tuple[memoryview, int]] = field(default_factory=dict)
    """Chunks by their offset, with their length: they are hashed without being read back."""

    unproven: dict[int, Piece] = field(default_factory=dict)
    """Pieces of an earlier run by their offset, not compared with their checksum yet."""

    pending: list[tuple[Piece, ConnectionBytes]] = field(default_factory=list)
    """Written, not journalled."""

    pending_bytes: int = 0

    urgent: bool = False
    """The journal is written at once: a connection waits for it, or many bytes do."""

    connections: dict[str, int] = field(default_factory=dict)
    """By the name of a source: how many were found to be worth it."""

    hashed: int = 0
    """How far the hash has come; may be read without the lock."""

    reused: int = 0
    """Bytes of an earlier run whose checksum was right."""

    stalled: int = 0
    """Connections that are too far ahead of the hash; may be read without the lock."""

    result: Hashed | None = None
    fault: BaseException | None = None
    """Of the store, in any of the threads: it ends the fetch."""

    ended: bool = False
    by_source: dict[int, int] = field(default_factory=dict)
    """How many bytes of the file each source gave, by the number of its identity."""

    may_fetch: threading.Condition = field(init=False)
    """Connections wait for it: there may be something to fetch, or it may be allowed again."""

    may_hash: threading.Condition = field(init=False)
    """The hasher waits for it: there may be bytes."""

    may_journal: threading.Condition = field(init=False)
    """The journal writer waits for it: there is something to write."""

    changed: threading.Condition = field(init=False)
    """The thread that runs the attempt waits for it."""

    def __post_init__(self) -> None:
        self.may_fetch = threading.Condition(self.lock)
        self.may_hash = threading.Condition(self.lock)
        self.may_journal = threading.Condition(self.lock)
        self.changed = threading.Condition(self.lock)

    def fail(self, fault: BaseException) -> None:
        """From any thread; the first fault counts, and all threads end."""
        with self.lock:
            if self.fault is None:
                self.fault = fault
            self.wake()

    def end(self) -> None:
        with self.lock:
            self.ended = True
            for buffer, _ in self.in_memory.values():
                self.buffers.give_back(buffer)
            self.in_memory.clear()
            self.wake()

    def wake(self) -> None:
        """Wakes all threads. The caller holds the lock."""
        self.may_fetch.notify_all()
        self.may_hash.notify_all()
        self.may_journal.notify_all()
        self.changed.notify_all()
