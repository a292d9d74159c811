"""Which endpoint is meant, and which places are refused."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from modelclient import locate
from modelclient.locate import Endpoint


@pytest.fixture
def home(room: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(room))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(room))
    return room


def nowhere(home: Path) -> str:
    return str(home / "no-system-service")


def configure(home: Path, text: str) -> None:
    (home / ".config" / "modeld").mkdir(parents=True)
    (home / ".config" / "modeld" / "config.toml").write_text(text)


def bound(path: Path) -> socket.socket:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(path))
    return made


def test_an_argument_comes_first(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELD_SOCKET", "/elsewhere")
    monkeypatch.chdir(home)
    found = locate.find("x.sock")
    assert (found.path, found.named) == (str(home / "x.sock"), True)


def test_then_the_environment_then_the_file_then_the_runtime_directory(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    default = locate.find(system_socket=nowhere(home))
    assert (default.path, default.named) == (str(home / "modeld" / "modeld.sock"), False)
    configure(home, 'socket = "~/own.sock"\n')
    configured = locate.find()
    assert (configured.path, configured.named) == (str(home / "own.sock"), True)
    monkeypatch.setenv("MODELD_SOCKET", "/elsewhere")
    named = locate.find()
    assert (named.path, named.named) == ("/elsewhere", True)


@pytest.mark.parametrize("text", ["", "[log]\nlevel = 'info'\n", "# the socket is elsewhere\n", "socket = ' '\n"])
def test_a_file_without_a_socket_changes_nothing(home: Path, text: str) -> None:
    configure(home, text)
    assert not locate.find(system_socket=nowhere(home)).named


@pytest.mark.parametrize("text", ["socket = 5\n", "socket = 'x\n", "socket = \xff\n"])
def test_a_file_that_cannot_be_meant_is_named(home: Path, text: str) -> None:
    configure(home, "")
    path = home / ".config" / "modeld" / "config.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=str(path)):
        locate.find()


def test_the_system_service_serves_who_has_no_daemon_of_their_own(home: Path) -> None:
    system = home / "system" / "modeld.sock"
    with bound(system):
        found = locate.find(system_socket=str(system))
        assert (found.path, found.system) == (str(system), True)
        with bound(home / "modeld" / "modeld.sock"):
            assert not locate.find(system_socket=str(system)).system


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
@pytest.mark.parametrize("link", [False, True], ids=["directory", "link"])
def test_a_strangers_directory_in_the_place_of_ours_does_not_deny_the_system_service(home: Path, link: bool) -> None:
    system = home / "system" / "modeld.sock"
    with bound(system):
        place = home / "squatter" if link else home / "modeld"
        with bound(place / "modeld.sock"):
            os.chown(place, 54321, 54321)
            if link:
                (home / "modeld").symlink_to(place)
                os.chown(home / "modeld", 54321, 54321, follow_symlinks=False)
            found = locate.find(system_socket=str(system))
            assert (found.path, found.system) == (str(system), True)
            alone = locate.find(system_socket=nowhere(home))
            assert not alone.system
            assert locate.fault(alone)


def test_a_default_directory_must_be_ours(home: Path) -> None:
    path = home / "modeld" / "modeld.sock"
    endpoint = Endpoint(str(path))
    assert locate.fault(endpoint) is None  # absent: its maker sets its rights
    path.parent.mkdir(mode=0o700)
    assert locate.fault(endpoint) is None
    path.parent.chmod(0o777)
    assert "others can write to it (mode 0777)" in (locate.fault(endpoint) or "")
    assert locate.fault(Endpoint(str(path), named=True)) is None  # the user chose it
    path.parent.rmdir()
    (home / "real").mkdir()
    path.parent.symlink_to(home / "real")
    assert "symbolic link" in (locate.fault(endpoint) or "")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_a_strangers_directory_is_refused(home: Path) -> None:
    directory = home / "modeld"
    directory.mkdir(mode=0o700)
    os.chown(directory, 4711, 4711)
    assert "belongs to uid 4711" in (locate.fault(Endpoint(str(directory / "modeld.sock"))) or "")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_the_system_services_directory_may_be_its_users_below_roots(home: Path) -> None:
    directory = home / "modeld"
    directory.mkdir(mode=0o755)
    os.chown(directory, 4711, 4711)
    endpoint = Endpoint(str(directory / "modeld.sock"), system=True)
    assert locate.fault(endpoint) is None
    os.chown(home, 4712, 4712)
    assert "belongs to uid 4711" in (locate.fault(endpoint) or "")


def test_what_is_no_socket_is_refused_even_when_named(home: Path) -> None:
    file = home / "x.sock"
    file.write_text("")
    assert locate.fault(Endpoint(str(file), named=True)) == f"the endpoint {file} is not a socket"


def test_a_path_that_no_socket_can_have_is_refused() -> None:
    assert "longer than the 107 bytes" in (locate.fault(Endpoint("/" + "x" * 107, named=True)) or "")
