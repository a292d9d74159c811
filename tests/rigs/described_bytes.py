"""The bytes of a described file, whole or in part, as a source gives them."""

from __future__ import annotations

from typing import Final

from modeld.download.source import FileInfo, Opener
from modeld.sources.kind import For

OWN_USER: Final = For(lends=True, anywhere=True)
"""The daemon's own: a source for it uses all credentials and connects everywhere."""


def read_all(
    source: Opener, file: FileInfo, start: int = 0, end: int | None = None, validator: str | None = None
) -> bytes:
    """From where the source started, to its end; the connection is given back."""
    body = source.open(file, start, end, validator)
    try:
        buffer = bytearray(64 * 1024)
        found = bytearray()
        while got := body.readinto(memoryview(buffer)):
            found += buffer[:got]
        return bytes(found)
    finally:
        body.close()
