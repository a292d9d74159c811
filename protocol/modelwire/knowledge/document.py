"""The document that describes a model: the block `model` of a manifest, and the argument of commands.

Words of a closed set are read in any case and written in lower case. Optional fields are left out when they are absent.
"""

from __future__ import annotations

import contextlib
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, get_args

import msgspec

from modelwire.errors import InvalidDigest, InvalidRequest
from modelwire.knowledge.requirements import Requirements
from modelwire.limits import DOCUMENT

ModelType = Literal["detector", "llm", "tracker", "embedder", "vlm", "whisper", "custom"]

Size = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_Billions = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
"""The largest models have some thousand."""

_DEEPEST: Final = 32
"""Levels of a document. Its `metadata` is free, and a reader of JSON ends in an error some hundred levels deep."""

_DIGITS: Final = re.compile(r"[0-9a-f]{64}")

_EXTENSIONS: Final = {"pytorch": "pt", "tensorrt": "engine", "hdf5": "h5"}
"""Of formats that are not named after theirs."""


class ModelDocument(msgspec.Struct, frozen=True, kw_only=True):
    model_id: str
    name: str
    model_type: ModelType
    format: str
    version: str
    quantization: str
    size_bytes: Size
    sha256: str
    """Empty when it is not known."""

    requirements: Requirements
    features: tuple[str, ...]
    license: str
    source: str
    created_at: str
    blob_hash: str | msgspec.UnsetType = msgspec.UNSET
    """Of another system, for transfers between machines. Nothing is verified by it."""

    download_url: str | msgspec.UnsetType = msgspec.UNSET
    params_billions: _Billions | msgspec.UnsetType = msgspec.UNSET
    context_length: _Count | msgspec.UnsetType = msgspec.UNSET
    classes: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    metadata: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET

    @property
    def file_name(self) -> str:
        return f"{self.version_name}.{_EXTENSIONS.get(self.format, self.format)}"

    @property
    def version_name(self) -> str:
        """Documents that differ in `-`, `.` and `_` alone can share it: then the second one is refused."""
        return f"{self.model_id}-{self.version.replace('.', '_')}-{self.quantization.lower()}"


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def built(model_id: str, name: str, model_type: ModelType, **known: Any) -> ModelDocument:
    """A document with what is known, and the usual words for the rest."""
    usual: dict[str, Any] = {
        "format": "gguf",
        "version": "1.0.0",
        "quantization": "Q4_K_M",
        "size_bytes": 0,
        "sha256": "",
        "requirements": Requirements(),
        "features": (),
        "license": "Apache-2.0",
        "source": "",
        "created_at": now(),
    }
    return ModelDocument(model_id=model_id, name=name, model_type=model_type, **usual | known)


def document_of(given: Any, *, where: str = "$") -> ModelDocument:
    """Of decoded JSON. Raises InvalidRequest with the path of the field, and InvalidDigest. Unknown fields are left to
    those who wrote them."""
    if not isinstance(given, dict):
        raise InvalidRequest(f"{where}: a document that describes a model is an object")
    if _is_deep(given):
        raise InvalidRequest(
            f"{where}: a document has at most {_DEEPEST} levels", hint="Keep what is deeper in a file of its own."
        )
    lowered = {
        key: value.lower() if key in ("model_type", "format") and isinstance(value, str) else value
        for key, value in given.items()
        # null is as good as absent where a field may be left out.
        if not (value is None and key in _OPTIONAL)
    }
    try:
        document = msgspec.convert(lowered, ModelDocument)
    except msgspec.ValidationError as fault:
        raise InvalidRequest(
            f"{where}: {str(fault).replace('`$', f'`{where}')}",
            hint=f"A model has the fields {', '.join(_REQUIRED)}; the type is one of {', '.join(get_args(ModelType))}.",
        ) from None
    check_sha256(document.sha256, where)
    return msgspec.structs.replace(document, metadata=document.metadata or msgspec.UNSET)


def document_in(given: Any, where: str) -> ModelDocument:
    """As `document_of`, of a request, where a document may not be longer than DOCUMENT."""
    document = document_of(given, where=where)
    if (size := len(msgspec.json.encode(given))) > DOCUMENT:
        raise InvalidRequest(
            f"{where}: it has {size} bytes, {DOCUMENT} are allowed", hint="Leave out what is long in `metadata`."
        )
    return document


def decoded(block: bytes) -> ModelDocument:
    """As `document_of`, of JSON. What modeld itself has written takes a tenth of the time. Raises msgspec.MsgspecError,
    ValueError and RecursionError too."""
    with contextlib.suppress(msgspec.ValidationError):
        document = _decode(block)
        plain = document.metadata is msgspec.UNSET or (document.metadata and not _is_deep(document.metadata))
        if plain and document.format == document.format.lower() and _is_sha256(document.sha256):
            return document
    return document_of(msgspec.json.decode(block))


def _is_deep(given: object) -> bool:
    level: list[object] = [given]
    for _ in range(_DEEPEST):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list | tuple)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return False
    return any(isinstance(each, dict | list | tuple) for each in level)


def _is_sha256(digest: str) -> bool:
    return not digest or _DIGITS.fullmatch(digest) is not None


def check_sha256(digest: str, where: str = "$") -> None:
    if not _is_sha256(digest):
        rule = "length" if len(digest) != 64 else "alphabet"
        raise InvalidDigest(
            f"{where}.sha256: {digest[:80]!r} is not 64 lowercase hexadecimal digits",
            hint="`sha256sum FILE` prints it.",
            details={"rule": rule},
        )


_decode: Final = msgspec.json.Decoder(ModelDocument).decode

_OPTIONAL: Final = frozenset({"blob_hash", "download_url", "params_billions", "context_length", "classes", "metadata"})
_REQUIRED: Final = tuple(field for field in ModelDocument.__struct_fields__ if field not in _OPTIONAL)
