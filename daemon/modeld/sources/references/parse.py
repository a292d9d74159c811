"""A reference as people write it, read once into a value that says what it means.

The forms are those of `ACCEPTED`. Nothing here touches the disk or the network, and whatever is wrong with a text,
the answer is InvalidRequest that shows the forms and repeats nothing that may be secret.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from typing import Final
from urllib.parse import unquote

from modeld.sources.references import hub as hub_references
from modeld.sources.references import images as image_references
from modeld.sources.references import web as web_references
from modeld.sources.references.faults import ACCEPTED, bad_reference
from modeld.sources.references.types import (
    DEFAULT_TAG,
    HubReference,
    ImageReference,
    LocalReference,
    OciReference,
    OllamaReference,
    Reference,
    S3Reference,
    Secrets,
    StoredReference,
    WebReference,
)
from modeld.store.names import ModelName
from modelwire.errors import InvalidName

__all__ = [
    "ACCEPTED",
    "HubReference",
    "LocalReference",
    "OciReference",
    "OllamaReference",
    "Reference",
    "S3Reference",
    "Secrets",
    "StoredReference",
    "WebReference",
    "parse",
    "suggest_name",
]

MAX_REFERENCE: Final = 8 * 1024
"""Signed addresses take up to 4 KiB, what servers take as a request line is 8 KiB."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)", re.DOTALL)
_WITHOUT_SCHEME = re.compile(r"(?:(?:www\.)?huggingface\.co|hf\.co|ollama\.com)/", re.IGNORECASE)
_OLLAMA_SITES: Final = frozenset({"https://ollama.com", "https://www.ollama.com", "https://registry.ollama.ai"})


def parse(
    text: str,
    *,
    directory: str | None = None,
    hubs: Collection[str] = (),
    plain_hosts: Collection[str] = (),
) -> Reference:
    """`directory` is where relative paths start: that of who asks, not the daemon's. `hubs` are origins
    (`https://hub.example`) whose addresses are those of a Hugging Face hub."""
    written, text = text, text.strip()
    if not text:
        raise bad_reference(text, "it is empty", rule="empty")
    if len(text) > MAX_REFERENCE:
        raise bad_reference(text[:MAX_REFERENCE], f"it is longer than {MAX_REFERENCE} characters", rule="too_long")
    if any(character < " " or character == "\x7f" or "\ud800" <= character <= "\udfff" for character in text):
        raise bad_reference("…", "it has control characters, or bytes that are no UTF-8", rule="character")
    if text.startswith(("/", "./", "../", "local:/")) or text in (".", ".."):
        # A file name may end with a space.
        path = written.lstrip().rstrip("\r\n").removeprefix("local:")
        return _local(text, path, directory)
    if _WITHOUT_SCHEME.match(text):
        text = f"https://{text}"
    found = _SCHEME.fullmatch(text)
    scheme, rest = (found[1].lower(), found[2]) if found is not None else ("", text)
    if scheme in ("https", "http"):
        return _address(text, hubs, plain_hosts)
    if scheme in ("hf", "huggingface"):
        return hub_references.hub(text, rest)
    if scheme == "ollama":
        return image_references.ollama(text, rest)
    if scheme == "oci":
        return image_references.oci(text, rest)
    if scheme == "s3":
        return web_references.s3(text, rest)
    if scheme == "file":
        return _local(text, _path_of_file(text, rest), directory)
    if scheme == "local":
        raise bad_reference(text, "after local: comes an absolute path", rule="path")
    return _without_scheme(text, directory)


def suggest_name(reference: Reference) -> ModelName:
    """What to call the model when nobody said: always valid, and made of the reference alone."""
    if isinstance(reference, StoredReference):
        return reference.name
    tag: str | None = None
    base = reference.name_hint
    if isinstance(reference, ImageReference) and reference.digest is None and reference.tag != DEFAULT_TAG:
        tag = reference.tag
    elif isinstance(reference, HubReference) and reference.path is None:
        tag = reference.quantization
        base = re.sub(r"(?<=.)[-_.]gguf\Z", "", base, flags=re.IGNORECASE)
    name = ModelName.suggest(base)
    if tag is None:
        return name
    try:
        return ModelName.parse(f"{name.base}:{tag}")
    except InvalidName:
        return ModelName.suggest(f"{name.base}-{tag}")


def _address(text: str, hubs: Collection[str], plain_hosts: Collection[str]) -> Reference:
    url = web_references.read_address(text, plain_hosts)
    if hub_references.is_hub(url, hubs):
        return hub_references.page(text, url)
    if url.origin in _OLLAMA_SITES:
        path = unquote(url.target.partition("?")[0]).strip("/")
        name = path.removeprefix("library/")
        if path and name.count("/") <= 1 and not name.startswith(("search", "blog", "download", "v2/")):
            return image_references.ollama(text, name)
    return web_references.web(text, url)


def _local(text: str, path: str, directory: str | None) -> LocalReference:
    if not path:
        raise bad_reference(text, "it has no path", rule="path")
    if not path.startswith("/"):
        if directory is None or not directory.startswith("/"):
            raise bad_reference(
                text, "the path is not absolute, and the directory that it starts from was not told", rule="relative"
            )
        path = os.path.join(directory, path)
    # `..` is left: after a symbolic link it leads elsewhere than the spelling says.
    components = [part for part in path.split("/") if part not in ("", ".")]
    return LocalReference(path="/" + "/".join(components))


def _path_of_file(text: str, rest: str) -> str:
    if not rest.startswith("//"):
        return rest
    host, slash, path = rest[2:].partition("/")
    if host not in ("", "localhost"):
        raise bad_reference(text, "a file: address names another machine", rule="path")
    return unquote(slash + path, errors="surrogateescape")


def _without_scheme(text: str, directory: str | None) -> Reference:
    if "://" in text:
        raise bad_reference(text, "its scheme is not one of those that are known", rule="scheme")
    if "/" in text and ":" not in text and "\\" not in text:
        if directory is not None:
            return _local(text, text, directory)
        raise bad_reference(
            text,
            "as a path it is relative, and the directory that it starts from was not told",
            rule="relative",
            hint="A repository of Hugging Face is written hf:org/repo.",
        )
    try:
        return StoredReference(name=ModelName.parse(text))
    except InvalidName as fault:
        reason = str(fault.details.get("reason", "it breaks a rule for names"))
        raise bad_reference(text, f"as a name in the store it is not valid: {reason}", rule="name") from None
