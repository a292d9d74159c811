"""One file from its first byte to a staged file that the store can name, whatever the sources do in between."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from modeld.download.engine.room import Room
from modeld.download.partials.buffers import Buffers
from modeld.download.partials.frontier import Frontier
from modeld.download.partials.journal import Header, Piece
from modeld.download.partials.journal_writer import Journalling
from modeld.download.partials.partial import Partial
from modeld.download.partials.segments import Segments
from modeld.download.partials.state import Hashed, State
from modeld.download.tuning import PIECE, Tuning
from modeld.progress import FileProgress, Stopped
from modeld.store.blobs.quarantine import quarantine
from modeld.store.digest import Digest, Signature
from modeld.store.disk import durable
from modeld.store.disk.durable import store_faults
from modeld.store.disk.space import Space
from modeld.store.ingest.staged import Staged, seal

if TYPE_CHECKING:
    from modeld.store.disk.layout import Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """Where files are put together: the parts of the store and of the machine that all files share."""

    layout: Layout
    space: Space
    tuning: Tuning
    keep_cache: bool = False
    buffers: Buffers = field(default_factory=Buffers)


@dataclass(slots=True, kw_only=True, eq=False)
class Fetched(Staged):
    """A file that is whole, verified and durable, and has no name yet. Ends with a commit, or `keep`."""

    served: Mapping[str, int]
    """Bytes by source, those of earlier runs included."""

    as_described: bool
    """False when the file was replaced while it was fetched, or another source gave its own: of the version that was
    described these bytes say nothing."""

    partial: Partial

    def discard(self) -> None:
        """The bytes are named by now, or not wanted: nothing is left to resume."""
        self.take_back()
        self.partial.remove()

    def keep(self) -> None:
        """Not now: the next fetch of it finds it whole. Idempotent, and harmless after a commit."""
        self.reservation.release()
        self.partial.close()


class Assembly:
    """The partial, its state and its two threads. From the thread that watches over the file, except `state`."""

    def __init__(
        self,
        ground: Ground,
        *,
        digest: Digest | None,
        size: int | None,
        validator: str | None,
        key: str | None,
        progress: FileProgress,
        damaged: Callable[[Piece], None],
    ) -> None:
        self.digest = digest
        self.ground = ground
        self._damaged = damaged
        self._progress = progress
        self._told_done = self._told_verified = self._told_reused = 0
        self._allocated = False
        header = Header(digest.hex if digest else None, size, validator)
        progress.phase("reserving")
        progress.total(size)
        self.room = Room(ground.space)
        self.partial = Partial.open(ground.layout, header, digest, key)
        try:
            self._start(size, self.partial.pieces)
        except BaseException:
            self.state.end()  # one of the two threads may have been started
            self.partial.close()
            self.room.release()
            raise

    # -- beginning, also again

    def _start(self, size: int | None, pieces: tuple[Piece, ...]) -> None:
        self.size_by_end = False
        """Nobody told the size but the end of the answer."""

        self.state = State(Segments(size), self.ground.buffers, self.partial.resumable)
        for piece in pieces:
            if piece.end - piece.start <= PIECE and (size is None or piece.end <= size):
                self.state.segments.have.add(piece.start, piece.end)
                self.state.unproven[piece.start] = piece
                self.state.served[piece.source] = self.state.served.get(piece.source, 0) + piece.end - piece.start
        if size is not None:
            self._make_room(size)
        self.resumed = self.state.segments.have.total
        self._frontier = Frontier(
            self.state,
            self.partial.descriptor,
            self.partial.path,
            keep_cache=self.ground.keep_cache,
            damaged=self._damaged,
        )
        self._journalling: Journalling | None = None
        if self.partial.resumable and (size is None or size > self.ground.tuning.segment_bytes):
            self._journalling = Journalling(self.state, self.partial, patience=self.ground.tuning.journal_seconds)
            self._journalling.start()
        else:
            self.state.journalled = False
        self._frontier.start()

    def start_over(self, size: int | None, validator: str | None) -> None:
        """Nothing of what is here is a part of the file."""
        self._end_threads()
        self.room.release()
        self._allocated = False
        header = Header(self.digest.hex if self.digest else None, size, validator)
        self.partial.begin(header)
        self._progress.total(size)
        self._start(size, ())

    def size_is(self, size: int) -> None:
        """Told by the first answer, not by the description; or by its end, and then there is nothing to reserve."""
        self._progress.total(size)
        if not self.state.segments.have.covers(0, size):
            self._make_room(size)
        with self.state.lock:
            self.state.segments.size = size
            self.state.wake()

    def _make_room(self, size: int) -> None:
        """Before the first byte, and for what is not on the disk yet."""
        with store_faults("allocate", self.partial.path):
            held = self.partial.allocated
            missing = max(0, size - held)
            self.room.grow(missing)
            if durable.preallocate(self.partial.descriptor, size):
                self.room.settle(missing)
                self._allocated = True

    def wrote(self, length: int) -> None:
        """By a connection, after it wrote."""
        if not self._allocated:
            self.room.settle(length)

    # -- watching

    def report(self) -> None:
        """What has become more since the last call. Nothing that is told ever becomes less."""
        state = self.state
        with state.lock:
            done, verified, reused = state.segments.have.total, state.hashed, state.reused
        self._progress.advance(
            done=max(0, done - self._told_done),
            verified=max(0, verified - self._told_verified),
            reused=max(0, reused - self._told_reused),
        )
        self._told_done = max(done, self._told_done)
        self._told_verified = max(verified, self._told_verified)
        self._told_reused = max(reused, self._told_reused)

    def wait_hashed(self) -> Hashed | None:
        """None when bytes turned out to be missing after all. Raises Stopped, or what the disk said."""
        state = self.state
        self._progress.phase("verify")
        while True:
            self.report()
            if self._progress.stopped():
                raise Stopped
            with state.lock:
                if state.fault is not None:
                    raise state.fault
                if state.result is not None:
                    break
                if not state.segments.complete:
                    return None
                state.attention.wait(self.ground.tuning.poll_seconds)
        self.report()
        return state.result

    # -- ends

    def seal(self, hashed: Hashed, *, origin: str, as_described: bool) -> Fetched:
        """Durable and read-only; the partial goes over to what is returned."""
        self._end_threads()
        size = self.state.segments.limit
        with store_faults("make durable", self.partial.path):
            if os.fstat(self.partial.descriptor).st_size != size:
                os.ftruncate(self.partial.descriptor, size)
            seal(self.ground.layout, self.partial.descriptor, self.partial.path)
            signature = Signature.of(os.fstat(self.partial.descriptor))
        return Fetched(
            path=self.partial.path,
            digest=hashed.digest,
            size=size,
            blocks=hashed.blocks,
            origin=origin,
            source=signature,
            reservation=self.room,
            served=self.served(),
            as_described=as_described,
            partial=self.partial,
        )

    def served(self) -> dict[str, int]:
        with self.state.lock:
            by_number = dict(self.state.served)
        names: dict[str, int] = {}
        for number, size in by_number.items():
            if size > 0 and number < len(self.partial.identities):
                name = self.partial.identities[number].name
                names[name] = names.get(name, 0) + size
        return names

    def contributors(self) -> list[int]:
        """Numbers of the versions that bytes of this file came from."""
        with self.state.lock:
            return [number for number, size in self.state.served.items() if size > 0]

    def condemn(self) -> str | None:
        """Wrong bytes go where they can be looked at; where that is."""
        self._end_threads()
        self.room.release()
        kept: str | None = None
        with contextlib.suppress(OSError):
            kept = quarantine(self.ground.layout, self.partial.path, "digest-mismatch")
        self.partial.remove()
        return kept

    def close(self) -> None:
        """What is here stays for a later run, all of it journalled; a file of nothing but room for it does not."""
        self._end_threads()
        self.room.release()
        if self.state.segments.have.total == 0:
            self.partial.remove()
        else:
            self.partial.close()

    def _end_threads(self) -> None:
        self.state.end()
        self._frontier.join()
        if self._journalling is not None:
            self._journalling.join()
