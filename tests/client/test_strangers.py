"""Who answers at an endpoint: the kernel is asked after connecting, for a directory that was looked at may be another
one by then. Each stranger is a real process of another user."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelclient import locate
from modelclient.dialing import dial
from modelclient.locate import Endpoint
from modelclient.platform import system
from modelwire.errors import NoDaemon
from rigs.command import COMMAND
from rigs.rough_peers import FOREIGN_UID, needs_root

pytestmark = needs_root

_LISTEN = """
import contextlib, os, socket, sys
path, uid = sys.argv[1], int(sys.argv[2])
os.setgroups([]); os.setgid(uid); os.setuid(uid)
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
os.chmod(path, 0o777)
listener.listen()
print("listening", flush=True)
listener.settimeout(30)
while True:
    peer, _ = listener.accept()
    with contextlib.suppress(OSError):  # it may have left already
        peer.sendall(b'{"type":"hello","protocol":{"min":1,"max":1},"server":"modeld/9","instance":"i","store":"/evil",'
                 b'"max_request":1048576,"capabilities":[],"peer":{"uid":0,"role":"admin"}}\\n'
                 b'{"type":"result","id":"1","value":{"name":"m","path":"/evil/m","blob":"sha256:00","state":"ready"}}\\n')
"""


@pytest.fixture
def endpoint(room: Path) -> Iterator[Endpoint]:
    """A stranger listens in a directory that was theirs and is this user's now, as a swap between the look and the
    connection leaves it."""
    directory = room / "modeld"
    directory.mkdir(mode=0o700)
    for above in (room, *room.parents):
        if above == Path("/tmp"):
            break
        above.chmod(above.stat().st_mode | 0o011)
    os.chown(directory, FOREIGN_UID, FOREIGN_UID)
    path = str(directory / "modeld.sock")
    listening = subprocess.Popen(
        [sys.executable, "-c", _LISTEN, path, str(FOREIGN_UID)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert listening.stdout is not None
        assert listening.stdout.readline() == "listening\n"
        os.chown(directory, 0, 0)
        yield Endpoint(path)
    finally:
        listening.kill()
        listening.wait(10)
        assert listening.stdout is not None
        listening.stdout.close()


def test_a_stranger_is_not_taken_for_the_daemon(endpoint: Endpoint) -> None:
    assert locate.fault(endpoint) is None
    with pytest.raises(NoDaemon, match=f"runs as uid {FOREIGN_UID}") as caught:
        dial(endpoint)
    assert "--socket" in str(caught.value.hint)
    with pytest.raises(system.Stranger):
        system.connect(endpoint.path, wait=False, named=False)


def test_whoever_answers_at_an_endpoint_that_was_named_is_meant(endpoint: Endpoint) -> None:
    channel = dial(Endpoint(endpoint.path, named=True))
    assert channel is not None
    assert channel.recv(10) == b'{"type":"h'
    channel.close()


def test_the_services_own_user_is_no_stranger_at_its_endpoint(endpoint: Endpoint) -> None:
    directory = os.path.dirname(endpoint.path)
    with pytest.raises(NoDaemon):
        dial(Endpoint(endpoint.path, system=True))
    os.chown(directory, FOREIGN_UID, FOREIGN_UID)
    channel = dial(Endpoint(endpoint.path, system=True))
    assert channel is not None
    channel.close()


@pytest.mark.parametrize("words", [["path", "m"], ["list"], ["status"]])
def test_the_command_prints_nothing_that_a_stranger_says(endpoint: Endpoint, words: list[str]) -> None:
    runtime = os.path.dirname(os.path.dirname(endpoint.path))
    environ = {**os.environ, "XDG_RUNTIME_DIR": runtime, "HOME": runtime, "MODELD_CONFIG": os.devnull}
    environ.pop("MODELD_SOCKET", None)
    done = subprocess.run([*COMMAND, *words], env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "/evil" not in done.stdout + done.stderr
    assert f"runs as uid {FOREIGN_UID}" in done.stderr
