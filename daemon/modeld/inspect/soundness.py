"""Whether a file can be the model that it is named as: an error page, a pointer to the file and half a file are not.

It refuses only what is certainly no model. A format that it does not know passes.
"""

from __future__ import annotations

import os
import re
from typing import Final

import msgspec

from modeld.inspect import gguf
from modeld.inspect.formats import HEAD_BYTES, MAX_SAFETENSORS_HEADER, format_of_content, format_of_name

POINTER: Final = b"version https://git-lfs.github.com/spec/"
"""The beginning of a pointer of Git LFS to a file."""

_PAGE: Final = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html)[\s>]", re.I | re.S)
_HEAD_BYTES: Final = 4096
_SHORTEST: Final = {"gguf": gguf.FIXED, "safetensors": 10}
"""Bytes of the shortest file of each format. For safetensors: the length of the header, and an empty header."""


class _Tensor(msgspec.Struct):
    data_offsets: tuple[int, int] = (0, 0)


def is_page(head: bytes) -> bool:
    """Whether the first bytes are those of an HTML page."""
    return _PAGE.match(head) is not None


def fault_of(descriptor: int, size: int, name: str) -> str | None:
    """Why the open file of `size` bytes is not the model that `name` promises; None when nothing speaks against it."""
    named = format_of_name(name)
    head = os.pread(descriptor, _HEAD_BYTES, 0)
    if named in _SHORTEST and (reason := _something_else(head)):
        return f"it is {reason}"
    needed: int | None = None
    # Too few bytes may not say themselves what they are the beginning of.
    kind = format_of_content(head[:HEAD_BYTES]) or (named if size < _SHORTEST.get(named, 0) else None)
    match kind:
        case "gguf":
            needed = _gguf_bytes(descriptor, size)
        case "safetensors":
            needed = _safetensors_bytes(descriptor, size)
    if kind is None or needed is None or needed <= size:
        return None
    why = f"a {kind} file has {needed} at least" if size < _SHORTEST[kind] else f"by its own header {needed} at least"
    return f"it is cut off: it has {size} bytes, and {why}"


def _something_else(head: bytes) -> str | None:
    if not head:
        return "empty"
    if head.startswith(POINTER):
        return "a pointer of Git LFS to the file, not the file: fetch it with `git lfs pull`"
    if is_page(head):
        return "an HTML page"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"<?xml"):
        return "an XML document"
    # An answer such as {"error": …} that was saved under the file's name.
    is_text = all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head)
    return "a JSON document" if text.startswith(b"{") and is_text and len(head) < _HEAD_BYTES else None


def _gguf_bytes(descriptor: int, size: int) -> int | None:
    try:
        return gguf.needed_bytes(descriptor, size)
    except gguf.Truncated:
        return max(size + 1, _SHORTEST["gguf"])
    except gguf.Unreadable:
        return None


def _safetensors_bytes(descriptor: int, size: int) -> int | None:
    if size < _SHORTEST["safetensors"]:
        return _SHORTEST["safetensors"]
    length = int.from_bytes(os.pread(descriptor, 8, 0), "little")
    if 8 + length > size:
        return 8 + length
    if length > MAX_SAFETENSORS_HEADER:
        return None
    try:
        tensors = msgspec.json.decode(os.pread(descriptor, length, 8), type=dict[str, _Tensor])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return 8 + length + max((tensor.data_offsets[1] for tensor in tensors.values()), default=0)
