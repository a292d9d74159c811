"""A machine that gives no more threads: the pull fails, and what it had taken is given back."""

from __future__ import annotations

import threading

import pytest

from daemon.conftest import MakeRig
from modeld.download.engine.connection import Connection
from modeld.download.partials.hasher import Hasher
from rigs.chaos_server import Chaos
from rigs.download_rig import content_of

CONTENT = content_of()


@pytest.mark.parametrize("kind", [Connection, Hasher])
def test_a_thread_that_cannot_be_started(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch, kind: type[threading.Thread]
) -> None:
    def no_more(_self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    rig = make_rig()
    with Chaos(CONTENT) as chaos:
        file = rig.info(chaos.url, CONTENT)
        with monkeypatch.context() as patched:
            patched.setattr(kind, "start", no_more)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                rig.fetch(file)
        assert rig.transfer.hosts.open_connections() == {}
        assert rig.space.promised == 0
        rig.commit(rig.fetch(file))
