"""The token for the hub, from where the hub's own client reads it, in the same order."""

from __future__ import annotations

import os
from collections.abc import Mapping

_TRUE = frozenset({"1", "on", "yes", "true"})


def hub_token(environ: Mapping[str, str]) -> str | None:
    """HF_TOKEN, else the file that HF_TOKEN_PATH names, else `token` in HF_HOME or in the cache of the user."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        token = _cleaned(environ.get(name))
        if token is not None:
            return token
    if (environ.get("HF_HUB_DISABLE_IMPLICIT_TOKEN") or "").strip().lower() in _TRUE:
        return None
    path = environ.get("HF_TOKEN_PATH") or os.path.join(_home(environ), "token")
    try:
        with open(os.path.expanduser(path), encoding="utf-8") as file:
            return _cleaned(file.read(4096))
    except (OSError, UnicodeDecodeError):
        return None


def _home(environ: Mapping[str, str]) -> str:
    given = environ.get("HF_HOME")
    if given:
        return given
    cache = environ.get("XDG_CACHE_HOME") or os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".cache")
    return os.path.join(cache, "huggingface")


def _cleaned(text: str | None) -> str | None:
    """Without the line breaks that editors and `echo` add."""
    cleaned = (text or "").replace("\r", "").replace("\n", "").strip()
    return cleaned or None
