"""The kinds of places that a reference can name. To add a kind, write its module and add it to the list."""

from __future__ import annotations

from typing import Final

from modeld.sources import local, stored, web
from modeld.sources.huggingface import source as huggingface
from modeld.sources.kind import Kind
from modeld.sources.registries import source as registries
from modeld.sources.s3 import source as s3

KINDS: Final[tuple[Kind, ...]] = (
    local.KIND,
    huggingface.KIND,
    registries.OLLAMA,
    registries.OCI,
    s3.KIND,
    web.KIND,
    stored.KIND,
)
"""`parse` tries them in this order: `web` accepts every address that no kind before it recognises, and `stored` every
text without a scheme."""
