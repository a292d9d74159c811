"""Maps the layers of a manifest to the files of a model, for ModelPack, Docker's models and Ollama's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from modeld.store import parts
from modeld.store.digest import Digest
from modelwire.errors import InvalidDigest, SourceNotFound, SourceUnavailable, Unsupported

MODELPACK: Final = "application/vnd.cncf.model."
DOCKER: Final = "application/vnd.docker.ai."
OLLAMA: Final = "application/vnd.ollama.image."
_PATH: Final = "org.cncf.model.filepath"
_TITLE: Final = "org.opencontainers.image.title"

_MODELPACK = re.compile(
    r"application/vnd\.cncf\.model\.(?P<kind>weight\.config|weight|doc|code|dataset)(?:\.v\d+)?\.(?P<form>[a-z0-9+.-]+)"
)
_UNPACKED_FORMS: Final = frozenset({"raw", "gguf", "safetensors"})

_DOCKER_FILES: Final[Mapping[str, tuple[str, str]]] = {
    "gguf.v3": ("model.gguf", "weights"),
    "gguf.v3.lora": ("adapter.gguf", "adapter"),
    "gguf.v3.mmproj": ("mmproj.gguf", "mmproj"),
    "mmproj": ("mmproj.gguf", "mmproj"),
    "safetensors": ("model.safetensors", "weights"),
    "license": ("LICENSE", "license"),
    "chat.template.jinja": ("chat_template.jinja", "tokenizer"),
    "config": ("config.json", "config"),
    "doc": ("README.md", "doc"),
    "model.file": ("", ""),
}
_OLLAMA_FILES: Final[Mapping[str, tuple[str, str]]] = {
    "model": ("model.gguf", "weights"),
    "projector": ("mmproj.gguf", "mmproj"),
    "adapter": ("adapter.gguf", "adapter"),
    "draft": ("draft.gguf", "draft"),
    "template": ("template", "config"),
    "prompt": ("prompt", "config"),
    "system": ("system", "config"),
    "params": ("params.json", "config"),
    "messages": ("messages.json", "config"),
    "license": ("LICENSE", "license"),
    "tensor": ("", "weights"),
    "json": ("", ""),
}


@dataclass(frozen=True, slots=True)
class Layer:
    path: str
    role: str
    digest: Digest
    size: int


def files_of(manifest: Mapping[str, Any], where: str) -> list[Layer]:
    """The files, in the manifest's order. Raises for a manifest without weights, and for a file in an archive."""
    found: list[Layer] = []
    foreign: list[str] = []
    for descriptor in descriptors(manifest, "layers", where):
        media_type = str(descriptor.get("mediaType") or "")
        named = _named(descriptor, media_type, where)
        if named is None:
            if not media_type.startswith((MODELPACK, DOCKER, OLLAMA)):
                foreign.append(media_type)
            continue
        path, role = named
        found.append(Layer(path, role or parts.role_of(path), *_content(descriptor, where)))
    if not any(layer.role == "weights" for layer in found):
        kinds = ", ".join(sorted(set(foreign))[:4])
        raise Unsupported(
            f"{where} has no weights of a known type" + (f": its layers are {kinds[:300]!a}" if kinds else ""),
            hint="It may be a container image. Name a model in the format of ModelPack, Docker or Ollama.",
        )
    return _with_unique_paths(found, where)


def descriptors(manifest: Mapping[str, Any], field: str, where: str) -> list[Mapping[str, Any]]:
    listed = manifest.get(field)
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise _malformed(where, f"has no list of {field}")
    if len(listed) > parts.MAX_ENTRIES:
        raise _malformed(where, f"has {len(listed)} {field}, {parts.MAX_ENTRIES} are allowed")
    return listed


