"""The door: one file at a time, each from its own thread, and what all of them share."""

from __future__ import annotations

import gc
import mmap
import os
import threading
import weakref

import pytest

from daemon.conftest import MakeRig
from modeld.download.engine import connection
from modeld.download.engine.downloads import Transfer
from modeld.download.partials import hasher
from modeld.download.partials.buffers import Buffers
from modeld.download.routes.router import Route
from modeld.download.source import Description, FileInfo
from modeld.download.tuning import CHUNK, RETAINED
from modeld.store.disk.space import Space
from modelwire.errors import NoSpace, SourceNotFound, SourceUnavailable, WireError
from rigs.chaos_server import Chaos, Fault
from rigs.download_rig import Plain, content_of
from rigs.waiting import wait_until
from rigs.watcher import Watcher

CONTENT = content_of(3_000_001, 0)


def test_too_little_room_is_said_before_the_first_byte(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.transfer = Transfer(rig.layout, Space(lambda: 1_000_000))
    with Chaos(CONTENT) as chaos:
        with pytest.raises(NoSpace) as caught:
            rig.fetch(rig.info(chaos.url, CONTENT))
        assert caught.value.details["needed_bytes"] == len(CONTENT)
        assert chaos.requests == []


def test_a_full_disk_in_flight_keeps_what_is_there(make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = make_rig()
    real, count = os.pwritev, 0

    def full(descriptor: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        nonlocal count
        count += 1
        if count > 8:
            raise OSError(28, "No space left on device")
        return real(descriptor, buffers, offset, flags)

    with Chaos(CONTENT) as chaos:
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwritev", full)
            with pytest.raises(WireError) as caught:
                rig.fetch(rig.info(chaos.url, CONTENT))
        assert caught.value.code == "no_space"
        rig.commit(rig.fetch(rig.info(chaos.url, CONTENT)))
    assert rig.leftovers() == []


def test_the_error_of_the_last_source_is_told(make_rig: MakeRig) -> None:
    rig = make_rig()

    class Broken(Plain):
        def describe(self, reference: FileInfo) -> Description:
            raise SourceNotFound(f"{self.name} has nothing") if self.name == "mirror" else SourceUnavailable("no")

    file = rig.info("http://127.0.0.1:9", b"x")
    route = Route(file, [Broken(rig.client, "mirror"), Broken(rig.client, "origin")])
    with pytest.raises(SourceUnavailable) as caught:
        rig.transfer.router.describe(route, on_event=rig.events.append)
    assert [each["source"] for each in caught.value.details["tried"]] == ["mirror", "origin"]
    assert rig.kinds().count("transfer.retry") == 2
    assert "source.failed" in rig.kinds()


@pytest.mark.parametrize("fails", [False, True])
def test_after_the_last_file_the_buffers_are_given_back(make_rig: MakeRig, fails: bool) -> None:
    rig = make_rig()
    buffers, made = rig.transfer._workspace.buffers, threading.Event()
    real = buffers._make

    def make() -> memoryview:
        made.set()
        return real()

    buffers._make = make
    with Chaos(CONTENT, *([Fault("wrong_bytes", 0.5)] if fails else [])) as chaos:
        if fails:
            with pytest.raises(WireError):
                rig.fetch(rig.info(chaos.url, CONTENT))
        else:
            rig.commit(rig.fetch(rig.info(chaos.url, CONTENT)))
    assert made.is_set(), "bytes waited in memory for the hash"
    assert buffers._free == []


@pytest.mark.parametrize("retained", [0, RETAINED])
def test_no_buffer_waits_for_a_collector(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, retained: int
) -> None:
    """What is read into, and what is read back for the hash, in a daemon that may not collect for hours."""
    rig, own = make_rig(), list[weakref.ref[mmap.mmap]]()

    def buffer(size: int = CHUNK) -> memoryview:
        memory = mmap.mmap(-1, size)
        own.append(weakref.ref(memory))
        return memoryview(memory)

    monkeypatch.setattr(connection, "new_buffer", buffer)
    monkeypatch.setattr(hasher, "new_buffer", buffer)
    monkeypatch.setattr(connection, "RETAINED", retained)
    gc.disable()
    request.addfinalizer(gc.enable)
    with Chaos(CONTENT) as chaos:
        rig.commit(rig.fetch(rig.info(chaos.url, CONTENT)))
    assert own
    wait_until(lambda: not any(memory() for memory in own), what="the end of the buffers")


def test_while_another_file_is_fetched_the_buffers_stay() -> None:
    buffers = Buffers()
    with buffers.in_use():
        with buffers.in_use():
            first = buffers.take()
            assert first is not None
            buffers.give_back(first)
        assert buffers.take() is first, "kept for the other file"
        late = buffers.take()
        assert late is not None
    buffers.give_back(late)
    assert buffers._free == [], "what comes late stays away too"
    with buffers.in_use():
        assert sum(buffers.take() is not None for _ in range(RETAINED // CHUNK)) == RETAINED // CHUNK - 1


def test_progress_is_that_of_the_file(make_rig: MakeRig) -> None:
    rig, watcher = make_rig(), Watcher()
    with Chaos(CONTENT) as chaos:
        rig.commit(rig.fetch(rig.info(chaos.url, CONTENT), watcher=watcher))
    assert watcher.done == watcher.verified == watcher.network == len(CONTENT)
    assert watcher.totals == [len(CONTENT)]
    assert watcher.phases[0] == "reserving"
