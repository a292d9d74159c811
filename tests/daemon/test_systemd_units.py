"""The units: what systemd makes of them, what they promise to the daemon, and that a socket really arrives."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from modeld.config import DaemonSettings, Settings, state_directory
from modelwire.units import parse_duration
from rigs.socket_activation import DEADLINE_SECONDS, activated, connected, tool

UNITS = Path(__file__).parents[2] / "systemd"
FLAVOURS = {"system": UNITS, "user": UNITS / "user"}
BINARY = "/usr/bin/modeld"


@pytest.fixture(params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def installed(flavour: str, tmp_path: Path) -> Path:
    """The units of one flavour, with a binary that exists: `verify` looks for it."""
    return install(flavour, tmp_path)


def install(flavour: str, directory: Path) -> Path:
    binary = directory / "modeld"
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    for name in ("modeld.service", "modeld.socket"):
        text = (FLAVOURS[flavour] / name).read_text()
        (directory / name).write_text(text.replace(f"ExecStart={BINARY}\n", f"ExecStart={binary}\n"))
    return directory


def analyze(*arguments: str, runtime: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [tool("systemd-analyze"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_SECONDS,
        env={**os.environ, "XDG_RUNTIME_DIR": str(runtime), "SYSTEMD_COLORS": "0"},
    )


def verify(flavour: str, directory: Path) -> subprocess.CompletedProcess[str]:
    units = [str(directory / name) for name in ("modeld.service", "modeld.socket")]
    return analyze(f"--{flavour}", "verify", *units, runtime=directory)


def settings_of(flavour: str, name: str) -> dict[str, list[str]]:
    """The assignments of a unit, all sections together: no key of ours is in two."""
    found: dict[str, list[str]] = {}
    for line in (FLAVOURS[flavour] / name).read_text().splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def test_systemd_has_nothing_to_say(flavour: str, installed: Path) -> None:
    said = verify(flavour, installed)
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")


@pytest.mark.parametrize("unit", ["modeld.service", "modeld.socket"])
def test_a_wrong_key_would_be_noticed(flavour: str, installed: Path, unit: str) -> None:
    """verify ends with 0 all the same: that is why standard error counts."""
    with (installed / unit).open("a") as file:
        section = "Service" if unit.endswith("service") else "Socket"
        file.write(f"\n[{section}]\nTimoutSec=5\n")
    assert "TimoutSec" in verify(flavour, installed).stderr


def test_the_service_exposes_little(tmp_path: Path) -> None:
    install("system", tmp_path)
    said = analyze("security", "--offline=true", "--threshold=15", str(tmp_path / "modeld.service"), runtime=tmp_path)
    assert said.returncode == 0, said.stdout[-2000:]


def test_peers_keep_their_uids(flavour: str) -> None:
    """Behind a user namespace every peer is 65534. In a user's manager most sandboxing would switch one on."""
    service = settings_of(flavour, "modeld.service")
    assert service["PrivateUsers"] == ["no"]
    assert "DynamicUser" not in service
    if flavour == "user":
        assert not [
            key for key in service if key.startswith(("Protect", "ReadOnly", "PrivateT", "PrivateD", "PrivateM"))
        ]


def test_the_stop_outlasts_the_drain(flavour: str) -> None:
    service = settings_of(flavour, "modeld.service")
    assert parse_duration(service["TimeoutStopSec"][0]) > DaemonSettings().drain_deadline
    assert service["KillMode"] == ["mixed"]
    assert service["Restart"] == ["on-failure"]
    assert (service["Type"], service["NotifyAccess"]) == (["notify"], ["main"])


def test_socket_and_service_mean_the_same_path(flavour: str) -> None:
    listened = settings_of(flavour, "modeld.socket")["ListenStream"]
    assert f"MODELD_SOCKET={listened[0]}" in settings_of(flavour, "modeld.service")["Environment"]
    assert listened == ["%t/modeld/modeld.sock"]


def test_the_socket_outlives_the_service(flavour: str) -> None:
    """RuntimeDirectory= would remove the directory under a socket that is still listened on, at each stop."""
    assert "RuntimeDirectory" not in settings_of(flavour, "modeld.service")
    unit = settings_of(flavour, "modeld.socket")
    assert unit["Accept"] == ["no"]
    modes = (unit["SocketMode"], unit["DirectoryMode"])
    assert modes == ((["0666"], ["0755"]) if flavour == "system" else (["0600"], ["0700"]))


def test_the_state_is_not_in_the_store() -> None:
    directories = settings_of("system", "modeld.service")["StateDirectory"][0].split()
    environ = {"STATE_DIRECTORY": ":".join(f"/var/lib/{each}" for each in directories)}
    assert state_directory(Settings(), environ) == "/var/lib/modeld"
    assert "MODELS_HOME=%S/models" in settings_of("system", "modeld.service")["Environment"]


ANSWERS_ONCE = """
import json, os, sys
from modeld.observe.notify import inherited_socket
from modeld.platform.posix.endpoint import Endpoint
endpoint = Endpoint.inherited(inherited_socket())
endpoint.socket.setblocking(True)
connection, _ = endpoint.socket.accept()
facts = {"path": endpoint.path, "ours": endpoint.still_ours(), "pid": os.getpid(),
         "left": [name for name in os.environ if name.startswith("LISTEN_")]}
connection.sendall(json.dumps(facts).encode() + b"\\n")
connection.close()
endpoint.close()
"""


@pytest.fixture
def short() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="md-") as directory:
        yield directory


def test_a_passed_socket_is_served_and_outlives_the_daemon(short: str) -> None:
    path = f"{short}/modeld.sock"
    environ = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with activated([sys.executable, "-c", ANSWERS_ONCE], path, environ=environ) as process:
        with connected(path) as client, client.makefile() as answers:
            told = json.loads(answers.readline())
        process.wait(timeout=DEADLINE_SECONDS)
        assert told == {"path": path, "ours": True, "pid": process.pid, "left": []}
        assert process.returncode == 0
    assert stat.S_ISSOCK(os.lstat(path).st_mode)
    assert os.listdir(short) == ["modeld.sock"]
