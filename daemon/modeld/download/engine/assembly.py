"""One file from its first byte to a staged file that the store can name, over all attempts and restarts."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from modeld.download.engine.growing_reservation import GrowingReservation
from modeld.download.partials.buffers import Buffers
from modeld.download.partials.hasher import Hasher
from modeld.download.partials.journal import Header, Piece
from modeld.download.partials.journal_writer import JournalWriter
from modeld.download.partials.partial import Partial
from modeld.download.partials.segments import Segments
from modeld.download.partials.shared_state import Hashed, SharedState
from modeld.download.source import giver_shown
from modeld.download.tuning import PIECE, Tuning
from modeld.progress import FileProgress, Stopped
from modeld.store.blobs.hashing import hash_file
from modeld.store.blobs.quarantine import quarantine
from modeld.store.digest import Digest, Signature
from modeld.store.disk import durable
from modeld.store.disk.durable import store_faults
from modeld.store.disk.layout import Layout
from modeld.store.disk.space import Space
from modeld.store.ingest.staged import Staged, seal
from modeld.store.publish.holds import Holds


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """What the fetches of all files share of the store and of the machine."""

    layout: Layout
    space: Space
    tuning: Tuning
    keep_cache: bool = False
    holds: Holds = field(default_factory=Holds)
    buffers: Buffers = field(default_factory=Buffers)


@dataclass(slots=True, kw_only=True, eq=False)
class Fetched(Staged):
    """A file that is whole, verified and durable, and has no name yet: a commit gives it one."""

    served: Mapping[str, int]
    """Bytes by source, those of earlier runs included."""

    as_described: bool
    """False when the file was replaced while it was fetched, or another source gave its own, or a digest alone said
    which bytes of an earlier run these are: of the version that was described these bytes say nothing."""

    partial: Partial

    def discard(self) -> None:
        """The bytes are named by now, or not wanted: nothing is left to resume."""
        Staged.discard(self)
        self.partial.remove()


class Assembly:
    """The partial, its shared state and its two threads. Only the thread that fetches the file calls it; `state` and
    `wrote` are for its connections too."""

    def __init__(
        self,
        workspace: Workspace,
        space: Space,
        *,
        digest: Digest | None,
        size: int | None,
        validator: str | None,
        key: str | None,
        progress: FileProgress,
        damaged: Callable[[Piece], None],
    ) -> None:
        self.digest = digest
        self.workspace = workspace
        self._damaged = damaged
        self._progress = progress
        self._reported_done = self._reported_verified = self._reported_reused = self._reported_kept = 0
        self._allocating = threading.Lock()
        self._allocated_to = 0
        self._allocates = False
        header = Header(digest.hex if digest else None, size, validator)
        progress.phase("reserving")
        progress.total(size)
        self.reservation = GrowingReservation(space)
        self.partial = Partial.open(workspace.layout, header, digest, key, workspace.holds)
        if self.partial.resumable:
            progress.partial(os.path.dirname(self.partial.path))
        try:
            self._start(size, self.partial.pieces)
        except BaseException:  # whatever it is, only this call can close what is open by now
            self.state.end()  # one of the two threads may run already
            self.partial.close()
            self.reservation.release()
            raise

    # -- start, and start over

    def _start(self, size: int | None, pieces: tuple[Piece, ...]) -> None:
        self.size_by_end = False
        """No source gave the size: it is where the answer ended."""

        self._written: Signature | None = None
        """Of the file when its last byte was written here."""

        self.state = SharedState(Segments(size), self.workspace.buffers, self.partial.resumable)
        for piece in pieces:
            if piece.end - piece.start <= PIECE and (size is None or piece.end <= size):
                self.state.segments.have.add(piece.start, piece.end)
                self.state.unproven[piece.start] = piece
                self.state.by_source[piece.source] = self.state.by_source.get(piece.source, 0) + piece.end - piece.start
        if size is not None:
            self._reserve(size)
        self.resumed = self.state.segments.have.total
        self._hasher = Hasher(
            self.state,
            self.partial.descriptor,
            self.partial.path,
            keep_cache=self.workspace.keep_cache,
            damaged=self._damaged,
        )
        self._journal_writer: JournalWriter | None = None
        if self.partial.resumable and (size is None or size > self.workspace.tuning.segment_bytes):
            self._journal_writer = JournalWriter(
                self.state, self.partial, longest_wait=self.workspace.tuning.journal_seconds
            )
            self._journal_writer.start()
        else:
            self.state.journalled = False
        self._hasher.start()

    def start_over(self, size: int | None, validator: str | None) -> None:
        """From the first byte: the bytes that are here belong to another version."""
        self._end_threads()
        self.reservation.release()
        self._allocated_to, self._allocates = 0, False
        header = Header(self.digest.hex if self.digest else None, size, validator)
        self.partial.begin(header)
        self._progress.total(size)
        self._start(size, ())

    def size_is(self, size: int) -> None:
        """The first answer or its end gives a size that the description has not. At the end nothing is reserved."""
        self._progress.total(size)
        if not self.state.segments.have.covers(0, size):
            self._reserve(size)
        with self.state.lock:
            self.state.segments.size = size
            self.state.wake()

    def _reserve(self, size: int) -> None:
        """Reserves space for what is not on the disk yet, before the first byte of it, and allocates the beginning. A
        server may claim any size. What is on the disk counts as left by an earlier run, however that ended."""
        held = self.partial.allocated
        if self.partial.resumable:
            self.reservation.leave(self.partial.path, held)
        self.reservation.grow(max(0, size - held))
        self._allocates = True
        self._allocate(min(size, self.workspace.tuning.allocated_ahead_bytes), size)

    def _allocate(self, end: int, size: int) -> None:
        with store_faults("allocate", self.partial.path):
            held = self.partial.allocated
            self._allocates = durable.preallocate(self.partial.descriptor, end)
            if self._allocates:
                # All that is written lies before it, so that nothing else allocates meanwhile.
                # In the end it is whole, whatever a filesystem counts: ext4 has blocks of its own for a file's parts.
                self.reservation.settle(size if end == size else self.partial.allocated - held)
                self._allocated_to = end

    def make_room(self, start: int, end: int) -> None:
        """A connection calls it before it writes there."""
        size = self.state.segments.size
        if size is None:
            self.reservation.need(end - start)
        elif self._allocates and end > self._allocated_to:
            with self._allocating:
                self._allocate_beyond(end, size)

    def _allocate_beyond(self, end: int, size: int) -> None:
        if self._allocates and end > self._allocated_to:  # another connection may have done it meanwhile
            self._allocate(min(size, max(2 * end, end + self.workspace.tuning.allocated_ahead_bytes)), size)

    def wrote(self, length: int) -> None:
        """A connection calls it after it wrote."""
        if not self._allocates:
            self.reservation.settle(length)

    # -- while connections run

    def report(self) -> None:
        """Reports what has grown since the last call. No number that was reported ever shrinks."""
        state = self.state
        with state.lock:
            done, verified, reused = state.segments.have.total, state.hashed, state.reused
        self._progress.advance(
            done=max(0, done - self._reported_done),
            verified=max(0, verified - self._reported_verified),
            reused=max(0, reused - self._reported_reused),
            kept=max(0, self.resumed - self._reported_kept),
        )
        self._reported_kept = max(self.resumed, self._reported_kept)
        self._reported_done = max(done, self._reported_done)
        self._reported_verified = max(verified, self._reported_verified)
        self._reported_reused = max(reused, self._reported_reused)

    def wait_hashed(self) -> Hashed | None:
        """Blocks until the digest is known. None when a piece of an earlier run was damaged, so that bytes are missing
        again. Raises Stopped, or the fault of the store."""
        state = self.state
        self._progress.phase("verify")
        self._written = Signature.of(os.fstat(self.partial.descriptor))
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
                state.changed.wait(self.workspace.tuning.poll_seconds)
        self.report()
        self.partial.move("hash")
        return state.result

    def is_spoiled(self, hashed: Hashed) -> bool:
        """Whether another program has written to the file since the last byte was written here: most bytes were hashed
        in memory, on their way to the disk. When the times differ, the bytes on the disk decide."""
        descriptor, size = self.partial.descriptor, self.state.segments.limit
        with store_faults("read back", self.partial.path):
            if Signature.of(os.fstat(descriptor)) == self._written:
                return False
            actual, _ = hash_file(descriptor, size, FileProgress())
        return not actual.matches(hashed.digest)

    # -- ends

    def seal(self, hashed: Hashed, *, origin: str, as_described: bool) -> Fetched:
        """Makes the file durable and read-only. What it returns owns the partial from then on."""
        self._end_threads()
        size = self.state.segments.limit
        with store_faults("make durable", self.partial.path):
            if os.fstat(self.partial.descriptor).st_size != size:
                os.ftruncate(self.partial.descriptor, size)
            signature = seal(self.workspace.layout, self.partial.descriptor, self.partial.path)
        self.partial.move("seal")
        return Fetched(
            path=self.partial.path,
            digest=hashed.digest,
            size=size,
            blocks=hashed.blocks,
            origin=origin,
            source=signature,
            sealed=signature,
            reservation=self.reservation,
            served=self.served(),
            as_described=as_described and (self.digest is None or not self.resumed),
            partial=self.partial,
        )

    def served(self) -> dict[str, int]:
        with self.state.lock:
            by_number = dict(self.state.by_source)
        names: dict[str, int] = {}
        for number, size in by_number.items():
            if size > 0 and number < len(self.partial.identities):
                name = giver_shown(self.partial.identities[number].name)
                names[name] = names.get(name, 0) + size
        return names

    def contributors(self) -> list[int]:
        """The numbers of the identities that gave bytes of this file."""
        with self.state.lock:
            return [number for number, size in self.state.by_source.items() if size > 0]

    def condemn(self) -> str | None:
        """Moves a file with a wrong digest to the quarantine; returns its path there, None when that failed."""
        self._end_threads()
        self.partial.move("condemn")
        kept: str | None = None
        with self.reservation:
            try:
                with contextlib.suppress(OSError):
                    size = self.partial.allocated
                    kept = quarantine(self.workspace.layout, self.partial.path, "digest-mismatch")
                    self.reservation.leave(kept, size)
            finally:
                self.partial.remove()
        return kept

    def close(self) -> None:
        """Journals all bytes and keeps them for a later run; removes a partial without bytes. Does nothing when the
        file was sealed or condemned."""
        if self.partial.stage in ("sealed", "removed"):
            return
        with self.reservation:
            self._end_threads()
            if self.state.segments.have.total == 0:
                self.partial.remove()
                return
            with contextlib.suppress(OSError):  # the bytes are safe, only the space behind them stays allocated
                self.partial.give_back(self.state.segments.have.end)
            if self.partial.resumable:
                with contextlib.suppress(OSError):
                    self.reservation.leave(self.partial.path, self.partial.allocated)
            self.partial.close()

    def _end_threads(self) -> None:
        self.state.end()
        self._hasher.join()
        if self._journal_writer is not None:
            self._journal_writer.join()