def _named(descriptor: Mapping[str, Any], media_type: str, where: str) -> tuple[str, str] | None:
    """Path and role; with an empty role, the path decides it. None for a layer that is not a file of the model."""
    annotated = _annotated(descriptor)
    if media_type.startswith(MODELPACK):
        return _modelpack(media_type, annotated, where)
    if media_type.startswith(DOCKER):
        kind = media_type.removeprefix(DOCKER)
        if "tar" in kind.replace("+", ".").split("."):
            raise _packed(where, media_type)
        default = _DOCKER_FILES.get(kind)
        return None if default is None else _default(annotated, *default)
    if media_type.startswith(OLLAMA):
        default = _OLLAMA_FILES.get(media_type.removeprefix(OLLAMA))
        if default is None:
            return None
        name = descriptor.get("name")
        if not default[0] and isinstance(name, str) and name:
            suffix = ".safetensors" if default[1] == "weights" and not name.endswith(".safetensors") else ""
            return name + suffix, default[1]
        return _default(annotated, *default)
    return None


def _modelpack(media_type: str, annotated: str | None, where: str) -> tuple[str, str] | None:
    found = _MODELPACK.fullmatch(media_type)
    if found is None or found["kind"] == "dataset":
        return None
    if found["form"] not in _UNPACKED_FORMS:
        if found["kind"] in ("weight", "weight.config"):
            raise _packed(where, media_type)
        return None
    if annotated is None:
        if found["kind"] != "weight":
            return None
        extension = found["form"] if found["form"] != "raw" else "gguf"
        return f"model.{extension}", "weights"
    role = parts.role_of(annotated)
    return annotated, "weights" if found["kind"] == "weight" and role not in ("mmproj", "weights") else role


def _default(annotated: str | None, path: str, role: str) -> tuple[str, str] | None:
    if annotated is not None:
        return annotated, role
    return (path, role) if path else None


def _annotated(descriptor: Mapping[str, Any]) -> str | None:
    """The path in the annotations of a layer."""
    annotations = descriptor.get("annotations")
    if not isinstance(annotations, dict):
        return None
    path = annotations.get(_PATH) or annotations.get(_TITLE)
    return path.removeprefix("./") if isinstance(path, str) and path else None


def _content(descriptor: Mapping[str, Any], where: str) -> tuple[Digest, int]:
    digest, size = descriptor.get("digest"), descriptor.get("size")
    if not isinstance(digest, str) or not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise _malformed(where, "has a layer without digest and size")
    try:
        return Digest.parse(digest), size
    except InvalidDigest as fault:
        raise _malformed(where, f"names content by a digest of an unknown form: {fault.message}") from None


def digest_in(descriptor: Mapping[str, Any], where: str) -> Digest:
    return _content({"size": 0, **descriptor}, where)[0]


def _with_unique_paths(layers: Iterable[Layer], where: str) -> list[Layer]:
    """Numbers layers of equal path: two licences become LICENSE and LICENSE-2, weights become a set of shards."""
    counted: dict[str, list[Layer]] = {}
    for layer in layers:
        alike = counted.setdefault(layer.path, [])
        if all(layer.digest != other.digest for other in alike):
            alike.append(layer)
    named: list[Layer] = []
    for path, alike in counted.items():
        for number, layer in enumerate(alike, 1):
            stem, dot, extension = path.rpartition(".") if "." in path else (path, "", "")
            if layer.role == "weights" and len(alike) > 1:
                path_now = f"{stem}-{number:05d}-of-{len(alike):05d}{dot}{extension}"
            else:
                path_now = path if number == 1 else f"{stem}-{number}{dot}{extension}"
            named.append(Layer(path_now, layer.role, layer.digest, layer.size))
    reason = parts.paths_fault([layer.path for layer in named])
    if reason is not None:
        raise _malformed(where, f"names files that no model can have: {reason}")
    return named


def _packed(where: str, media_type: str) -> Unsupported:
    return Unsupported(
        f"{where} has its files packed into archives ({media_type[:100]}), so the digests are not those of files",
        hint="Use a version that was packed raw (`modctl build --raw`), or unpack it and add the directory.",
    )


def _malformed(where: str, what: str) -> SourceUnavailable:
    return SourceUnavailable(f"the manifest of {where} {what[:300]}", retryable=False, details={"source": where})


def no_variant(where: str, offered: Iterable[str]) -> SourceNotFound:
    there = ", ".join(sorted(offered))
    return SourceNotFound(
        f"{where} is a list of variants, and none is a model of a known type",
        hint=f"Name one by its digest: {there[:600]}." if there else "The list is empty.",
    )
