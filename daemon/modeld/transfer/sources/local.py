"""Files of this machine: nothing is asked over a network, and nothing is trusted but the bytes."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from typing import Final

from modeld.store import parts
from modeld.store.arrival.sources import open_source
from modeld.store.digest import Signature
from modeld.store.disk.durable import source_faults
from modeld.transfer.references.types import LocalReference
from modeld.transfer.source import Description, FileInfo
from modelwire.errors import Cancelled, InvalidRequest, SourceNotFound, SourceUnavailable

REGISTRY: Final = "file"


class LocalSource:
    """`opener` opens a path with the rights of who asked. Directories are the business of `model.add`."""

    name = "local files"

    def __init__(self, opener: Callable[[str], int] = open_source) -> None:
        self._opener = opener

    def origin(self, reference: LocalReference) -> str | None:  # noqa: ARG002 - the same for all of them
        return None

    def describe(self, reference: LocalReference) -> Description:
        """One file, or all parts of the set of GGUF shards that it is one of."""
        path = reference.path
        directory, filename = os.path.split(path)
        names = (parts.shard_set(filename) if filename.endswith(".gguf") else None) or [filename]
        reason = parts.paths_fault(names)
        if reason is not None:
            raise InvalidRequest(f"{path} cannot be a file of a model: {reason}", hint="Rename it.")
        files = []
        for name in names:
            try:
                signature = self._signature(f"{directory}/{name}" if directory != "/" else f"/{name}")
            except SourceNotFound as fault:
                if name == filename:
                    raise
                raise SourceNotFound(
                    f"{directory}/{name} is not there: {filename} is one part of a set, and the set is not complete",
                    hint="Get the missing part.",
                    details=fault.details,
                ) from None
            files.append(
                FileInfo(
                    path=name,
                    locator=os.path.join(directory, name),
                    size=signature.size,
                    validator=validator_of(signature),
                    role=parts.role_of(name),
                )
            )
        return Description(source=reference.text, files=tuple(files), registry=REGISTRY, repo=directory)

    def open(self, file: FileInfo, start: int, end: int | None, validator: str | None) -> LocalBody:
        descriptor = self._opener(file.locator)
        try:
            signature = Signature.of(os.fstat(descriptor))
        except BaseException:
            os.close(descriptor)
            raise
        if validator is not None and validator != validator_of(signature):
            start, end = 0, None  # as a server does when If-Range does not hold
        return LocalBody(file.locator, descriptor, signature, start, end)

    def _signature(self, path: str) -> Signature:
        descriptor = self._opener(path)
        try:
            with source_faults(path):
                status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidRequest(f"{path} is not a regular file", details={"path": path})
        return Signature.of(status)


def validator_of(signature: Signature) -> str:
    changes = f"{signature.size:x}-{signature.mtime_ns:x}-{signature.ctime_ns:x}"
    return f'"{signature.device:x}-{signature.inode:x}-{changes}"'


class LocalBody:
    """See `modeld.transfer.source.Body`."""

    partial = True

    def __init__(self, path: str, descriptor: int, signature: Signature, start: int, end: int | None) -> None:
        self.start = min(start, signature.size)
        self.end: int | None = signature.size if end is None else min(end, signature.size)
        self.total: int | None = signature.size
        self.validator: str | None = validator_of(signature)
        self._path = path
        self._descriptor: int | None = descriptor
        self._signature = signature
        self._at = self.start
        self._stop = self.end
        self._aborted = False
        # `close` may come while another thread reads, and the number of a closed descriptor is given out again.
        self._lock = threading.Lock()

    def readinto(self, into: memoryview) -> int:
        with self._lock:
            if self._aborted or self._descriptor is None:
                raise Cancelled(f"reading {self._path} was broken off")
            wanted = min(len(into), self._stop - self._at)
            with source_faults(self._path):
                got = os.preadv(self._descriptor, [into[:wanted]], self._at) if wanted > 0 else 0
                now = Signature.of(os.fstat(self._descriptor)) if self._at + got >= self._stop or not got else None
        self._at += got
        if (now is not None and now != self._signature) or (wanted > 0 and got == 0):
            raise SourceUnavailable(
                f"{self._path} changed while it was read",
                hint="Pull it again when no other program is writing to it.",
                details={"path": self._path},
            )
        return got

    def abort(self) -> None:
        self._aborted = True

    def close(self) -> None:
        with self._lock:
            descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
