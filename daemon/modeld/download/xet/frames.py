"""What the daemon and its child tell each other. The child imports this, so it needs nothing but the standard library.

The daemon writes one line of JSON to the child's standard input, the order, and keeps that end open: when it closes,
however it comes to that, nobody wants the bytes any more and the child ends. Secrets are in that line and nowhere
else: arguments and environment can be read by others.

The child answers on its standard output with frames, each a kind and a length before the payload:

- DATA: the next bytes of the range, in their order;
- END: no payload. Everything that was ordered has been given;
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
"""Of a payload. As much as the pipe holds, so that a frame is one write."""


class Order(TypedDict):
    hash: str
    size: int
    start: int
    end: int
    endpoint: str
    """Of the content store, as the hub told it."""

    token: str
    """For that store alone, to read, and short-lived: not the user's own."""

    agent: str
    proxies: dict[str, str]
    """By the names of the variables. They may hold passwords, so they are not in the child's first environment."""

    memory: int
    """Bytes that hf-xet may hold for data on its way."""

    stall_seconds: float


class Fault(TypedDict):
    kind: str
    """`unusable` when hf-xet itself cannot be used, else `failed`."""

    status: int | None
    """Of HTTP, when that is what failed."""

    message: str
    """Without addresses and without the token."""
