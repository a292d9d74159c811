"""What a manifest lacks that names the requested bytes already: an id, or the document of the request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from modeld.store.catalog.history import Requester
from modeld.store.manifests import writing
from modeld.store.manifests.entries import Entry
from modelwire.knowledge.document import ModelDocument


def lacks_id(standing: Entry, known_as: str | None) -> bool:
    return known_as is not None and known_as not in standing.ids


def lacks(standing: Entry, known_as: str | None, document: ModelDocument | None, requester: Requester) -> bool:
    """Blocks. Whether the manifest is to be written again."""
    if lacks_id(standing, known_as):
        return True
    if document is None or not requester.may_change(standing.owner):
        return False
    manifest = standing.document()
    return manifest.get("model") != _block(document, manifest)


def amended(standing: Entry, known_as: str | None, document: ModelDocument | None) -> dict[str, Any]:
    """Blocks. The manifest with both."""
    manifest = standing.document()
    if document is not None:
        manifest["model"] = _block(document, manifest)
    return manifest if known_as is None else writing.with_id(manifest, known_as)


def _block(given: ModelDocument, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The document in a manifest, where the blob counts."""
    block: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(given))  # as the file has it: lists, and no tuples
    return block | {"size_bytes": manifest["size_bytes"], "sha256": str(manifest["blob"]).removeprefix("sha256:")}
