"""One try to connect: which daemon is the right one, and what a client hears that may not ask it."""

from __future__ import annotations

import _socket
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import modelclient
from modelclient import dialing
from modelclient.locate import Endpoint
from modelwire import exits, requests
from modelwire.encoding import encode
from modelwire.errors import NoDaemon
from rigs.command import Ctl
from rigs.scripted_peer import STATUS, ScriptedPeer, good, hello_of

Peer = Callable[..., ScriptedPeer]
Open = Callable[..., Any]


@pytest.mark.parametrize(
    ("number", "code"), [(errno.EACCES, exits.PERMISSION), (errno.EPERM, exits.PERMISSION), (errno.EIO, 9)]
)
def test_a_refused_permission_ends_as_one(monkeypatch: pytest.MonkeyPatch, number: int, code: int) -> None:
    """Root, as which a suite may run, is refused by no socket."""

    class Refusing(_socket.socket):
        def connect(self, _address: Any) -> None:
            raise OSError(number, "refused")

    monkeypatch.setattr(_socket, "socket", Refusing)
    with pytest.raises(NoDaemon, match=r"/nowhere/modeld\.sock does not answer: refused") as caught:
        dialing.dial(Endpoint("/nowhere/modeld.sock"))
    assert caught.value.exit_code == code
    assert caught.value.hint


# -- the right daemon


Serving = Callable[[Path], ScriptedPeer]


@pytest.fixture
def serving(peer: Peer) -> Callable[[Path], ScriptedPeer]:
    """A daemon that says that it serves the given store."""

    def serve(store: Path) -> ScriptedPeer:
        store.mkdir(exist_ok=True)
        return peer(good, hello=encode(hello_of(store=str(store))))

    return serve


def hold(store: Path, endpoint: str) -> None:
    """What a daemon writes into the lock of its store."""
    (store / ".modeld").mkdir(parents=True, exist_ok=True)
    (store / ".modeld" / "lock").write_text(json.dumps({"pid": 1, "program": "modeld", "endpoint": endpoint}))


