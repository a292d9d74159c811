"""What verifying costs, in full and quickly, beside the hash of the same bytes and beside reading them.

    python bench/verifying.py [--size 2GiB] [--rounds 5] [--directory DIR]

Twice: with the blobs in the page cache, as the reference has its file, which measures the processor; and from
the disk, beside reading the same blobs and doing nothing with them, which is what the disk lets anybody do.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence

from bench.adding import Ours, Source
from bench.timed import REFERENCE, Row, command, print_rows
from modeld.progress import FileProgress
from modeld.store.blobs.blobs import Blob, compare_blob, verify_blob
from modeld.store.blobs.block_checksums import load_blocks
from modeld.store.blobs.front_to_back import FrontToBackReader
from modeld.store.blobs.hashing import CHUNK
from modeld.store.disk.layout import Layout
from modelwire.units import parse_size


def together(work: Callable[[Blob], None], blobs: Sequence[Blob]) -> None:
    threads = [threading.Thread(target=work, args=[blob]) for blob in blobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def hashes_together(blobs: Sequence[Blob]) -> None:
    running = [subprocess.Popen(["openssl", "dgst", "-sha256", blob.path], stdout=subprocess.DEVNULL) for blob in blobs]
    for process in running:
        if process.wait() != 0:
            raise RuntimeError("openssl dgst failed")


@contextlib.contextmanager
def opened(blob: Blob) -> Iterator[int]:
    descriptor = os.open(blob.path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def drop(blobs: Sequence[Blob]) -> None:
    for blob in blobs:
        with opened(blob) as descriptor:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def read(blob: Blob, *, keep_cache: bool = False) -> None:
    buffer, offset = memoryview(bytearray(CHUNK)), 0
    with opened(blob) as descriptor:
        reader = FrontToBackReader(descriptor, blob.size, keep_cache=keep_cache)
        while (got := reader.read(buffer, offset)) > 0:
            offset += got


def rows_of(layout: Layout, blobs: Sequence[Blob]) -> Iterator[Row]:
    def verify(blob: Blob) -> None:
        if not verify_blob(layout, blob.digest, FileProgress()).good:
            raise RuntimeError(f"{blob.path} is corrupt")

    def compare(blob: Blob) -> None:
        known = load_blocks(layout, blob.digest)
        if known is None or not compare_blob(layout, blob.digest, known, FileProgress()).good:
            raise RuntimeError(f"{blob.path} is not what its checksums say")

    def warm() -> None:
        for blob in blobs:
            read(blob, keep_cache=True)

    def cold() -> None:
        drop(blobs)

    one = blobs[0]
    yield Row(REFERENCE, lambda: command("openssl", "dgst", "-sha256", one.path), prepare=warm)
    yield Row("openssl, two at once", lambda: hashes_together(blobs), beside=REFERENCE, prepare=warm)
    yield Row("modeld verify, cached", lambda: verify(one), "≤ 0.90", prepare=warm)
    beside = "modeld verify, cached"
    yield Row("two at once, cached", lambda: together(verify, blobs), "≤ 1.25 of one", beside, prepare=warm)
    yield Row("modeld verify --quick, cached", lambda: compare(one), "≤ 0.25, on one core", prepare=warm)
    yield Row("modeld verify, from the disk", lambda: verify(one), "≤ 0.90 of the cached hash", prepare=cold)
    beside = "modeld verify, from the disk"
    yield Row("two at once, from the disk", lambda: together(verify, blobs), beside=beside, prepare=cold)
    yield Row("reading one and no more", lambda: read(one), beside="", prepare=cold)
    beside = "reading one and no more"
    yield Row("modeld verify --quick, from the disk", lambda: compare(one), "≤ 1.10", beside, prepare=cold)
    beside = "two at once, from the disk"
    yield Row("reading two at once and no more", lambda: together(read, blobs), beside=beside, prepare=cold)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="What verifying costs, beside hashing and beside reading.")
    parser.add_argument("--size", type=parse_size, default=2 << 30, help="of each blob: 2GiB, 512MiB (default 2GiB)")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each (default 5)")
    parser.add_argument("--directory", default=None, help="on the filesystem to measure (default: the temporary one)")
    options = parser.parse_args(arguments)
    directory = tempfile.mkdtemp(prefix="modeld-bench-", dir=options.directory)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        source = Source(f"{directory}/source", options.size)
        ours = Ours(f"{directory}/root", source)
        blobs = []
        for _ in range(2):
            source.renew()
            ours.add()
            assert ours.last is not None
            blobs.append(ours.last)
        os.unlink(source.path)
        rows = list(rows_of(ours.layout, blobs))
        for number in range(options.rounds):
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
            for row in rows:
                row.measure()
        print(f"{options.size / (1 << 30):g} GiB, medians of {options.rounds}, SHA-256 by {ssl.OPENSSL_VERSION}")
        print_rows(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
