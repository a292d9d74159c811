"""The door: several files at once, one progress, and what happens to the others when one fails."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import anyio
import pytest

from modeld.store.disk.space import Space
from modeld.store.observer import Stopped
from modeld.transfer.engine.transfer import Transfer
from modeld.transfer.routes.router import Described, Route
from modeld.transfer.source import Description, FileInfo
from modelwire.errors import NoSpace, SourceNotFound, SourceUnavailable, WireError
from transfer.chaos import Chaos, Fault
from transfer.conftest import MakeRig
from transfer.rig import Plain, Rig, Watcher, content_of, digest_of

CONTENTS = [content_of(size, seed) for seed, size in enumerate([3_000_001, 1, 700_000, 2_000_000, 64])]


class Repository(Plain):
    """Several files under one reference."""

    def __init__(self, rig: Rig, servers: list[Chaos]) -> None:
        super().__init__(rig.client, "repository")
        self.files = tuple(
            replace(rig.info(server.url, server.content), path=f"part-{number}")
            for number, server in enumerate(servers)
        )

    def describe(self, reference: FileInfo) -> Description:
        return Description(source=self.name, files=self.files, registry="test")


@pytest.fixture
def servers() -> Iterator[list[Chaos]]:
    servers = [Chaos(content).__enter__() for content in CONTENTS]
    yield servers
    for server in servers:
        server.__exit__()


async def described_by(rig: Rig, servers: list[Chaos]) -> Described[FileInfo]:
    source = Repository(rig, servers)
    return await rig.transfer.describe(Route(source.files[0], [source]), on_event=rig.events.append)


async def test_several_files_are_one_job(make_rig: MakeRig, servers: list[Chaos]) -> None:
    rig, watcher = make_rig(), Watcher()
    described = await described_by(rig, servers)
    fetched = await rig.transfer.fetch(described, described.description.files, observer=watcher)
    assert [each.path for each in fetched] == [f"part-{number}" for number in range(5)]
    assert [each.staged.digest for each in fetched] == [digest_of(content) for content in CONTENTS]
    for each in fetched:
        each.commit()
    size = sum(map(len, CONTENTS))
    assert watcher.done == watcher.verified == watcher.network == size
    assert (watcher.files_done, watcher.files_total) == (5, 5)
    assert watcher.totals == [size]
    assert watcher.phases[0] == "reserving"
    assert rig.leftovers() == []


async def test_one_that_fails_stops_the_others_and_what_came_stays(make_rig: MakeRig, servers: list[Chaos]) -> None:
    rig = make_rig()
    servers[0].rate = 300_000
    servers[3].faults.append(Fault("status", times=99, status=404))
    described = await described_by(rig, servers)
    with pytest.raises(SourceNotFound):
        await rig.transfer.fetch(described, described.description.files)
    assert rig.space.promised == 0
    servers[0].rate = None
    servers[3].faults.clear()
    watcher = Watcher()
    for each in await rig.transfer.fetch(described, described.description.files, observer=watcher):
        each.commit()
    assert watcher.network < sum(map(len, CONTENTS))
    assert rig.leftovers() == []


async def test_stopped_by_its_observer(make_rig: MakeRig, servers: list[Chaos]) -> None:
    rig = make_rig()
    servers[0].rate = 300_000
    described = await described_by(rig, servers)
    with pytest.raises(Stopped):
        await rig.transfer.fetch(described, described.description.files, observer=Watcher(stop_after=1_000_000))
    assert rig.transfer.hosts.open_connections() == {}


async def test_a_cancelled_scope_ends_it_at_once(make_rig: MakeRig, servers: list[Chaos]) -> None:
    rig = make_rig()
    servers[0].rate = 30_000
    described = await described_by(rig, servers)
    with anyio.fail_after(20):
        with anyio.move_on_after(0.3) as scope:
            await rig.transfer.fetch(described, described.description.files)
    assert scope.cancelled_caught
    assert rig.space.promised == 0


async def test_too_little_room_is_said_before_the_first_byte(make_rig: MakeRig, servers: list[Chaos]) -> None:
    rig = make_rig()
    transfer = Transfer(rig.layout, Space(lambda: 1_000_000))
    source = Repository(rig, servers)
    described = await transfer.describe(Route(source.files[0], [source]))
    with pytest.raises(NoSpace) as caught:
        await transfer.fetch(described, described.description.files[:1])
    assert caught.value.details["needed_bytes"] == len(CONTENTS[0])
    assert servers[0].requests == []


async def test_a_full_disk_in_flight_keeps_what_is_there(
    make_rig: MakeRig, servers: list[Chaos], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = make_rig()
    described = await described_by(rig, servers)
    real, count = os.pwritev, 0

    def full(descriptor: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        nonlocal count
        count += 1
        if count > 8:
            raise OSError(28, "No space left on device")
        return real(descriptor, buffers, offset, flags)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", full)
        with pytest.raises(WireError) as caught:
            await rig.transfer.fetch(described, described.description.files[:1])
    assert caught.value.code == "no_space"
    (fetched,) = await rig.transfer.fetch(described, described.description.files[:1])
    fetched.commit()
    assert rig.leftovers() == []


async def test_the_error_of_the_last_source_is_told(make_rig: MakeRig) -> None:
    rig = make_rig()

    class Broken(Plain):
        def describe(self, reference: FileInfo) -> Description:
            raise SourceNotFound(f"{self.name} has nothing") if self.name == "mirror" else SourceUnavailable("no")

    file = rig.info("http://127.0.0.1:9", b"x")
    route = Route(file, [Broken(rig.client, "mirror"), Broken(rig.client, "origin")])
    with pytest.raises(SourceUnavailable) as caught:
        await rig.transfer.describe(route, on_event=rig.events.append)
    assert [each["source"] for each in caught.value.details["tried"]] == ["mirror", "origin"]
    assert rig.kinds().count("retry") == 2
    assert "failover" in rig.kinds()
