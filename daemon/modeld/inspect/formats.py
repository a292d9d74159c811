"""The format of a file of weights, by its first bytes, else by its name."""

from __future__ import annotations

import os
import re
from typing import Final

HEAD_BYTES: Final = 9
"""Enough for every format below."""

MAX_SAFETENSORS_HEADER: Final = 100_000_000
"""The format's own limit. Any eight bytes are a length; few are one this small."""

_EXTENSION = re.compile(r"\.([A-Za-z0-9]{1,16})$")


def format_of_content(head: bytes) -> str | None:
    """None when the bytes do not say."""
    if head.startswith(b"GGUF"):
        return "gguf"
    if len(head) >= 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= MAX_SAFETENSORS_HEADER:
        return "safetensors"
    return None


def format_of_name(filename: str) -> str:
    extension = _EXTENSION.search(os.path.basename(filename))
    return extension.group(1).lower() if extension is not None else "unknown"
