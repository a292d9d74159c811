"""Bytes that are not what was asked for, recognised by how they begin."""

from __future__ import annotations

import re
from typing import Final

from modeld.download.source import FileInfo
from modeld.inspect.other_documents import POINTER, is_page
from modelwire.errors import SourceUnavailable

HEAD: Final = 512
POINTER_MAX: Final = 1024
"""A Git LFS pointer is about 130 bytes; the specification allows no more than this."""

_OID = re.compile(rb"^oid sha256:([0-9a-f]{64})\s*$", re.M)
_SIZE = re.compile(rb"^size (\d{1,18})\s*$", re.M)
_PAGE_NAMES = (".html", ".htm", ".xhtml")


def check_type(content_type: str | None, file: FileInfo, shown: str) -> None:
    """A browser's page has a browser's type, whatever it begins with."""
    kind = (content_type or "").partition(";")[0].strip().lower()
    if kind in ("text/html", "application/xhtml+xml") and not file.path.lower().endswith(_PAGE_NAMES):
        raise _page(file, shown)


def check_beginning(head: bytes, file: FileInfo, shown: str) -> None:
    """Given the first bytes of the file."""
    if is_page(head) and not file.path.lower().endswith(_PAGE_NAMES):
        raise _page(file, shown)
    if head.startswith(POINTER) and not (file.digest is not None and file.size and file.size <= POINTER_MAX):
        oid, size = _OID.search(head), _SIZE.search(head)
        names = f" It names sha256:{oid[1].decode()}" if oid else ""
        names += f" of {size[1].decode()} bytes." if oid and size else ""
        raise SourceUnavailable(
            f"{shown} sent a Git LFS pointer instead of the content of {file.path}.{names}",
            hint="The source keeps the content elsewhere: use its download address (`…/resolve/…` on a hub,"
            " `…/media/…` for raw files on a forge).",
            retryable=False,
            details={"source": shown, "pointer_sha256": oid[1].decode() if oid else None},
        )


def _page(file: FileInfo, shown: str) -> SourceUnavailable:
    return SourceUnavailable(
        f"{shown} sent a web page instead of {file.path}",
        hint="It may be a page about the file, a login or a notice of the network: open the address in a browser,"
        " and use the address of the download itself.",
        retryable=False,
        details={"source": shown},
    )
