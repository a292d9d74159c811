"""What the threads of a download have taken is given back when it fails, also when one of them cannot be started."""

from __future__ import annotations

import gc
import mmap
import threading
import weakref

import pytest

from daemon.conftest import MakeRig
from modeld.download.engine import connection
from modeld.download.engine.connection import Connection
from modeld.download.partials.hasher import Hasher
from modeld.download.tuning import MIB
from modelwire.errors import WireError
from rigs.chaos_server import Chaos, Fault, Kind
from rigs.download_rig import content_of
from rigs.waiting import wait_until

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


@pytest.mark.parametrize("fault", ["drop", "stall", "status"])
def test_the_error_of_a_download_holds_none_of_its_buffers(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch, fault: Kind
) -> None:
    """Neither by its traceback nor by a cycle, which a busy daemon looks for seldom."""
    buffers: list[weakref.ref[mmap.mmap]] = []

    def recorded(size: int = MIB) -> memoryview:
        made = mmap.mmap(-1, size)
        buffers.append(weakref.ref(made))
        return memoryview(made)

    monkeypatch.setattr(connection, "new_buffer", recorded)
    rig = make_rig()
    gc.disable()
    try:
        with Chaos(CONTENT, Fault(fault, 0.5, times=99, status=503)) as chaos:
            with pytest.raises(WireError) as caught:
                rig.fetch(rig.info(chaos.url, CONTENT))
        assert caught.value.__traceback__ is not None
        assert buffers
        wait_until(lambda: not any(ref() is not None for ref in buffers), what="the end of the buffers")
    finally:
        gc.enable()
