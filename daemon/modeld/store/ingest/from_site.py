"""Brings blobs of sites into the store: shared extents where the filesystem can, else a copy, or a link on request.

A blob of a site proves itself by its bytes, which are hashed on the way; what does not prove itself leaves nothing
behind.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from modeld.platform import accounts, files
from modeld.progress import FileProgress
from modeld.store.blobs.linked import Linked
from modeld.store.digest import Digest
from modeld.store.disk.durable import source_faults
from modeld.store.disk.layout import Layout
from modeld.store.disk.space import Space
from modeld.store.ingest import copying
from modeld.store.ingest.adopt import stage_adopted
from modeld.store.ingest.copying import Source
from modeld.store.ingest.staged import Staged
from modelwire.errors import Corrupt

_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteBlob:
    """A file that a site has for a digest."""

    path: str
    digest: Digest
    link: bool = False
    """Whether the store's blob is to be the site's very file."""

    def stage(
        self,
        layout: Layout,
        *,
        space: Space,
        progress: FileProgress,
        linked: Linked,
        keep_cache: bool,
        syncs: Callable[[int], bool] = lambda _: True,
    ) -> Staged:
        """Blocks; for a byte thread. Corrupt when the bytes are not those of the digest. `syncs` says of a size whether
        such a file is synced by itself."""
        with source_faults(self.path), files.closing(os.open(self.path, _FLAGS)) as descriptor:
            source = Source.of(descriptor, self.path)
            staged: Staged | None = None
            if self.link:
                staged = stage_adopted(
                    layout,
                    source,
                    how="link",
                    requester_uid=accounts.ROOT,  # who may ask for it was decided when the request came
                    expected=None,
                    space=space,
                    progress=progress,
                    linked=linked,
                )
            if staged is None:
                sync = syncs(source.signature.size)
                staged = copying.stage_copy(
                    layout, source, space=space, progress=progress, keep_cache=keep_cache, sync=sync
                )
        if not self.digest.matches(staged.digest):
            staged.discard()
            progress.advance(done=-staged.size)
            raise Corrupt(
                f"{self.path} is not what its name says: its bytes hash to {staged.digest.text}",
                hint="Verify the models of that site.",
                details={"path": self.path, "expected_sha256": self.digest.hex, "actual_sha256": staged.digest.hex},
            )
        return staged
