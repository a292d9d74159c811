"""Whether hf-xet can be used, without importing it: only the child pays for that."""

from __future__ import annotations

import re
from typing import Final

LEAST: Final = (1, 5)
"""The first version with sessions, which stream ranges and take settings as values."""

BELOW: Final = (2, 0)
"""Tested with 1.5 to 1.8; the next major version may have other names."""


def reason_against() -> str | None:
    """Why hf-xet is not used; None when it is."""
    from importlib import metadata  # costs 10 ms, only for a pull from a hub

    try:
        version = metadata.version("hf-xet")
    except metadata.PackageNotFoundError:
        return "hf-xet is not installed"
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None or not LEAST <= (int(found[1]), int(found[2])) < BELOW:
        return f"hf-xet {version} is installed, and 1.5 or a later 1.x is needed"
    return None
