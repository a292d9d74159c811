"""From the layers of a manifest to the files of a model: ModelPack, Docker's models, and Ollama's."""

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
_AS_THEY_ARE: Final = frozenset({"raw", "gguf", "safetensors"})

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
    """In the manifest's order. A layer of which the digest is not that of a file is refused when it is needed."""
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
            f"{where} holds no weights that are known here" + (f": its layers are {kinds[:300]!a}" if kinds else ""),
            hint="It may be an image of a container; what is known are ModelPack, Docker's and Ollama's models.",
        )
    return _each_its_own_path(found, where)


def descriptors(manifest: Mapping[str, Any], field: str, where: str) -> list[Mapping[str, Any]]:
    listed = manifest.get(field)
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise _odd(where, f"has no list of {field}")
    return listed


def _named(descriptor: Mapping[str, Any], media_type: str, where: str) -> tuple[str, str] | None:
    """Path and role; an empty role is for the path to tell. None for a layer that is no file of the model."""
    told = _annotated(descriptor)
    if media_type.startswith(MODELPACK):
        return _modelpack(media_type, told, where)
    if media_type.startswith(DOCKER):
        kind = media_type.removeprefix(DOCKER)
        if "tar" in kind.replace("+", ".").split("."):
            raise _packed(where, media_type)
        default = _DOCKER_FILES.get(kind)
        return None if default is None else _default(told, *default)
    if media_type.startswith(OLLAMA):
        default = _OLLAMA_FILES.get(media_type.removeprefix(OLLAMA))
        if default is None:
            return None
        name = descriptor.get("name")
        if not default[0] and isinstance(name, str) and name:
            suffix = ".safetensors" if default[1] == "weights" and not name.endswith(".safetensors") else ""
            return name + suffix, default[1]
        return _default(told, *default)
    return None


def _modelpack(media_type: str, told: str | None, where: str) -> tuple[str, str] | None:
    found = _MODELPACK.fullmatch(media_type)
    if found is None or found["kind"] == "dataset":
        return None
    if found["form"] not in _AS_THEY_ARE:
        if found["kind"] in ("weight", "weight.config"):
            raise _packed(where, media_type)
        return None
    if told is None:
        if found["kind"] != "weight":
            return None
        extension = found["form"] if found["form"] != "raw" else "gguf"
        return f"model.{extension}", "weights"
    role = parts.role_of(told)
    return told, "weights" if found["kind"] == "weight" and role not in ("mmproj", "weights") else role


def _default(told: str | None, path: str, role: str) -> tuple[str, str] | None:
    if told is not None:
        return told, role
    return (path, role) if path else None


def _annotated(descriptor: Mapping[str, Any]) -> str | None:
    annotations = descriptor.get("annotations")
    if not isinstance(annotations, dict):
        return None
    told = annotations.get(_PATH) or annotations.get(_TITLE)
    return told.removeprefix("./") if isinstance(told, str) and told else None


def _content(descriptor: Mapping[str, Any], where: str) -> tuple[Digest, int]:
    digest, size = descriptor.get("digest"), descriptor.get("size")
    if not isinstance(digest, str) or not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise _odd(where, "has a layer without digest and size")
    try:
        return Digest.parse(digest), size
    except InvalidDigest as fault:
        raise _odd(where, f"names content by a digest that is not known: {fault.message}") from None


def digest_in(descriptor: Mapping[str, Any], where: str) -> Digest:
    return _content({"size": 0, **descriptor}, where)[0]


def _each_its_own_path(layers: Iterable[Layer], where: str) -> list[Layer]:
    """Two licences are LICENSE and LICENSE-2; weights in several layers without names are a set of shards."""
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
        raise _odd(where, f"names files that no model can have: {reason}")
    return named


def _packed(where: str, media_type: str) -> Unsupported:
    return Unsupported(
        f"{where} has its files packed into archives ({media_type[:100]}), with digests of their own",
        hint="Use a version that was packed raw (`modctl build --raw`), or unpack it and add the directory.",
    )


def _odd(where: str, what: str) -> SourceUnavailable:
    return SourceUnavailable(f"the manifest of {where} {what[:300]}", retryable=False, details={"source": where})


def no_child(where: str, offered: Iterable[str]) -> SourceNotFound:
    there = ", ".join(sorted(offered))
    return SourceNotFound(
        f"{where} is a list of variants, none of which is a model that is known here",
        hint=f"Name one by its digest; there are {there[:600]}." if there else "The list is empty.",
    )
