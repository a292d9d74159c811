"""The client library and the command in a process of another user, and files of that user."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from rigs.real_daemon import RealDaemon
from rigs.rough_peers import FOREIGN_UID

# It loads all that it may need and then changes its user: the interpreter may lie where the other user may not go.
_PRELUDE = """
import os, pkgutil, sys
import _socket, array, concurrent.futures.thread, encodings.idna, signal, struct, unicodedata
import anyio, anyio.from_thread, anyio._backends._asyncio, modelclient, modelwire
for package in (modelclient, modelwire):
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if "__main__" not in found.name:
            __import__(found.name)
uid = int(sys.argv[1])
os.setgroups([])
os.setresgid(uid, uid, uid)
os.setresuid(uid, uid, uid)
del sys.argv[1]
"""

_COMMAND = "from modelclient.ctl.fast_path import main; sys.exit(main())"


def python_as(
    daemon: RealDaemon, code: str, *arguments: str, uid: int = FOREIGN_UID, prefix: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Runs Python code as another user, with `modelclient` and `anyio` imported."""
    return subprocess.run(
        [*prefix, sys.executable, "-c", _PRELUDE + code, str(uid), *arguments],
        env=daemon.environ,
        cwd=daemon.room,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def ctl_as(
    daemon: RealDaemon, *arguments: str, uid: int = FOREIGN_UID, prefix: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """`modelctl`, as another user runs it."""
    return python_as(daemon, _COMMAND, *arguments, uid=uid, prefix=prefix)


def home_of(daemon: RealDaemon, uid: int = FOREIGN_UID) -> str:
    """A directory that is closed to all other users."""
    path = os.path.join(daemon.room, f"home-{uid}")
    os.mkdir(path, 0o700)
    os.chown(path, uid, uid)
    return path


def file_of(directory: str, name: str, content: bytes, uid: int = FOREIGN_UID) -> str:
    """A file that only its owner may read."""
    path = os.path.join(directory, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)
    os.chmod(path, 0o600)
    os.chown(path, uid, uid)
    os.chown(os.path.dirname(path), uid, uid)
    return path
