"""One datagram to the service manager (sd_notify)."""

from __future__ import annotations

import socket
from contextlib import suppress


def send(address: str, message: bytes) -> bool:
    """Sends the message; whether it was accepted. `address` is a path or, after an `@`, an abstract name; other kinds
    (vsock:) are on another machine."""
    if address[:1] not in {"@", "/"}:
        return False
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        # The service manager's queue may be full: no status is worth blocking for.
        out.setblocking(False)
        out.sendto(message, f"\0{address[1:]}" if address[0] == "@" else address)
        return True
    return False
