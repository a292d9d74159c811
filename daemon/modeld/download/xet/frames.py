"""What the daemon and its child send each other. The child imports this, so it uses the standard library only.

The daemon writes one line of JSON to the child's standard input, the order, and keeps that end open: when it closes,
for whatever reason, the bytes are not needed any more and the child exits. Secrets are in that line and nowhere else:
other users can read arguments and the environment.

The child answers on its standard output with frames, each a kind and a length before the payload:

- DATA: the next bytes of the range, in their order;
- END: no payload. The whole range was sent;
- FAULT: JSON, a `Fault`. Nothing comes after it.
"""

from __future__ import annotations

import struct
from typing import Final, TypedDict

HEADER: Final = struct.Struct(">cI")
DATA: Final = b"D"
END: Final = b"E"
FAULT: Final = b"F"

LONGEST: Final = 1 << 20
"""The longest payload: as much as the pipe holds, so that a frame is one write."""


class Order(TypedDict):
    hash: str
    size: int
    start: int
    end: int
    endpoint: str
    """Of the content store, as the hub gave it."""

    token: str
    """Short-lived, for reading, for that store alone: not the user's own token."""

    agent: str
    proxies: dict[str, str]
    """By the names of the variables. They may hold passwords, so they are not in the child's first environment."""

    memory: int
    """Bytes that hf-xet may hold for data in transit."""

    stall_seconds: float


class Fault(TypedDict):
    kind: str
    """`unusable` when hf-xet itself cannot be used, else `failed`."""

    status: int | None
    """Of HTTP, when a request failed."""

    message: str
    """Without addresses and without the token."""
