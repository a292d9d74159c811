"""What the daemon says to whoever started it, and the sockets that it is given: systemd's protocols, and a pipe.

A client that starts the daemon passes the writing end of a pipe (MODELD_READY_FD or a flag) and reads one line from it:
`READY <json>` or `ERROR <json>`; the end of file before a line means that the daemon died. All of this is best effort:
that nobody listens any more is no reason not to serve.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from modeld.platform import notify

LISTEN_FDS_START: Final = 3  # sd_listen_fds(3)
MOST_SOCKETS: Final = 64
"""The units pass one. A number beyond this is a damaged variable, not a set of sockets."""

READY_FD: Final = "MODELD_READY_FD"


def ready(status: str = "", *, environ: Mapping[str, str] | None = None) -> bool:
    """Start, or a reload, is over. Like its siblings it says whether it was taken: nobody need have asked for it."""
    return _send(["READY=1", *_status(status)], environ)


def status(text: str, *, environ: Mapping[str, str] | None = None) -> bool:
    """One line for `systemctl status`."""
    return _send(_status(text), environ)


def stopping(status: str = "", *, environ: Mapping[str, str] | None = None) -> bool:
    return _send(["STOPPING=1", *_status(status)], environ)


def _status(text: str) -> list[str]:
    # A newline would start another assignment, with whatever a model's name holds.
    return [f"STATUS={' '.join(text.split())}"] if text else []


def _send(lines: list[str], environ: Mapping[str, str] | None) -> bool:
    address = (os.environ if environ is None else environ).get("NOTIFY_SOCKET", "")
    return bool(lines) and notify.send(address, "\n".join(lines).encode(errors="replace"))


@dataclass(frozen=True, slots=True)
class PassedSocket:
    """A descriptor that the service manager listens on, and the name that its unit gave it."""

    fd: int
    name: str


def inherited_socket() -> int | None:
    """The descriptor of the endpoint, when the service manager passed one. The units pass exactly one."""
    passed = passed_sockets(os.environ)
    return passed[0].fd if passed else None


def passed_sockets(environ: MutableMapping[str, str], *, pid: int | None = None) -> list[PassedSocket]:
    """The sockets that were passed to this very process, and not to a child by accident.

    The variables are taken away and the descriptors are closed on exec: they are for nobody else.
    """
    meant = _number(environ.pop("LISTEN_PID", None))
    count = _number(environ.pop("LISTEN_FDS", None)) or 0
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    environ.pop("LISTEN_PIDFDID", None)
    if meant != (os.getpid() if pid is None else pid) or count > MOST_SOCKETS:
        return []
    found = []
    for place in range(count):
        fd = LISTEN_FDS_START + place
        with suppress(OSError):  # a descriptor that is not open was not passed
            os.set_inheritable(fd, False)
            found.append(PassedSocket(fd, names[place] if place < len(names) else ""))
    return found


class ReadyPipe:
    """The one line for whoever started this daemon: the first of `ready` and `error`, then the pipe is closed."""

    def __init__(self, fd: int | None = None, *, environ: MutableMapping[str, str] | None = None) -> None:
        """`fd` is the flag's; without one MODELD_READY_FD counts, which is taken away in any case."""
        given = _number((os.environ if environ is None else environ).pop(READY_FD, None))
        self._fd = _pipe(given if fd is None else fd)

    def ready(self, facts: Mapping[str, Any]) -> None:
        self._tell("READY", facts)

    def error(self, facts: Mapping[str, Any]) -> None:
        self._tell("ERROR", facts)

    def close(self) -> None:
        """Say nothing; the other side sees the end of file."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def _tell(self, word: str, facts: Mapping[str, Any]) -> None:
        if self._fd is None:
            return
        left = f"{word} {json.dumps(facts)}\n".encode()
        with suppress(OSError):  # whoever started us is gone
            while left:
                left = left[os.write(self._fd, left) :]
        self.close()


def _pipe(fd: int | None) -> int | None:
    """The descriptor if it is a pipe or socket of ours to write to: a stale number may by now be somebody's file."""
    if fd is None or fd < LISTEN_FDS_START:
        return None
    with suppress(OSError, OverflowError):
        mode = os.fstat(fd).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
            os.set_inheritable(fd, False)
            return fd
    return None


def _number(text: str | None) -> int | None:
    text = (text or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None
