"""Documents that come in place of a model: the page of a login, an error, a pointer to the file."""

from __future__ import annotations

import re
from typing import Final

POINTER: Final = b"version https://git-lfs.github.com/spec/"
"""The beginning of a pointer of Git LFS to a file."""

# Nothing is taken back of a comment that was matched: else n comments can be divided in 2^n ways.
_PAGE: Final = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*+(?><!--.*?-->\s*)*+<(?:!doctype\s+html|html)[\s>]", re.IGNORECASE | re.DOTALL
)
_MAX_ERROR: Final = 4095
"""Bytes of an error that is JSON: no whole file of a model is one."""


def is_page(head: bytes) -> bool:
    """Whether the first bytes are those of an HTML page."""
    return _PAGE.match(head) is not None


def other_document(head: bytes) -> str | None:
    """What the first bytes of a file are instead of weights; None when nothing says so."""
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
    return "a JSON document" if text.startswith(b"{") and is_text and len(head) <= _MAX_ERROR else None
