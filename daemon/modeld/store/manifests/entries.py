"""One manifest as readers know it: what it says, what it resolves to, and what has to be looked at each time."""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from modeld.store.digest import Digest
from modeld.store.disk import durable
from modeld.store.disk.listing import Times
from modeld.store.manifests import manifests
from modeld.store.manifests.manifests import Manifest
from modeld.store.manifests.states import READY, WHOLE, Answer, Condition, Look
from modeld.store.manifests.trees import Trees
from modeld.store.names import ModelName
from modelwire.errors import Corrupt, Internal, NotFound, WireError
from modelwire.values import ModelView, Resolved

Why = Callable[[str], str | None]
"""Why there is nothing at a blob's path, when that is known."""


def unknown(_path: str) -> None:
    return None


MANY: Final = 64
"""Blobs that are looked at on the event loop: 0.1 ms. Models of more are looked at in a thread."""

_ECHO: Final = 500
"""Characters of a path that is not there that are compared with those that are, and repeated: all of a usual one. A
request has room for a million, and comparing these kept every client waiting for a quarter of a second."""

_SUSPECT: Final = "a file that has another name outside the store has changed; it is verified before it is given out"


class WouldBlock(Exception):
    """The path takes more than the event loop has time for: a tree has to be made, or bytes have to be hashed."""

    def __init__(self, entry: Entry) -> None:
        super().__init__(entry.name.text)
        self.entry = entry


@dataclass(frozen=True, slots=True)
class Entry:
    """One manifest as it was read: what it says, or why it cannot be used."""

    name: ModelName
    path: str
    times: Times
    settled: bool
    manifest: Manifest | None
    fault: WireError | None
    blobs: tuple[tuple[str, int], ...] = ()
    """Each blob's path and size; the first is what the name resolves to."""
    resolved: Resolved | None = None
    ready: ModelView | None = None
    """The answers while nothing is missing, made once: a page has up to a thousand of them."""
    why: Why = unknown
    """What became of a blob that is missing."""
    trees: Trees | None = None
    tree: str | None = None
    """Where the files of a model of several are shown under their own names."""
    linked: tuple[tuple[str, Digest], ...] = ()
    """Paths and digests of those blobs that have a name outside the store too."""
    plain: bool = False
    """One blob that is the store's alone: its name and size are all there is to look at."""

    def usable(self) -> Manifest:
        """What the manifest says; raises its fault when it cannot be used."""
        if self.manifest is None:
            raise self._fault()
        return self.manifest

    def _fault(self) -> WireError:
        return self.fault or Internal(f"the manifest {self.path} cannot be used")

    def look(self) -> Look:
        """How the model is now, judged by its blobs' names, sizes and signatures: the one place that decides."""
        if self.manifest is None:
            return Look(Condition.DAMAGED, self._fault().message)
        reason = self._lacking()
        if reason is not None:
            return Look(Condition.LACKING, reason)
        if self.linked and self.suspects():
            return Look(Condition.CHANGED, _SUSPECT)
        return WHOLE

    def _lacking(self) -> str | None:
        for path, size in self.blobs:
            try:
                info = os.lstat(path)
            except (FileNotFoundError, NotADirectoryError):
                return self.why(path) or f"its blob is missing: {path}"
            except OSError as fault:
                return f"its blob cannot be read: {path}: {fault.strerror}"
            if not stat.S_ISREG(info.st_mode):
                return f"its blob is not a regular file: {path}"
            if info.st_size != size:
                return f"its blob has {info.st_size} bytes, the manifest says {size}: {path}"
        return None

    def suspects(self) -> list[Digest]:
        """Blobs that may have been written to, by their other name, since they were last found good."""
        return [digest for path, digest in self.linked if self.trees and self.trees.linked.suspect(digest, _stat(path))]

    def is_shown(self) -> bool:
        """Whether the path is there: a model of several files has it when its tree is known to be whole."""
        return self.tree is None or (self.trees is not None and self.trees.known_whole(self.tree))

    def resolved_file(self, path: str) -> Resolved:
        """One file of the model, by its path in the model; a model of one file has the name that it came with."""
        manifest, resolved = self.usable(), self.resolved
        for file in manifest.files:
            if file.path == path:
                return Resolved(name=manifest.name, path=f"{self.tree}/{path}", blob=file.blob, state=READY)
        alone = manifest.source.filename if manifest.source is not None and not manifest.files else None
        if alone == path and resolved is not None:
            return resolved
        names = [file.path for file in manifest.files] or [alone or "one file without a name"]
        path = path[:_ECHO]
        close = difflib.get_close_matches(path, names, n=3, cutoff=0.4)
        raise NotFound(
            f"'{manifest.name}' has no file {path!r}",
            hint=f"did you mean {' or '.join(close)}?" if close else f"it has {', '.join(names[:8])}",
            details={"name": manifest.name, "file": path},
        )

    def document(self) -> dict[str, Any]:
        """The manifest file with all its fields."""
        with durable.store_faults("read the manifest", self.path):
            return manifests.read_document(self.path)

    def view(self) -> ModelView:
        """Raises the manifest's fault when it cannot be used."""
        look = self.look()
        if look is WHOLE and self.ready is not None:
            return self.ready
        if self.ready is None or look.state.name is None:
            raise self._fault()
        return msgspec.structs.replace(self.ready, state=look.state.name, path=None, reason=look.reason)

    def checked(self, look: Look) -> Resolved:
        """The answer to a request for the path; raises when the model cannot be used."""
        if self.resolved is None:
            raise self._fault()
        if look.state.answer is Answer.REFUSAL:
            raise cannot_be_used(self, look.reason)
        return self.resolved


def cannot_be_used(entry: Entry, reason: str) -> Corrupt:
    manifest = entry.usable()
    return Corrupt(
        f"'{manifest.name}' cannot be used: {reason}",
        hint="add or pull it again; its manifest is kept",
        details={"name": manifest.name, "blob": manifest.digest.text, "reason": reason},
    )


def _stat(path: str) -> os.stat_result:
    with durable.store_faults("look at", path):
        return os.lstat(path)
