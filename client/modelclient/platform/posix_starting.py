"""A daemon process on Linux and macOS: a session of its own, and a pipe for the one line by which it reports."""

from __future__ import annotations

import fcntl
import os
import pwd
import select
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

LOG_BYTES = 4 * 1024 * 1024
"""The daemon's standard error is set aside at this size: its own log has the whole story."""

LINE_BYTES = 64 * 1024
"""A sentence and its hint are a few hundred bytes; more is not read."""


@contextmanager
def start_lock(path: str) -> Iterator[bool]:
    """The file stays: a lock whose file is removed can be held twice."""
    held = _open_lock(path)
    try:
        yield held is None or _locked(held)
    finally:
        if held is not None:
            os.close(held)


def keeper(path: str) -> str | None:
    directory = os.path.dirname(path)
    try:
        uid = os.lstat(directory).st_uid
    except OSError:
        return None  # the daemon makes the directory, or reports what is wrong with the place
    # Root's directories are as safe as this user's own, where this user may write to them: /tmp is one.
    if uid == os.getuid() or (uid == 0 and os.access(directory, os.W_OK)):
        return None
    try:
        return f"uid {uid} ({pwd.getpwuid(uid).pw_name})"
    except (KeyError, OSError):
        return f"uid {uid}"


def _open_lock(path: str) -> int | None:
    try:
        if os.stat(os.path.dirname(path)).st_uid != os.getuid():
            return None  # another user could hold a lock there for ever
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:
        return None  # the daemon will report what is wrong with the place


def _locked(held: int) -> bool:
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a filesystem without locks: more work, the same outcome
    return True


class Spawned:
    def __init__(self, pid: int, read_end: int, log_path: str | None, log_start: int) -> None:
        self.pid = pid
        self.log_path = log_path
        self._read_end = read_end
        self._log_start = log_start

    def first_line(self, deadline: float, check_cancelled: Callable[[], None]) -> bytes | None:
        try:
            return self._read(deadline, check_cancelled)
        finally:
            os.close(self._read_end)

    def last_words(self) -> str:
        if self.log_path is None:
            return ""
        try:
            with open(self.log_path, "rb") as log:
                log.seek(self._log_start)
                lines = log.read(LOG_BYTES).decode(errors="replace").split("\n")
        except OSError:
            return ""
        return next((line.strip(" |+-\r") for line in reversed(lines) if any(map(str.isalnum, line))), "")

    def _read(self, deadline: float, check_cancelled: Callable[[], None]) -> bytes | None:
        waiting = select.poll()
        waiting.register(self._read_end, select.POLLIN)
        held = b""
        while b"\n" not in held and len(held) < LINE_BYTES:
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            check_cancelled()
            if waiting.poll(min(left, 0.1) * 1000):
                more = os.read(self._read_end, LINE_BYTES)
                if not more:
                    break
                held += more
        return held.partition(b"\n")[0]


def spawn(command: Sequence[str], environ: Mapping[str, str], log_path: str | None) -> Spawned:
    log = None if log_path is None else _open_log(log_path)
    log_start = 0 if log is None else os.fstat(log).st_size
    read_end, write_end = os.pipe()
    try:
        process = subprocess.Popen(
            [*command, "--ready-fd", str(write_end)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL if log is None else log,
            pass_fds=(write_end,),
            start_new_session=True,
            cwd="/",
            env=environ,
        )
    except OSError:
        os.close(read_end)
        raise
    finally:
        os.close(write_end)
        if log is not None:
            os.close(log)
    # A client that outlives the daemon must not keep its remains.
    threading.Thread(target=process.wait, name="modeld-reaper", daemon=True).start()
    return Spawned(process.pid, read_end, None if log is None else log_path, log_start)


def _open_log(path: str) -> int | None:
    """A place that cannot be written must not keep a daemon from starting."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        log = os.open(path, flags, 0o600)
        if os.fstat(log).st_size > LOG_BYTES:
            os.close(log)
            os.replace(path, path + ".1")
            log = os.open(path, flags, 0o600)
    except OSError:
        return None
    return log
