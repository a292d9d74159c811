"""The document that describes a model: the one in its manifest, or one made of what is known of its bytes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from modeld.store.digest import Digest
from modeld.store.disk.layout import Layout
from modeld.store.manifests.manifests import Manifest, Source
from modeld.store.manifests.model_facts import facts_of
from modelwire.errors import InvalidDigest, InvalidRequest
from modelwire.knowledge.document import ModelDocument, ModelType, built, decoded
from modelwire.knowledge.requirements import Requirements
from modelwire.values import ModelFacts

_EMBEDDERS: Final = ("bert", "nomic-bert", "jina-bert", "modern-bert", "gemma-embedding", "t5encoder")
"""Beginnings of the names of architectures."""

_LONGEST_TEXT: Final = 300
"""Characters of a text of a header that goes into a manifest. Names and licenses are shorter."""

_BESIDE: Final = ("architecture", "embedding_length", "layers", "heads", "tokenizer", "vocabulary", "chat_template")
"""Facts for which a document has no field of its own."""


def describing(manifest: Manifest, size: int, facts: ModelFacts | None) -> ModelDocument:
    """`size` is that of the blob that stands for the model. The blob counts where a document contradicts it."""
    document = written(manifest)
    if document is not None:
        return msgspec.structs.replace(document, size_bytes=size, sha256=manifest.digest.hex)
    source = manifest.source or Source()
    return made(
        manifest.name,
        format=manifest.format,
        digest=manifest.digest,
        size=size,
        license=manifest.license,
        source=(source.registry, source.repo, source.filename),
        created_at=manifest.produced_at,
        facts=facts,
    )


def described(document: dict[str, Any], layout: Layout, facts: Mapping[Digest, ModelFacts]) -> dict[str, Any]:
    """Blocking. A manifest to write, with the document that describes its model: the one that it has, or one made of
    the `facts` of its files. Its blobs are in the store."""
    if "model" in document:
        return document
    manifest = msgspec.convert(document, Manifest)
    made_of = facts_of(manifest, layout, whole=True, given=facts)
    return document | {"model": msgspec.to_builtins(describing(manifest, manifest.size_bytes, made_of))}


def with_block(manifest: Manifest, document: Mapping[str, Any]) -> Manifest:
    """The manifest with the block `model` of its file, which the index leaves out."""
    if "model" not in document:
        return manifest
    return msgspec.structs.replace(manifest, model=msgspec.Raw(json.dumps(document["model"]).encode()))


def written(manifest: Manifest) -> ModelDocument | None:
    """None when the manifest has none, or none that can be read."""
    return _read(bytes(manifest.model))


def _read(block: bytes) -> ModelDocument | None:
    try:
        return decoded(block) if block else None
    except (msgspec.MsgspecError, ValueError, RecursionError, InvalidRequest, InvalidDigest):
        return None


def states_requirements(document: Mapping[str, Any]) -> bool:
    """Whether the requirements in this manifest were written by somebody. A document that modeld made has the usual
    ones, no features, and the moment of its manifest (`writing.compose` keeps it so)."""
    block = _read(json.dumps(document["model"]).encode()) if "model" in document else None
    if block is None:
        return False
    moment = document.get("produced_at")
    return block.requirements != Requirements() or bool(block.features) or block.created_at != moment


def contradiction(manifest: Manifest, size: int) -> str | None:
    """What the document of the manifest says of the bytes that the blob disproves."""
    document = written(manifest)
    if document is None:
        return None
    if document.sha256 not in ("", manifest.digest.hex):
        return f"its document says that its SHA-256 is {document.sha256}; the blob counts"
    if document.size_bytes not in (0, size):
        return f"its document says that it has {document.size_bytes} bytes, it has {size}; the blob counts"
    return None


def made(
    name: str,
    *,
    format: str,  # noqa: A002 - the field's name
    digest: Digest,
    size: int,
    license: str | None,  # noqa: A002 - the field's name
    source: Iterable[str | None],
    created_at: str | None,
    facts: ModelFacts | None,
) -> ModelDocument:
    """Of what the manifest and the header say. `digest` and `size` are those of the file that stands for the model."""
    known: dict[str, Any] = {
        "format": format,
        "size_bytes": size,
        "sha256": digest.hex,
        "quantization": "",
        "license": license or "",
        "source": " ".join(filter(None, source)),
        "created_at": created_at or "",
    }
    if facts is not None:
        known["quantization"] = _short(facts.quantization)
        known["version"] = _short(facts.version) or "1.0.0"
        known["license"] = license or _short(facts.license)
        if facts.parameters:
            known["params_billions"] = facts.parameters / 1e9
        if facts.context_length is not None:
            known["context_length"] = facts.context_length
        beside = {key: value for key in _BESIDE if (value := getattr(facts, key))}
        known["metadata"] = {key: _short(value) if isinstance(value, str) else value for key, value in beside.items()}
        known["metadata"] = known["metadata"] or msgspec.UNSET
    title = _short(facts.name) if facts is not None else ""
    return built(name, title or name, _type(facts), **known)


def _short(text: str | None) -> str:
    return (text or "")[:_LONGEST_TEXT]


def _type(facts: ModelFacts | None) -> ModelType:
    architecture = "" if facts is None else facts.architecture or ""
    if architecture == "whisper":
        return "whisper"
    if architecture.startswith(_EMBEDDERS):
        return "embedder"
    if facts is not None and facts.kind == "vlm":
        return "vlm"
    is_model = facts is not None and facts.kind in (None, "model") and architecture not in ("", "clip")
    return "llm" if is_model else "custom"
