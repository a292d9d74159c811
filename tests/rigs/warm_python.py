"""Processes that start at once: forks of a Python that has imported the daemon, or the command.

A daemon takes half a second of a processor to start and a command a tenth, nearly all of it for their imports, and the
suite starts thousands of both. A fork has a pid, an environment, a working directory, a mask, signals and descriptors
of its own, and ends as any Python does. Its command line in /proc, its hash seed and the flags of its interpreter are
those of the process that it is a fork of: `fits` says what asks for other ones, and who measures a start from nothing
starts a Python.

`python warm_python.py FD MODULE` is the process that forks: it imports the module, and over the socket FD it takes
requests with their descriptors.
"""

from __future__ import annotations

import atexit
import fcntl
import functools
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

_INTERPRETER: Final = ("PYTHON", "LD_", "LC_", "LANG", "MALLOC_", "GLIBC_")
"""How the names of variables begin that the interpreter or the loader reads before any of our code runs."""

_MOST_BYTES: Final = 100_000
"""Of a request: a message of such a socket is written whole, and has room for this on every Linux."""

_ABOVE: Final = 64
"""Descriptors of a fork are moved here while those below are closed: no daemon is given as many."""


DAEMON: Final = "modeld.app.run"
COMMAND: Final = "modelclient.ctl.session"
"""What a warm Python has imported. Neither has what only the other one needs."""


class WarmProcess:
    """What tests use of a `subprocess.Popen`. The status pipe says the pid, and at the end of the process its code."""

    def __init__(self, status: int) -> None:
        self.returncode: int | None = None
        self._status = open(status, encoding="ascii")  # noqa: SIM115 - closed when the process has ended
        self.pid = int(self._status.readline())

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._code(0)
        return self.returncode

    def wait(self, timeout: float) -> int:
        if self.returncode is None:
            self.returncode = self._code(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
        return self.returncode

    def _code(self, seconds: float) -> int | None:
        """None when it has not ended by then."""
        waiting = select.poll()
        waiting.register(self._status, select.POLLIN)
        if not waiting.poll(seconds * 1000):
            return None
        with self._status:
            return int(self._status.readline())

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _WarmPython:
    def __init__(self, imported: str, environ: Mapping[str, str]) -> None:
        self._requests, given = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with given:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(given.fileno()), imported],
                env=environ,
                pass_fds=[given.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        atexit.register(self._end)

    def _end(self) -> None:
        self._requests.close()
        self._process.wait()

    def start(self, request: bytes, descriptors: Sequence[int]) -> WarmProcess:
        reader, writer = os.pipe()
        try:
            socket.send_fds(self._requests, [request], [writer, *descriptors])
        finally:
            os.close(writer)
        return WarmProcess(reader)


@functools.cache
def _warm(imported: str, interpreter: tuple[tuple[str, str], ...]) -> _WarmPython:
    """One for each set of variables that an interpreter reads; it ends with the process that asks for it."""
    return _WarmPython(imported, dict(interpreter))


def _read_by_interpreter(environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    named = {name: value for name, value in environ.items() if name.startswith(_INTERPRETER) and name != "PYTHONPATH"}
    return tuple(sorted(named.items()))


def fits(program: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Whether a fork does what a Python of its own would as a daemon: not with a library before all others, and not for
    code that is about the interpreter itself."""
    return program[0] != "-c" and "LD_PRELOAD" not in environ


def start_warm(
    program: Sequence[str],
    arguments: Sequence[str],
    environ: Mapping[str, str],
    *,
    imported: str,
    stdin: int,
    stdout: int,
    stderr: int,
    passed: Sequence[int] = (),
    directory: str | None = None,
) -> WarmProcess | None:
    """Starts `python *program *arguments` as a fork of a Python that has `imported` a module. The process finds the
    passed descriptors from 3 on. None when this is too much for a request."""
    mask = os.umask(0)
    os.umask(mask)
    request = {
        "program": list(program),
        "arguments": list(arguments),
        "environ": dict(environ),
        "directory": directory or os.getcwd(),
        "mask": mask,
    }
    encoded = json.dumps(request).encode()
    if len(encoded) > _MOST_BYTES:
        return None
    return _warm(imported, _read_by_interpreter(environ)).start(encoded, [stdin, stdout, stderr, *passed])


def _import(module: str) -> None:
    """With what they import when they run."""
    if module == DAEMON:
        sys.modules.setdefault("rich", None)  # type: ignore[arg-type]  # as the daemon's own `main` has it
        importlib.import_module("argparse")
        importlib.import_module("anyio._backends._asyncio")
    else:
        importlib.import_module("modelclient.ctl.command")
    importlib.import_module(module)


def _serve(requests: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Returns in each fork only: what it is to be, and its descriptors."""
    running: dict[int, tuple[int, int]] = {}
    waiting = select.poll()
    waiting.register(requests, select.POLLIN)
    while True:
        for ready, _ in waiting.poll():
            if ready in running:
                child, status = running.pop(ready)
                code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                _say(status, code)
                waiting.unregister(ready)
                os.close(ready)
                os.close(status)
                continue
            message, received, _, _ = socket.recv_fds(requests, _MOST_BYTES, 16)
            if not message:
                os._exit(0)  # who asks has ended
            status, *descriptors = received
            child = os.fork()
            if child == 0:
                requests.detach()
                return json.loads(message), descriptors
            for descriptor in descriptors:
                os.close(descriptor)
            _say(status, child)
            watched = os.pidfd_open(child)
            waiting.register(watched, select.POLLIN)
            running[watched] = child, status


def _say(status: int, number: int) -> None:
    try:
        os.write(status, f"{number}\n".encode())
    except BrokenPipeError:
        return  # the test has ended


def _become(request: Mapping[str, Any], descriptors: Sequence[int]) -> None:
    above = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, _ABOVE) for descriptor in descriptors]
    os.closerange(3, _ABOVE)
    for number, descriptor in enumerate(above):
        os.dup2(descriptor, number)
    os.closerange(_ABOVE, os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    os.environ.update(request["environ"])
    time.tzset()
    os.chdir(request["directory"])
    os.umask(request["mask"])
    _draw_keys()


def _draw_keys() -> None:
    """What a module draws when it is imported is another one in each process."""
    reference = sys.modules.get("modeld.sources.reference")
    if reference is not None:
        vars(reference).update(_FINGERPRINT_KEY=os.urandom(len(vars(reference)["_FINGERPRINT_KEY"])))


def _run(program: Sequence[str], arguments: Sequence[str]) -> None:
    kind = program[0] if len(program) > 1 else None
    first = os.getcwd() if kind == "-m" else "" if kind == "-c" else os.path.dirname(program[0])
    sys.path[0:1] = [first, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = [program[0], *arguments]
    if kind == "-m":
        runpy.run_module(program[1], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        exec(program[1], {"__name__": "__main__"})
    else:
        runpy.run_path(program[0], run_name="__main__")


def _main() -> None:
    requests = socket.socket(fileno=int(sys.argv[1]))
    _import(sys.argv[2])
    request, descriptors = _serve(requests)
    _become(request, descriptors)
    _run(request["program"], request["arguments"])


if __name__ == "__main__":
    _main()
