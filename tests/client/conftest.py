from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from rigs.both_clients import Calls, open_async, open_blocking
from rigs.command import Ctl
from rigs.scripted_peer import Script, ScriptedPeer

_FOREIGN = ("MODELD_", "MODELS_HOME", "XDG_", "NO_COLOR")


@pytest.fixture(autouse=True)
def private_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the person who runs the tests decides where a client looks."""
    for name in [name for name in os.environ if name.startswith(_FOREIGN)]:
        monkeypatch.delenv(name)


@pytest.fixture
def peer(room: Path) -> Iterator[Callable[..., ScriptedPeer]]:
    """Makes scripted peers, one for each test: `peer(script)`."""
    with ExitStack() as stack:

        def make(script: Script, *, hello: bytes | None = None) -> ScriptedPeer:
            return stack.enter_context(ScriptedPeer(str(room / "peer.sock"), script, hello=hello))

        yield make


@pytest.fixture(params=["blocking", "async"])
def open_client(request: pytest.FixtureRequest) -> Callable[..., Calls]:
    """Both clients behind one face: `with open_client(path) as client`."""
    return open_blocking if request.param == "blocking" else open_async


@pytest.fixture
def warm() -> bool:
    """Whether `modelctl` is a fork that has its imports. It is not where the start itself is what is tested."""
    return True


@pytest.fixture
def ctl(room: Path, warm: bool) -> Iterator[Ctl]:
    """`modelctl` in a home of its own. Daemons that it has started are ended with the test."""
    made = Ctl(room, warm=warm)
    yield made
    made.close()
