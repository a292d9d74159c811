"""What a manifest says of the place that its files were pulled from: how it is written, and how it is read again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from modeld.sources.reference import Reference
from modeld.store import Digest
from modeld.store.manifests.entries import Entry

_SIGNED: Final = "(signed)"
"""Of an address, what is secret in the query may also choose the file: its text alone does not mean these bytes."""


def recorded_text(reference: Reference, include: Sequence[str], exclude: Sequence[str]) -> str:
    """The reference with the choice of its files."""
    signed = [_SIGNED] if reference.secrets.query is not None else []
    return " ".join([reference.text, *signed, *(f"+{glob}" for glob in include), *(f"-{glob}" for glob in exclude)])


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a manifest says of the place where its files came from."""

    text: str
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    files: tuple[tuple[str, Digest, int], ...]
    """Path at the source, digest and size."""

    signed: bool
    """The address had a secret, which is kept nowhere."""

    revision: str = ""
    """Of the source when the model was pulled; empty when that is not known."""


def recorded_source(entry: Entry) -> Recorded | None:
    """Blocking. None when the manifest names no source that a pull could use again."""
    source = entry.document().get("source")
    if entry.manifest is None or not isinstance(source, dict) or not isinstance(source.get("reference"), str):
        return None
    text, *rest = source["reference"].split(" ")
    signed = rest[:1] == [_SIGNED]
    globs = rest[signed:]
    if any(glob[:1] not in ("+", "-") for glob in globs):
        return None  # a glob with a space in it: which files were meant cannot be told
    sizes = entry.sizes()
    listed = [(file.path, file.blob) for file in entry.manifest.files]
    alone = source.get("filename") or ""
    return Recorded(
        text=text,
        include=tuple(glob[1:] for glob in globs if glob[0] == "+"),
        exclude=tuple(glob[1:] for glob in globs if glob[0] == "-"),
        files=tuple(
            (path, Digest.parse(blob), sizes.get(blob, 0)) for path, blob in listed or [(alone, entry.manifest.blob)]
        ),
        signed=signed,
        revision=str(source.get("revision") or ""),
    )
