"""Reports to the program that started the daemon, and the sockets that it passed: systemd's protocols, and a pipe.

A client that starts the daemon passes the writing end of a pipe (MODELD_READY_FD or a flag) and reads one line from it:
`READY <json>` or `ERROR <json>`; the end of file before a line means that the daemon died. All reports are best effort:
the daemon serves even if no program reads them.
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
MAX_SOCKETS: Final = 64
"""modeld's units pass one. A number beyond this is a damaged variable, not a set of sockets."""

READY_FD: Final = "MODELD_READY_FD"


def ready(status: str = "", *, environ: Mapping[str, str] | None = None) -> bool:
    """Reports the end of a start or reload. Returns, like `status` and `stopping`, whether the message was accepted."""
    return _send(["READY=1", *_status(status)], environ)


def status(text: str, *, environ: Mapping[str, str] | None = None) -> bool:
    """One line for `systemctl status`."""
    return _send(_status(text), environ)


def stopping(status: str = "", *, environ: Mapping[str, str] | None = None) -> bool:
    return _send(["STOPPING=1", *_status(status)], environ)


def _status(text: str) -> list[str]:
    # A newline would start another assignment, and the text may hold the name of a model.
    return [f"STATUS={' '.join(text.split())}"] if text else []


def _send(lines: list[str], environ: Mapping[str, str] | None) -> bool:
    address = (os.environ if environ is None else environ).get("NOTIFY_SOCKET", "")
    return bool(lines) and notify.send(address, "\n".join(lines).encode(errors="replace"))


@dataclass(frozen=True, slots=True)
class PassedSocket:
    """A descriptor on which the service manager listens, and the name that the unit gives it."""

    fd: int
    name: str


def inherited_socket() -> int | None:
    """The descriptor of the endpoint, if the service manager passed one. modeld's units pass exactly one."""
    passed = passed_sockets(os.environ)
    return passed[0].fd if passed else None


def passed_sockets(environ: MutableMapping[str, str], *, pid: int | None = None) -> list[PassedSocket]:
    """The sockets that were passed to this process; none if the variables name another one, such as its parent.

    Removes the variables, and closes the descriptors on exec, so that no child gets them.
    """
    meant = _number(environ.pop("LISTEN_PID", None))
    count = _number(environ.pop("LISTEN_FDS", None)) or 0
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    environ.pop("LISTEN_PIDFDID", None)
    if meant != (os.getpid() if pid is None else pid) or count > MAX_SOCKETS:
        return []
    found = []
    for place in range(count):
        fd = LISTEN_FDS_START + place
        with suppress(OSError):  # a descriptor that is not open was not passed
            os.set_inheritable(fd, False)
            found.append(PassedSocket(fd, names[place] if place < len(names) else ""))
    return found


class ReadyPipe:
    """The pipe to the client that started this daemon. The first `ready` or `error` writes a line and closes it."""

    def __init__(self, fd: int | None = None, *, environ: MutableMapping[str, str] | None = None) -> None:
        """`fd` comes from the flag, else from MODELD_READY_FD, which is removed in either case."""
        given = _number((os.environ if environ is None else environ).pop(READY_FD, None))
        self._fd = _pipe(given if fd is None else fd)

    def ready(self, facts: Mapping[str, Any]) -> None:
        self._write("READY", facts)

    def error(self, facts: Mapping[str, Any]) -> None:
        self._write("ERROR", facts)

    def close(self) -> None:
        """Closes the pipe without a line; the client sees the end of file."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def _write(self, word: str, facts: Mapping[str, Any]) -> None:
        if self._fd is None:
            return
        left = f"{word} {json.dumps(facts)}\n".encode()
        with suppress(OSError):  # the client that started us has ended
            while left:
                left = left[os.write(self._fd, left) :]
        self.close()


def _pipe(fd: int | None) -> int | None:
    """The descriptor, if it is a pipe or a socket: a stale number may be that of any open file by now."""
    if fd is None or fd < LISTEN_FDS_START:
        return None
    with suppress(OSError, OverflowError):
        mode = os.fstat(fd).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
            os.set_inheritable(fd, False)
            os.set_blocking(fd, False)  # a program that does not read must not hold the daemon
            return fd
    return None


def _number(text: str | None) -> int | None:
    text = (text or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None
