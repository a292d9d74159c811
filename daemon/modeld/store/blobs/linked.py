"""Blobs that share their bytes with a name outside the store: `add --link` makes them.

A program can write to them by the other name. So the signature under which such a blob was last found good is kept
beside the catalogue, in a file of its own that was durable before the blob got its name, and each answer compares it.
A difference makes the models of that blob suspect: they are hashed before their paths are given out again.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable

import msgspec

from modeld.store.blobs.blobs import Blob
from modeld.store.digest import NO_FILE, Digest, Signature
from modeld.store.disk import durable
from modeld.store.disk.durable import store_faults
from modeld.store.disk.layout import Layout
from modeld.store.parts import printable
from modelwire.errors import InvalidDigest


class _Mark(msgspec.Struct, frozen=True):
    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    source: str = ""


class Linked:
    """Reads look into a dict, from any thread; writes block."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._signatures: dict[str, Signature] = {}
        """By the digest in hex."""
        self._sources: dict[str, str] = {}
        """The path of the other name when the link was made, for a search for the program that writes to it."""

    def load(self) -> None:
        """Reads the marks. A mark without a blob is left over from a removal or a failed link, and is removed."""
        with store_faults("read", self._layout.linked), contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self._layout.linked):
                try:
                    digest = Digest(name)
                except InvalidDigest:
                    continue
                if os.path.lexists(self._layout.blob(digest)):
                    self._signatures[name], self._sources[name] = _read(self._layout.linked_blob(digest))
                else:
                    durable.remove(self._layout.linked_blob(digest))

    def begin(self, linked: Iterable[Digest]) -> None:
        """Makes the directory of marks, with one for each of these blobs. Those that are new to this run are suspect:
        when they were last found good is not known. A failure leaves no directory, so that the next start tries again.
        """
        for digest in linked:
            self._signatures.setdefault(digest.hex, NO_FILE)
        temporary = f"{self._layout.staging}/linked-{secrets.token_hex(8)}"
        with store_faults("note the linked blobs", self._layout.linked):
            durable.make_directories(temporary, below=self._layout.root)
            for known in self._signatures:
                durable.close(durable.create_file(f"{temporary}/{known}"))
            durable.sync_directory(temporary)
            os.rename(temporary, self._layout.linked)
            durable.sync_directory(self._layout.private)

    def __contains__(self, digest: Digest) -> bool:
        return digest.hex in self._signatures

    def signature(self, digest: Digest) -> Signature | None:
        """The blob's signature when it was last found good; None when it has no name outside the store."""
        return self._signatures.get(digest.hex)

    def suspect(self, digest: Digest, now: Signature) -> bool:
        """Whether the bytes may have changed since they were last found good."""
        known = self._signatures.get(digest.hex)
        return known is not None and not known.is_unchanged(now)

    def digest_of(self, source: Signature) -> Digest | None:
        """The digest of the blob that is this very file, whether or not its bytes have changed."""
        for text, known in self._signatures.copy().items():  # another thread may add a mark
            if (known.device, known.inode) == (source.device, source.inode):
                return Digest(text)
        return None

    def good(self, digest: Digest, signature: Signature, source: str = "") -> None:
        """Records the signature; durable on return. Call it before a linked blob gets its name, and when it is found
        good."""
        path = self._layout.linked_blob(digest)
        source = source or self._sources.get(digest.hex, "")
        mark = _Mark(
            signature.device, signature.inode, signature.size, signature.mtime_ns, signature.ctime_ns, printable(source)
        )
        temporary = f"{self._layout.staging}/linked-{secrets.token_hex(8)}"
        with store_faults("note the linked blob", path):
            if not os.path.isdir(self._layout.linked):
                self.begin([Digest(known) for known in self._signatures])
            descriptor = durable.stage_file(temporary, below=self._layout.root)
            try:
                try:
                    durable.write_at(descriptor, memoryview(msgspec.json.encode(mark) + b"\n"), 0)
                    durable.sync_file(descriptor)
                finally:
                    durable.close(descriptor)
                durable.name_replacing(temporary, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    durable.remove(temporary)
                raise
            durable.sync_directory(self._layout.linked)
            durable.sync_directory(self._layout.private)
        self._signatures[digest.hex] = signature
        self._sources[digest.hex] = source

    def relinked(self, blob: Blob, before: Signature) -> None:
        """Call it after the store removed a name of this blob. Without any other name the blob is no longer linked."""
        if self.signature(blob.digest) != before:
            return
        if os.lstat(blob.path).st_nlink == 1:
            self.forget(blob.digest)
        else:
            self.good(blob.digest, blob.signature)

    def forget_all(self) -> None:
        """The store has copies of all blobs, which share their bytes with nothing, and no marks."""
        self._signatures.clear()
        self._sources.clear()

    def forget(self, digest: Digest) -> None:
        """For a blob that is gone, or never got its name. A mark that stays behind only costs a verification."""
        self._signatures.pop(digest.hex, None)
        with contextlib.suppress(OSError):
            durable.remove(self._layout.linked_blob(digest))


def _read(path: str) -> tuple[Signature, str]:
    with contextlib.suppress(OSError, msgspec.MsgspecError, ValueError, RecursionError):
        with open(path, "rb") as file:
            mark = msgspec.json.decode(file.read(65536), type=_Mark)
        return Signature(mark.device, mark.inode, mark.size, mark.mtime_ns, mark.ctime_ns), mark.source
    return NO_FILE, ""  # a mark that cannot be read makes its blob suspect
