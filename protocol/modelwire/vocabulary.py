"""The closed sets of words that the wire uses, and how they order."""

from __future__ import annotations

from typing import Final, Literal

Role = Literal["read", "write", "admin"]
ROLE_ORDER: Final[dict[str, int]] = {"read": 1, "write": 2, "admin": 3}

JobState = Literal["queued", "running", "paused", "done", "failed", "cancelled"]
TERMINAL_STATES: Final = frozenset({"done", "failed", "cancelled"})

Phase = Literal[
    "queued",
    "checking_local",
    "reserving",
    "download",
    "copy",
    "link",
    "verify",
    "quarantine",
    "publish",
    "load",
    "done",
]

OnDisconnect = Literal["cancel", "continue"]

ModelState = Literal["available", "downloading", "ready", "loaded", "suspect", "failed", "unavailable"]
GIVEN_OUT: Final = frozenset({"ready", "loaded"})
"""States in which a model's path may be given out as complete, verified bytes."""

COMING: Final = frozenset({"available", "downloading"})
"""States of a model that has no manifest: its bytes are not here yet."""

CacheType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]
"""Of the numbers that an engine keeps of each token, as llama.cpp names them."""

CACHE_TYPE_DEFAULT: Final[CacheType] = "f16"

PRIORITY_HIGHEST: Final = 1
PRIORITY_DEFAULT: Final = 3
PRIORITY_LOWEST: Final = 5


def allows(held: str, needed: str) -> bool:
    """Whether a peer that holds one role may do what needs another."""
    return ROLE_ORDER.get(held, 0) >= ROLE_ORDER[needed]


def clamp_priority(value: int) -> int:
    return max(PRIORITY_HIGHEST, min(PRIORITY_LOWEST, value))
