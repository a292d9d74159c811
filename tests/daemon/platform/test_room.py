"""What one system has and another has not is named in the platform room only.

import-linter keeps the modules inside (fcntl, pwd, …). Constants, paths and calls of modules that every system has are
looked for here.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import modeld

ROOM = Path(modeld.__file__).parent
NAMES = {
    *("AF_UNIX", "SCM_RIGHTS", "SO_PEERCRED", "LOCAL_PEERCRED", "send_fds", "recv_fds"),
    *("getgrouplist", "getpwnam", "getpwuid", "getgrnam"),
    *("clock_gettime", "CLOCK_BOOTTIME"),
    *("posix_fadvise", "posix_fallocate", "preadv", "pwritev", "getxattr", "setxattr"),
    *("syscall", "uname", "prctl", "sendfile", "copy_file_range"),
}
PATH = "/proc/"


def foreign(source: str) -> Iterator[tuple[int, str]]:
    """The lines of a module that name one system's own, docstrings and comments aside."""
    tree = ast.parse(source)
    prose = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in NAMES:
            yield node.lineno, node.attr
        elif isinstance(node, ast.Name) and node.id in NAMES:
            yield node.lineno, node.id
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, name.name) for name in node.names if name.name in NAMES)
        elif isinstance(node, ast.Constant) and str(node.value).startswith(PATH) and id(node) not in prose:
            yield node.lineno, str(node.value)


def modules() -> list[str]:
    return sorted(
        str(path.relative_to(ROOM)) for path in ROOM.rglob("*.py") if not path.is_relative_to(ROOM / "platform")
    )


def test_no_other_room_names_what_one_system_has() -> None:
    found = [f"{module}:{line}: {name}" for module in modules() for line, name in foreign((ROOM / module).read_text())]
    assert found == []


def test_the_modules_are_found() -> None:
    assert len(modules()) > 100
    assert os.path.join("store", "disk", "durable.py") in modules()


@pytest.mark.parametrize(
    "source",
    [
        "socket.socket(socket.AF_UNIX)",
        "from socket import AF_UNIX",
        "connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)",
        "socket.send_fds(connection, [b'x'], [descriptor])",
        "open('/proc/locks')",
        "os.readlink(f'/proc/self/fd/{descriptor}')",
        "libc.syscall(451, descriptor)",
        "os.pwritev(descriptor, [data], 0)",
    ],
)
def test_what_it_looks_for_is_found(source: str) -> None:
    assert list(foreign(source))


@pytest.mark.parametrize(
    "source", ['"""Reads /proc/locks."""', "# AF_UNIX", "path = '/processes/x'", "os.pwrite(0, b'')"]
)
def test_prose_and_what_every_system_has_is_left_alone(source: str) -> None:
    assert not list(foreign(source))


def test_it_costs_little_in_a_child_that_needs_one_function_of_it() -> None:
    script = "import sys; import modeld.platform; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert "modeld.platform.posix.children" in loaded
    assert {"anyio", "asyncio", "dataclasses", "hashlib", "inspect", "msgspec", "secrets"}.isdisjoint(loaded)
