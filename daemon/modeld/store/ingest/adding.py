"""A local file on its way in: found in the store already, or copied and hashed in one pass.

In this order: the file itself is known and unchanged; its digest was given and is here; it looks like something that
is here; none of these, and it is copied.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

import anyio
import anyio.to_thread

from modeld.inspect.formats import HEAD_BYTES, detect_format
from modeld.store.blobs import blobs, staging
from modeld.store.blobs.blobs import Blob
from modeld.store.blobs.block_checksums import BLOCK, BlockSummer, BlockSums, load_blocks, save_blocks
from modeld.store.blobs.staging import Staged
from modeld.store.digest import Digest, Signature
from modeld.store.disk import durable
from modeld.store.disk.layout import Layout
from modeld.store.disk.space import Space
from modeld.store.publish.holds import Holds
from modeld.store.publish.publishing import Counter, Wish, judge
from modeld.store.publish.records import Records
from modelwire.errors import Corrupt, DigestMismatch
from modelwire.values import Added

T = TypeVar("T")

MAX_ATTEMPTS: Final = 3
"""At using a blob that is already there: each failed one means that somebody took it away meanwhile."""

PROBE_FROM: Final = 2 * BLOCK
"""Smaller files are copied at once: finding out whether that is needed costs as much."""


@dataclass(frozen=True, slots=True)
class OpenFile:
    """The file to add, open, and what could be said of it without reading it."""

    descriptor: int
    path: str
    signature: Signature
    format: str

    @classmethod
    def open(cls, path: str, opener: Callable[[str], int]) -> OpenFile:
        """Blocking."""
        descriptor = opener(path)
        try:
            with durable.source_faults(path):
                signature = Signature.of(os.fstat(descriptor))
                head = os.pread(descriptor, HEAD_BYTES, 0)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(descriptor, path, signature, detect_format(head, path))

    def close(self) -> None:
        os.close(self.descriptor)


class Vanished(Exception):
    """The blob that was to be used is not there any more, or not the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """Where files come in: the parts of the store that byte work needs."""

    counter: Counter
    records: Records
    space: Space
    holds: Holds
    threads: anyio.CapacityLimiter
    keep_cache: bool

    async def add(self, wish: Wish, path: str, opener: Callable[[str], int]) -> Added:
        judge(self.counter.index.entry(wish.name), wish, wish.expected)
        file = await self.in_thread(partial(OpenFile.open, path, opener))
        try:
            with ExitStack() as held:
                return await _Adding(self, wish, file, held).run()
        finally:
            file.close()

    async def in_thread(self, work: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(work, limiter=self.threads)


class _Adding:
    def __init__(self, intake: Intake, wish: Wish, file: OpenFile, held: ExitStack) -> None:
        self._intake = intake
        self._held = held
        self._layout = intake.counter.layout
        self._wish = wish
        self._file = file
        (self._progress,) = wish.observer.files([file.signature.size])

    async def run(self) -> Added:
        wish, file = self._wish, self._file
        wish.observer.phase("checking_local")
        known = await self._intake.records.digest_of_source(file.signature)
        if known is not None:
            if wish.expected is not None and not known.matches(wish.expected):
                raise _known_mismatch(file.path, wish.expected, known)
            judge(self._intake.counter.index.entry(wish.name), wish, known)
        # Bytes that are here under the expected digest answer for the file unread: nothing was learned about it.
        unread = known is None and wish.expected is not None
        for _attempt in range(MAX_ATTEMPTS):
            blob = await self._already_here(wish.expected or known)
            if blob is None:
                return await self._publish_staged(await self._stage())
            try:
                return await self._publish(blob.digest, partial(still_there, self._layout, blob), unread=unread)
            except Vanished:
                continue
        raise Corrupt(
            f"the blob for {file.path} disappears from the store each time it is to be used",
            hint="find the program that removes blobs of this store",
        )

    # -- bytes that are here

    async def _already_here(self, digest: Digest | None) -> Blob | None:
        """The good blob that holds this file's content, found without copying."""
        digest = digest or await self._hash_if_likely()
        if digest is None:
            return None
        blob = await self._find_good(digest)
        if blob is None or blob.size != self._file.signature.size:
            return None  # of another size: the file is not what was expected of it, and reading it will tell
        self._progress.advance(done=blob.size, reused=blob.size)
        return blob

    async def _find_good(self, digest: Digest) -> Blob | None:
        # From before the look until the name is given no sweep takes the blob.
        self._held.enter_context(self._intake.holds.relying_on(digest))
        if not os.path.lexists(self._layout.blob(digest)):
            return None
        recorded = await self._intake.records.verified_as(digest)
        return await self._intake.in_thread(
            partial(
                blobs.find_good,
                self._layout,
                digest,
                trusted=lambda blob: blob.signature == recorded,
                observer=self._progress,
            )
        )

    async def _hash_if_likely(self) -> Digest | None:
        """Reading a file costs less than copying it, but reading it first and then copying it costs more: so it is
        hashed alone only when a blob of its size has some of its blocks too."""
        file = self._file
        if file.signature.size < PROBE_FROM:
            return None
        candidates = await self._intake.records.digests_of_size(file.signature.size)
        if not candidates:
            return None
        if not await self._intake.in_thread(partial(resembles_one, self._layout, file, candidates)):
            return None
        self._progress.phase("verify")
        digest, _ = await self._intake.in_thread(
            partial(staging.hash_source, file.descriptor, file.path, observer=self._progress)
        )
        return digest

    # -- bytes that are not

    async def _stage(self) -> Staged:
        file = self._file
        try:
            return await self._intake.in_thread(
                partial(
                    staging.stage_copy,
                    self._layout,
                    file.descriptor,
                    file.path,
                    expected=self._wish.expected,
                    space=self._intake.space,
                    observer=self._progress,
                    keep_cache=self._intake.keep_cache,
                )
            )
        except DigestMismatch as fault:
            actual = fault.details.get("actual_sha256")
            if isinstance(actual, str):
                await self._intake.records.read_as(file.signature, Digest(actual))
            raise

    async def _publish_staged(self, staged: Staged) -> Added:
        committing = _Committing(self._layout, staged)
        try:
            judge(self._intake.counter.index.entry(self._wish.name), self._wish, staged.digest)
            # What lies there already is hashed before the turn: no publication waits for a whole read.
            committing.proven = await self._find_good(staged.digest)
            return await self._publish(staged.digest, committing)
        finally:
            committing.discard()

    async def _publish(self, digest: Digest, commit: Callable[[], tuple[Blob, bool]], *, unread: bool = False) -> Added:
        file = self._file
        added, blob = await self._intake.counter.publish(
            self._wish,
            digest,
            commit,
            format=file.format,
            source={"registry": "local", "filename": printable(os.path.basename(file.path))},
        )
        await self._intake.records.good(blob, None if unread else file.signature)
        self._progress.finished()
        return added


class _Committing:
    """Staged bytes: committed once, or discarded."""

    def __init__(self, layout: Layout, staged: Staged) -> None:
        self._layout = layout
        self._staged: Staged | None = staged
        self.proven: Blob | None = None

    def __call__(self) -> tuple[Blob, bool]:
        staged, self._staged = self._staged, None
        assert staged is not None, "staged bytes are committed once"
        proven = self.proven
        blob, reused = blobs.commit(
            self._layout,
            staged,
            trusted=lambda found: proven is not None and found.signature == proven.signature,
        )
        if not reused:
            save_blocks(self._layout, staged.digest, BlockSums(staged.size, staged.blocks))
        return blob, reused

    def discard(self) -> None:
        if self._staged is not None:
            staging.discard(self._staged)


def still_there(layout: Layout, blob: Blob) -> tuple[Blob, bool]:
    """In the publisher's turn: a sweep may have run since the blob was found, or somebody has written to it."""
    now = blobs.stat_blob(layout, blob.digest)
    if now is None or now.signature != blob.signature:
        raise Vanished
    return blob, True


def resembles_one(layout: Layout, file: OpenFile, candidates: list[Digest]) -> bool:
    """Whether some blob has the same first, middle and last block: 48 MiB read instead of the whole."""
    piece = memoryview(bytearray(BLOCK))
    read: dict[int, tuple[int, ...]] = {}
    for digest in candidates:
        known = load_blocks(layout, digest)
        if known is None or known.size != file.signature.size:
            continue
        ranges = list(known.ranges())
        for number in dict.fromkeys((0, len(ranges) // 2, len(ranges) - 1)):
            if number not in read:
                offset, length = ranges[number]
                with durable.source_faults(file.path):
                    got = durable.read_at(file.descriptor, piece[:length], offset)
                summer = BlockSummer()
                summer.update(piece[:got])
                read[number] = summer.finish()
            if read[number] != (known.sums[number],):
                break
        else:
            return True
    return False


def _known_mismatch(path: str, expected: Digest, actual: Digest) -> DigestMismatch:
    return DigestMismatch(
        f"{path} has the digest {actual.text}, {expected.text} was expected; nothing was added",
        hint="the file has not changed since it was last read; check where it and the digest come from",
        details={"path": path, "expected_sha256": expected.hex, "actual_sha256": actual.hex},
    )


def printable(filename: str) -> str:
    """Bytes of a file name that are no UTF-8 cannot stand in JSON."""
    return filename.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
