"""Files and directories of this machine. They have no source: a pull of one adds it to the store."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import ClassVar, Final
from urllib.parse import unquote

from modeld.sources.kind import Kind
from modeld.sources.reference import NotAReference, Reference, Written


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalReference(Reference):
    """`path` is absolute."""

    network: ClassVar[bool] = False
    path: str

    @property
    def text(self) -> str:
        return f"local:{self.path}"

    @property
    def name_hint(self) -> str:
        return self.path


def read(written: Written) -> LocalReference | None:
    text = written.text
    if text.startswith(("/", "./", "../", "local:/")) or text in (".", ".."):
        # A file name may end with a space.
        return _at(written.raw.lstrip().rstrip("\r\n").removeprefix("local:"), written.directory)
    if written.scheme == "file":
        return _at(_path_of_address(written.rest), written.directory)
    if written.scheme == "local":
        raise NotAReference("local: must be followed by an absolute path", rule="path")
    if "/" not in text or ":" in text or "\\" in text:
        return None
    if written.directory is None:
        raise NotAReference(
            "as a path it is relative, and the request does not name the directory that it starts from",
            rule="relative",
            hint="For a repository of Hugging Face, write hf:org/repo.",
        )
    return _at(text, written.directory)


def _at(path: str, directory: str | None) -> LocalReference:
    if not path:
        raise NotAReference("it has no path", rule="path")
    if not path.startswith("/"):
        if directory is None or not directory.startswith("/"):
            raise NotAReference(
                "the path is relative, and the request does not name the directory that it starts from", rule="relative"
            )
        path = os.path.join(directory, path)
    # `..` stays: after a symbolic link, the directory above is not the one that the text shows.
    components = [part for part in path.split("/") if part not in ("", ".")]
    return LocalReference(path="/" + "/".join(components))


def _path_of_address(rest: str) -> str:
    if not rest.startswith("//"):
        return rest
    host, slash, path = rest[2:].partition("/")
    if host not in ("", "localhost"):
        raise NotAReference("its file: address names another machine", rule="path")
    return unquote(slash + path, errors="surrogateescape")


KIND: Final = Kind(
    name="local",
    reference=LocalReference,
    forms=("/path/model.gguf, ./model.gguf, file:model.gguf",),
    read=read,
)
