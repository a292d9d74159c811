"""The format of a file of weights, by its first bytes. Its name is only a promise."""

from __future__ import annotations

import os
import re
from typing import Final

from modeld.inspect import gguf, safetensors

HEAD_BYTES: Final = 4096
"""Enough for every format below, and to tell what is no model at all."""

UNKNOWN: Final = "unknown"

_EXTENSION = re.compile(r"\.([A-Za-z0-9]{1,16})$")

_BEGINNINGS: Final = (
    (gguf.MAGIC, "gguf"),
    # Before GGUF: three versions for language models, one for adapters. Whisper's files still begin so.
    *((magic, "ggml") for magic in (b"lmgg", b"fmgg", b"tjgg", b"algg")),
    (b"\x89HDF\r\n\x1a\n", "hdf5"),
    (b"\x93NUMPY", "npy"),
    (b"ptrt", "tensorrt"),
    (b"ftrt", "tensorrt"),
    # A pickle of the number that PyTorch writes first, before it wrote archives.
    (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19", "pytorch"),
)

_HEADER = re.compile(rb"\{\s*(?:[\"}]|\Z)")
"""How the header of a safetensors file begins, as far as there are bytes."""

_ZIP: Final = b"PK\x03\x04"
_ZIP_NAME: Final = slice(30, 30 + 512)
"""Where the first name of an archive is."""

NAMED: Final = {
    **{extension: extension for extension in ("gguf", "ggml", "safetensors", "onnx", "tflite", "npy", "npz")},
    "pt": "pytorch",
    "pth": "pytorch",
    "ckpt": "pytorch",
    "h5": "hdf5",
    "engine": "tensorrt",
}
"""The format that an extension promises. Others promise nothing: `.bin` may be anything."""

CERTAIN: Final = frozenset({"gguf", "safetensors", "npy", "tflite"})
"""Formats of which each file is recognised."""


def format_of_content(head: bytes) -> str | None:
    """By the first `HEAD_BYTES` of a file; None when they do not say."""
    for beginning, name in _BEGINNINGS:
        if head.startswith(beginning):
            return name
    if _HEADER.match(head, 8) and int.from_bytes(head[:8], "little") <= safetensors.MAX_HEADER:
        return "safetensors"
    if head[4:8] == b"TFL3":
        return "tflite"
    if head.startswith(_ZIP):
        return _format_of_archive(head)
    return "onnx" if _is_onnx(head) else None


def promised_format(filename: str) -> str | None:
    """None when the extension promises no format."""
    extension = _EXTENSION.search(os.path.basename(filename))
    return NAMED.get(extension.group(1).lower()) if extension is not None else None


def _format_of_archive(head: bytes) -> str | None:
    """By the name of its first file."""
    length = int.from_bytes(head[26:28], "little")
    name = head[_ZIP_NAME][:length]
    if name.endswith((b"/data.pkl", b"/version", b"/.format_version", b"/byteorder")):
        return "pytorch"
    return "npz" if name.endswith(b".npy") else None


# Fields of the message that an ONNX file is, which has no magic: number, and whether it is a length and bytes.
_VERSION, _GRAPH = 1, 7
_NUMBERS: Final = frozenset({_VERSION, 5})
_TEXTS: Final = frozenset({2, 3, 4, 6, _GRAPH, 8, 14, 20, 25})
_LATEST_VERSION: Final = 100
"""The format is at 13, after nine years."""


def _is_onnx(head: bytes) -> bool:
    """Whether the bytes begin as a model: a version first, only known fields, and a graph."""
    at, first = 0, True
    while at < len(head):
        tag, at = _varint(head, at)
        number, wire = tag >> 3, tag & 7
        value, at = _varint(head, at)
        if first and (number != _VERSION or not 0 < value <= _LATEST_VERSION):
            return False
        if number == _GRAPH and wire == 2:
            return value > 0
        if (number, wire) not in {*((each, 0) for each in _NUMBERS), *((each, 2) for each in _TEXTS)}:
            return False
        at += value if wire == 2 else 0
        first = False
    return False


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends; 0 where the bytes end."""
    value = 0
    for shift in range(0, 64, 7):
        if at >= len(data):
            return 0, at
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    return 0, at
