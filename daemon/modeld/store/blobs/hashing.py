"""SHA-256 at the speed of the processor: reading and writing never wait for the hash, nor the hash for them.

One thread reads (and writes), another hashes, over the same few buffers. Measured on two cores, 2 GiB:
one hop per chunk through an executor costs half as much again; a third thread brings nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import queue
import threading
from collections.abc import Callable
from types import TracebackType

from modeld.progress import FileProgress, check
from modeld.store.blobs.background import Background, DirectReader
from modeld.store.blobs.block_checksums import BlockSummer
from modeld.store.blobs.front_to_back import FrontToBackReader
from modeld.store.digest import Digest
from modeld.store.disk import durable

CHUNK = 4 * 1024 * 1024
"""Two milliseconds of hashing, between which a stop is looked for and progress is reported."""

COPY_BUFFERS, READ_BUFFERS = 2, 3
"""One is filled while the other is hashed: a buffer that comes round sooner is still in the cache of the core that
needs it. Reading alone has a third, which absorbs the stalls of a disk; with writing, the page cache does.

Wall and processor time of 1 GiB as multiples of `openssl dgst`, medians of 9 and of 15 rounds in random order:

    buffers x MiB             2x4         3x4         4x4         2x3         3x2         4x2         6x1
    copy to fresh extents     0.87, 1.29  0.90, 1.33  0.88, 1.37              0.86, 1.39  0.89, 1.38  0.91, 1.34
      15 rounds               0.88, 1.36  0.92, 1.33              0.87, 1.29                          0.90, 1.42
    read from the disk        0.88, 1.03  0.80, 1.06  0.79, 1.07              1.03, 1.25  0.82, 1.13  0.89, 1.32
      15 rounds               0.94, 1.14  0.82, 1.17              0.97, 1.13                          0.96, 1.40
    read from the page cache  0.74, 0.97  0.74, 1.01  0.74, 1.04  0.73, 0.90  0.74, 1.19  0.73, 1.06  0.75, 1.23

Writing 1 GiB without hashing it takes 0.78 here: the disk, and not the ring, sets the floor. `make bench` measures
the ring again on the machine at hand."""

WHOLE = 4 * 1024 * 1024
"""A file up to this size is hashed in one buffer: starting a thread costs more than what it saves."""


def slow_sha256() -> str | None:
    """A warning for a Python that hashes without OpenSSL, which takes about six times as long; None with OpenSSL."""
    module = type(hashlib.sha256()).__module__
    if module == "_hashlib":
        return None
    return (
        f"SHA-256 is that of the module {module}, not of OpenSSL: adding, pulling and verifying take about six times as"
        " long; run modeld with a Python that is built with OpenSSL"
    )


class HashRing:
    """A ring of buffers: the caller fills them, a thread hashes them.

    `with HashRing(buffers, chunk) as ring:` then, until the content ends, `take` a buffer, fill it, `submit` the part
    that was filled. The caller may read that part until the next `take`, for example to write it. `finish` returns the
    digest.
    """

    def __init__(self, buffers: int, chunk: int) -> None:
        # Anonymous memory is page-aligned, and the system gets it back when its last view is gone.
        memory = memoryview(mmap.mmap(-1, buffers * chunk))
        self._sha256 = hashlib.sha256()
        self._free: queue.SimpleQueue[memoryview | BaseException] = queue.SimpleQueue()
        self._filled: queue.SimpleQueue[tuple[memoryview, int] | None] = queue.SimpleQueue()
        for index in range(buffers):
            self._free.put(memory[index * chunk : (index + 1) * chunk])
        self._current: memoryview | None = None
        self._hashed = 0
        self._reported = 0
        self._thread = threading.Thread(target=self._hash, name="modeld-sha256")

    def __enter__(self) -> HashRing:
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._stop()

    def take(self) -> memoryview:
        buffer = self._free.get()
        if isinstance(buffer, BaseException):
            raise buffer
        self._current = buffer
        return buffer

    def submit(self, length: int) -> None:
        assert self._current is not None
        self._filled.put((self._current, length))
        self._current = None

    def newly_hashed(self) -> int:
        """Bytes hashed since the last call."""
        hashed = self._hashed
        new, self._reported = hashed - self._reported, hashed
        return new

    def finish(self) -> Digest:
        self._stop()
        while True:
            with contextlib.suppress(queue.Empty):
                buffer = self._free.get_nowait()
                if isinstance(buffer, BaseException):
                    raise buffer
                continue
            return Digest(self._sha256.hexdigest())

    def _stop(self) -> None:
        if self._thread.is_alive():
            self._filled.put(None)
            self._thread.join()

    def _hash(self) -> None:
        try:
            while (item := self._filled.get()) is not None:
                buffer, length = item
                self._sha256.update(buffer[:length])
                self._hashed += length
                self._free.put(buffer)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that owns the ring
            self._free.put(error)


def hash_file(
    descriptor: int,
    size: int,
    progress: FileProgress,
    *,
    summer: BlockSummer | None = None,
    as_done: bool = False,
    write: Callable[[memoryview, int], None] | None = None,
    keep_cache: bool = False,
    background: Background | None = None,
) -> tuple[Digest, int]:
    """The digest of the first `size` bytes, and the number of bytes read. With `as_done` the hashed bytes count as done
    too: hashing is all the work on this file. `write` gets each piece with its offset, while the piece is hashed."""

    def take(piece: memoryview, offset: int) -> None:
        if summer is not None:
            summer.update(piece)
        if write is not None:
            write(piece, offset)

    def report(hashed: int) -> None:
        progress.advance(done=hashed if as_done else 0, verified=hashed)

    if size <= WHOLE and background is None:
        check(progress)
        data = memoryview(bytearray(size))
        data = data[: durable.read_at(descriptor, data, 0) if size else 0]
        if data:
            take(data, 0)
        digest = Digest(hashlib.sha256(data).hexdigest())
        report(len(data))
        return digest, len(data)
    reader: DirectReader | FrontToBackReader
    if background is None:
        reader = FrontToBackReader(descriptor, size, keep_cache=keep_cache)
    else:
        reader = DirectReader(descriptor, size)
    offset = 0
    with HashRing(READ_BUFFERS if write is None else COPY_BUFFERS, CHUNK) as ring:
        while offset < size:
            check(progress)
            buffer = ring.take()
            got = reader.read(buffer[: size - offset], offset)
            if got == 0:
                break
            ring.submit(got)
            take(buffer[:got], offset)
            offset += got
            report(ring.newly_hashed())
            if background is not None:
                background.took(got, progress)
        digest = ring.finish()
        report(ring.newly_hashed())
    return digest, offset
