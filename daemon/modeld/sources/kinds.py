"""The kinds of places that a reference can name. To add one, write its module and put its line here."""

from __future__ import annotations

from typing import Final

from modeld.sources import local, s3, stored, web
from modeld.sources.huggingface import source as huggingface
from modeld.sources.kind import Kind
from modeld.sources.registries import source as registries

KINDS: Final[tuple[Kind, ...]] = (
    local.KIND,
    huggingface.KIND,
    registries.OLLAMA,
    registries.OCI,
    s3.KIND,
    web.KIND,
    stored.KIND,
)
"""In the order in which they are asked whether a text is theirs: `web` takes every address that no kind before it
knows as a page of its own, `stored` whatever has no scheme."""
