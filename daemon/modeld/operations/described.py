"""The view of a model with what is known of it beside its bytes: its document, its place, and an estimate.

The document is the one in its manifest; without one, or with one that cannot be read, it is made of the facts.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from modelwire.errors import InvalidDigest, InvalidRequest
from modelwire.knowledge.document import ModelDocument, ModelType, built, document_of
from modelwire.knowledge.estimates import estimate
from modelwire.knowledge.node_state import CATALOGUE_STATES, NodeState
from modelwire.requests import ModelShow
from modelwire.values import ModelFacts, ModelView

_EMBEDDERS: Final = ("bert", "nomic-bert", "jina-bert", "modern-bert", "gemma-embedding", "t5encoder")
"""Beginnings of the names of architectures."""


def described(view: ModelView, request: ModelShow) -> ModelView:
    facts = view.facts
    document = written_document(view) or _made(view, facts)
    return msgspec.structs.replace(
        view,
        model=msgspec.to_builtins(document),
        file_name=document.file_name,
        node=msgspec.to_builtins(_place(view, document.model_id)),
        catalogue_state=CATALOGUE_STATES[view.state],
        estimated_vram_mb=None if facts is None else estimate(facts, request.context, request.cache_type),
    )


def written_document(view: ModelView) -> ModelDocument | None:
    """The one of the manifest, with the size and the digest of its blob: the document may contradict them."""
    block = (view.manifest or {}).get("model")
    if block is None:
        return None
    try:
        document = document_of(block)
    except (InvalidRequest, InvalidDigest):
        return None
    return msgspec.structs.replace(document, size_bytes=_size(view), sha256=_digits(view))


def _made(view: ModelView, facts: ModelFacts | None) -> ModelDocument:
    known: dict[str, Any] = {
        "format": view.format,
        "size_bytes": _size(view),
        "sha256": _digits(view),
        "quantization": "",
        "license": view.license or "",
        "source": _source(view),
        "created_at": view.produced_at or "",
    }
    if facts is not None:
        known["quantization"] = facts.quantization or ""
        known["version"] = facts.version or "1.0.0"
        known["license"] = view.license or facts.license or ""
        if facts.parameters:
            known["params_billions"] = facts.parameters / 1e9
        if facts.context_length is not None:
            known["context_length"] = facts.context_length
    name = (facts.name if facts is not None else None) or view.name
    return built(view.name, name, _type(facts), **known)


def _type(facts: ModelFacts | None) -> ModelType:
    architecture = "" if facts is None else facts.architecture or ""
    if architecture == "whisper":
        return "whisper"
    if architecture.startswith(_EMBEDDERS):
        return "embedder"
    is_model = facts is not None and facts.kind in (None, "model") and architecture not in ("", "clip")
    return "llm" if is_model else "custom"


def _size(view: ModelView) -> int:
    """Of the blob that stands for the model."""
    return next((file.size_bytes for file in view.files if file.blob == view.blob), view.size_bytes)


def _digits(view: ModelView) -> str:
    return view.blob.removeprefix("sha256:")


def _source(view: ModelView) -> str:
    source = view.source
    return "" if source is None else " ".join(filter(None, (source.registry, source.repo, source.filename)))


def _place(view: ModelView, model_id: str) -> NodeState:
    state = NodeState(model_id=model_id)
    if view.path is not None:
        state = state.ready(view.path, view.verified_at)
    if view.state == "loaded":
        return state.loaded()
    if view.state == "failed":
        return state.failed(view.reason or "")
    return msgspec.structs.replace(state, status=view.state)
