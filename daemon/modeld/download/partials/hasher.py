"""The thread that hashes a file in order, up to its first gap, from memory where the bytes still are there.

It compares each piece of an earlier run with its checksum first, in memory. A piece that differs is fetched again; the
hash has not seen it.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable

from modeld.download.partials.buffers import new_buffer
from modeld.download.partials.journal import Piece, checksum
from modeld.download.partials.shared_state import Hashed, SharedState
from modeld.download.tuning import CHUNK, PIECE
from modeld.store.blobs.block_checksums import BlockSummer
from modeld.store.digest import Digest
from modeld.store.disk import durable
from modeld.store.disk.durable import store_faults

_BEHIND = 32 * CHUNK
"""How far behind the hash pages are dropped: by then the journal writer has synced them."""

_Work = tuple[memoryview, int] | Piece | int


class Hasher(threading.Thread):
    """Ends when the file is whole and hashed (`state.result`), when `state.ended`, or with `state.fault`."""

    def __init__(
        self, state: SharedState, descriptor: int, path: str, *, keep_cache: bool, damaged: Callable[[Piece], None]
    ) -> None:
        super().__init__(name="modeld-sha256", daemon=True)
        self._state = state
        self._descriptor = descriptor
        self._path = path
        self._keep_cache = keep_cache
        self._damaged = damaged
        self._sha256 = hashlib.sha256()
        self._summer = BlockSummer()
        self._position = 0
        self._dropped = 0
        self._scratch: memoryview | None = None

    def run(self) -> None:
        try:
            while (work := self._next()) is not None:
                self._process(work)
        except BaseException as fault:  # noqa: BLE001 - the attempt raises it again
            self._state.fail(fault)
        finally:
            self._scratch = None

    def _next(self) -> _Work | None:
        state, position = self._state, self._position
        with state.lock:
            while not state.ended and state.fault is None:
                if (kept := state.in_memory.pop(position, None)) is not None:
                    return kept
                if (piece := state.unproven.pop(position, None)) is not None:
                    return piece
                reach = state.segments.have.reach(position)
                if reach > position:
                    nearest = min(
                        (start for start in (*state.in_memory, *state.unproven) if start > position), default=reach
                    )
                    return min(reach, nearest, position + CHUNK) - position
                if position == state.segments.size:
                    state.result = Hashed(Digest(self._sha256.hexdigest()), self._summer.finish())
                    state.changed.notify_all()
                    return None
                state.may_hash.wait()
        return None

    def _process(self, work: _Work) -> None:
        if isinstance(work, tuple):
            buffer, length = work
            self._hash(buffer[:length])
            self._state.buffers.give_back(buffer)
        elif isinstance(work, int):
            self._hash(self._read(self._position, work))
            self._drop()
        else:
            self._prove(work)

    def _prove(self, piece: Piece) -> None:
        content = self._read(piece.start, piece.end - piece.start)
        state = self._state
        if len(content) == piece.end - piece.start and checksum(content) == piece.checksum:
            with state.lock:
                state.reused += len(content)
            self._hash(content)
            self._drop()
            return
        with state.lock:
            state.segments.lost(piece.start, piece.end)
            state.by_source[piece.source] = state.by_source.get(piece.source, 0) - (piece.end - piece.start)
            state.may_fetch.notify_all()
            state.changed.notify_all()
        self._damaged(piece)

    def _read(self, offset: int, length: int) -> memoryview:
        if self._scratch is None:
            self._scratch = new_buffer(PIECE)
        with store_faults("read back", self._path):
            got = durable.read_at(self._descriptor, self._scratch[:length], offset)
        return self._scratch[:got]

    def _hash(self, content: memoryview) -> None:
        self._sha256.update(content)
        self._summer.update(content)
        self._position += len(content)
        self._state.hashed = self._position
        if self._state.stalled:
            with self._state.lock:
                self._state.may_fetch.notify_all()

    def _drop(self) -> None:
        """Drops only pages that were read back: chunks from memory were written past the cache."""
        until = self._position - _BEHIND
        if not self._keep_cache and until - self._dropped >= _BEHIND:
            durable.forget_pages(self._descriptor, self._dropped, until - self._dropped)
            self._dropped = until
