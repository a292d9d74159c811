"""A manifest as modeld writes it, and one of another tool."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from modeld.store.digest import Digest
from modeld.store.disk.layout import Layout
from modeld.store.manifests.writing import compose
from modeld.store.names import ModelName

NAME = ModelName.parse("llama:8b")
DIGEST = Digest("ab" * 32)
NOW = datetime(2026, 11, 20, 8, 30, 5, 999, tzinfo=UTC)
FOREIGN: dict[str, Any] = {
    "schema_version": 1,
    "name": "llama:8b",
    "format": "gguf",
    "blob": DIGEST.text,
    "size_bytes": 5,
    "license": None,
    "source": {"registry": "hf", "repo": "o/r", "revision": "main", "filename": "f.gguf", "etag": "x"},
    "produced_by": "othertool/2",
    "produced_at": "2026-01-01T00:00:00Z",
    "tags": ["mine"],
    "huge": 2**80,
    "model": {"model_id": "m"},
}


def document(**changes: Any) -> dict[str, Any]:
    made = compose(NAME, digest=DIGEST, size=5, format="gguf", license="mit", source={"registry": "local"}, now=NOW)
    return {**made, **changes}


def put(layout: Layout, content: bytes) -> str:
    path = layout.manifest(NAME)
    Path(path).write_bytes(content)
    return path
