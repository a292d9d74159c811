"""Which blobs a manifest names."""

from __future__ import annotations

from modeld.store.digest import Digest
from modeld.store.manifests.manifests import Manifest


def blobs_named(manifest: Manifest) -> dict[Digest, int]:
    """Each blob once, with its size, in the manifest's order."""
    named = {Digest.parse(file.blob): file.size_bytes for file in manifest.files}
    if manifest.digest not in named:
        named = {manifest.digest: manifest.size_bytes} | named
    return named