def test_a_client_that_means_another_store_is_refused(
    serving: Serving, open_client: Open, room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = serving(room / "theirs")
    monkeypatch.setenv("MODELS_HOME", str(room / "mine"))
    with pytest.raises(modelclient.WrongStore) as caught, open_client(made.path):
        pass
    assert caught.value.exit_code == exits.USAGE
    assert str(room / "mine") in caught.value.message
    assert str(room / "theirs") in caught.value.message
    assert made.requests == []
    with open_client(made.path, any_store=True) as client:
        assert client.status() == STATUS


@pytest.mark.parametrize("spelled", ["{}", " {} ", "{}/", "{}/../models", "{}-link"])
def test_one_store_is_the_same_by_any_name(
    serving: Serving, open_client: Open, room: Path, monkeypatch: pytest.MonkeyPatch, spelled: str
) -> None:
    made = serving(room / "models")
    (room / "models-link").symlink_to(room / "models")
    monkeypatch.setenv("MODELS_HOME", spelled.format(room / "models"))
    with open_client(made.path) as client:
        assert client.status() == STATUS


def test_the_home_directory_of_the_variable_is_the_clients(
    serving: Serving, open_client: Open, room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(room))
    monkeypatch.setenv("MODELS_HOME", "~/models")
    with open_client(serving(room / "models").path) as client:
        assert client.status() == STATUS


def test_the_configuration_overrides_the_variable_for_the_client_too(
    serving: Serving, open_client: Open, room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (room / "c.toml").write_text(f"models_home = '{room}/configured'\n")
    monkeypatch.setenv("MODELD_CONFIG", str(room / "c.toml"))
    monkeypatch.setenv("MODELS_HOME", str(room / "mine"))
    with open_client(serving(room / "configured").path) as client:
        assert client.status() == STATUS


@pytest.mark.parametrize("verb", ["status", "stop", "version"])
def test_some_verbs_warn_and_go_on(serving: Serving, ctl: Ctl, verb: str) -> None:
    made = serving(ctl.room / "theirs")
    process = ctl.open(verb, "--json", environ={"MODELD_SOCKET": made.path, "MODELS_HOME": str(ctl.room / "mine")})
    if verb == "stop":
        made.saw(requests.DaemonDrain)
        made.hang_up()
        os.unlink(made.path)
    out, err = process.communicate(timeout=60)
    if verb == "stop":
        Path(made.path).touch()  # the peer takes it away at its end
    else:
        assert process.returncode == 0
        assert json.loads(out)
    warning, hint = err.splitlines()[:2]
    assert str(ctl.room / "mine") in warning
    assert str(ctl.room / "theirs") in warning
    assert hint.startswith("hint: ")


@pytest.mark.parametrize("line", ["path tiny", "resolve tiny", "list", "start", "jobs", "add f", "log"])
def test_every_other_verb_ends_with_both_paths(serving: Serving, ctl: Ctl, line: str) -> None:
    made = serving(ctl.room / "theirs")
    mine = ctl.room / "mine"
    done = ctl(*line.split(), environ={"MODELD_SOCKET": made.path, "MODELS_HOME": str(mine)})
    assert (done.returncode, done.stdout) == (2, "")
    what, what_next = done.stderr.splitlines()
    assert what == (
        f"modelctl: the daemon at {made.path} serves the store {ctl.room}/theirs, but MODELS_HOME names {mine}"
    )
    assert "`modelctl stop`" in what_next
    assert [type(request).__name__ for request in made.requests] in ([], ["ModelResolve"])


def test_the_hint_names_the_daemon_that_serves_the_store(
    serving: Serving, ctl: Ctl, room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = serving(room / "theirs")
    mine = room / "mine"
    with ScriptedPeer(str(room / "m.sock"), good, hello=encode(hello_of(store=str(mine)))) as right:
        hold(mine, right.path)
        done = ctl("list", environ={"MODELD_SOCKET": made.path, "MODELS_HOME": str(mine)})
    assert done.returncode == 2
    assert f"`--socket {right.path}`" in done.stderr


# -- a daemon that listens where this client would not look


@pytest.fixture
def elsewhere(room: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store of a client whose runtime directory is not the daemon's."""
    (room / "other").mkdir(mode=0o700)
    for name, value in {"HOME": "home", "XDG_RUNTIME_DIR": "other", "XDG_DATA_HOME": ""}.items():
        monkeypatch.setenv(name, str(room / value))
    return room / "models"


def test_the_lock_of_the_store_leads_to_its_daemon(serving: Serving, elsewhere: Path, open_client: Open) -> None:
    hold(elsewhere, (made := serving(elsewhere)).path)
    with open_client(None, start=False) as client:
        assert client.status() == STATUS
        assert client.endpoint == made.path


def test_a_left_over_lock_leads_to_no_other_store(serving: Serving, elsewhere: Path, room: Path) -> None:
    hold(elsewhere, serving(room / "theirs").path)
    with pytest.raises(NoDaemon, match="no daemon runs"), modelclient.Client(start=False):
        pass


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", "nonsense", '{"endpoint": 5}', '{"endpoint": "m.sock"}', "[" * 4000]
)
def test_a_lock_that_names_nothing_is_no_daemon(elsewhere: Path, content: str) -> None:
    hold(elsewhere, "")
    (elsewhere / ".modeld" / "lock").write_text(content)
    with pytest.raises(NoDaemon, match="no daemon runs"), modelclient.Client(start=False):
        pass


def test_the_place_that_a_lock_names_must_be_this_users(serving: Serving, elsewhere: Path, room: Path) -> None:
    made = serving(elsewhere)
    hold(elsewhere, made.path)
    room.chmod(0o777)
    with pytest.raises(NoDaemon, match="no daemon runs"), modelclient.Client(start=False):
        pass
    room.chmod(0o700)


def test_an_endpoint_that_was_named_is_the_one_that_is_meant(serving: Serving, elsewhere: Path, room: Path) -> None:
    hold(elsewhere, serving(elsewhere).path)
    with pytest.raises(NoDaemon, match="no daemon runs"), modelclient.Client(str(room / "named.sock"), start=False):
        pass
