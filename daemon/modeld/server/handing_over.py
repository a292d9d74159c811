"""The files that one connection hands over, until a request of it takes them.

Descriptors come in the order of their lines, `files.offer`. Once all lines that have arrived are taken, none may be
left but those of a line that has begun.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

import anyio
import anyio.to_thread

from modeld.access.handed import Descriptors, HandedFiles
from modeld.operations.operation import Caller
from modeld.platform import endpoint
from modeld.store import parts
from modelwire.errors import InvalidRequest, QueueFull, WireError
from modelwire.limits import FILES_OFFERED
from modelwire.requests import FilesOffer
from modelwire.values import Offered


class Source(Protocol):
    """The connection as the platform has it."""

    @property
    def arrived(self) -> deque[endpoint.Arrived]: ...

    def sees_same_files(self) -> bool: ...


class HandingOver:
    def __init__(self, source: Source, caller: Caller, descriptors: Descriptors, *, own: bool) -> None:
        """`own`: the caller is the daemon's own user or root, whose paths the daemon opens when they mean the same."""
        self._source = source
        self.arrived = source.arrived
        self._uid = caller.uid
        self._descriptors = descriptors
        self.unclaimed: deque[tuple[int, ...] | WireError] = deque()
        """What came and whose lines are not taken yet: the descriptors, or why they are closed already."""
        self._transfers: dict[str, HandedFiles] = {}
        self._names_paths: bool | None = None if own else False
        self._looking: anyio.Event | None = None
        self.broken = False
        """Whether lines and descriptors no longer belong together: the connection must be closed."""

    def count_arrived(self) -> None:
        """Call it after each read, before its lines are taken."""
        while self.arrived:
            descriptors, lost = self.arrived.popleft()
            try:
                self._descriptors.count(self._uid, descriptors)
            except QueueFull as fault:
                self.unclaimed.append(fault)
            else:
                if lost:
                    self._descriptors.close(self._uid, descriptors)
                self.unclaimed.append(_lost() if lost else descriptors)

    def offer(self, request: FilesOffer) -> Offered:
        """Adds the descriptors of this line to its transfer. When it raises, they are closed."""
        claimed = self.unclaimed.popleft() if self.unclaimed else ()
        if isinstance(claimed, WireError):
            self.broken = isinstance(claimed, InvalidRequest)
            raise claimed
        try:
            if len(claimed) != len(request.paths):
                self.broken = True
                raise InvalidRequest(
                    f"$.paths: {len(request.paths)} paths, and {len(claimed)} descriptors came with this line",
                    hint="Send one descriptor for each path, in the message that begins with the line's first byte."
                    " The connection is closed: open a new one.",
                )
            files = self._transfers.get(request.transfer)
            _check(request, files)
        except BaseException:
            self._descriptors.close(self._uid, claimed)
            raise
        if files is None:
            files = HandedFiles(self._descriptors, self._uid, directory=request.directory)
            self._transfers[request.transfer] = files
        files.add(request.paths, claimed)
        return Offered(transfer=request.transfer, files=len(files))

    def stray(self, *, more_to_come: bool) -> WireError | None:
        """What is wrong with descriptors whose line did not come, once all lines that came are taken."""
        if len(self.unclaimed) > (1 if more_to_come else 0):
            fault = self.unclaimed[0]
            return fault if isinstance(fault, WireError) else _stray()
        return None

    def take(self, transfer: str) -> HandedFiles:
        """The caller owns the files from now on, and closes them."""
        files = self._transfers.pop(transfer, None)
        if files is None:
            raise InvalidRequest(
                f"$.transfer: no files were offered as {transfer!r} on this connection",
                hint="Offer the files with files.offer first; each transfer serves one request.",
            )
        return files

    async def may_name_paths(self) -> bool:
        """Whether the daemon opens paths for this peer: found out at the first request that has one. Requests that come
        meanwhile go on after it, in their order."""
        while self._names_paths is None:
            if self._looking is not None:
                await self._looking.wait()
                continue
            self._looking = anyio.Event()
            try:
                self._names_paths = await anyio.to_thread.run_sync(self._source.sees_same_files)
            finally:
                self._looking.set()
                self._looking = None
        return self._names_paths

    def close(self) -> None:
        self.count_arrived()
        for claimed in self.unclaimed:
            if not isinstance(claimed, WireError):
                self._descriptors.close(self._uid, claimed)
        self.unclaimed.clear()
        for files in self._transfers.values():
            files.close()
        self._transfers.clear()


def _check(request: FilesOffer, files: HandedFiles | None) -> None:
    seen = set[str]()
    for path in request.paths:
        reason = parts.path_fault(path)
        if reason is None and (path in seen or (files is not None and path in files)):
            reason = "it is offered twice"
        if reason is not None:
            raise InvalidRequest(
                f"$.paths: the path {path[:200]!a} cannot be in a model: {reason}", hint="Rename the file."
            )
        seen.add(path)
    if files is not None and files.directory != request.directory:
        raise InvalidRequest(
            "$.directory: an earlier offer of this transfer says otherwise", hint="Say the same in all."
        )


def _lost() -> InvalidRequest:
    return InvalidRequest(
        f"descriptors of one line were lost: more than {FILES_OFFERED} came with it, or the daemon may open no more",
        hint="Offer fewer files with each line. The connection is closed: open a new one.",
        details={"limit": FILES_OFFERED},
    )


def _stray() -> InvalidRequest:
    return InvalidRequest(
        "descriptors came without a files.offer",
        hint="Send them in the message that begins with the first byte of a files.offer. The connection is closed:"
        " open a new one.",
    )
