"""Leases: nobody removes a model while a program says that it uses it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from modeld.store.publish.leases import Applicant, Lease
from modelwire import limits
from modelwire.errors import InUse, NotFound, QueueFull
from rigs.maintain_rig import Bench, later
from rigs.waiting import eventually

UID = 1000


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def applicant(connection: object = "one", uid: int = UID) -> Applicant:
    return Applicant(uid=uid, user=uid, pid=7, purpose="engine", connection=connection)


async def take(
    bench: Bench, name: str, connection: object = "one", *, ttl: float | None = None, uid: int = UID
) -> Lease:
    resolved = await bench.store.resolver.resolve(name)
    lease = await bench.store.leases.take(resolved, applicant(connection, uid), ttl)
    assert lease is not None
    return lease


async def sweep(bench: Bench) -> list[str]:
    return [victim.kind for victim in (await bench.store.sweeper.sweep(grace=0)).victims]


async def test_a_leased_model_is_neither_removed_nor_moved_and_says_who_holds_it(bench: Bench) -> None:
    await bench.add("a")
    lease = await take(bench, "a")
    for change in (bench.store.renaming.remove("a"), bench.store.renaming.move("a", "b")):
        with pytest.raises(InUse, match=r"held by uid 1000, pid 7 \(engine\)") as refused:
            await change
        (holder,) = refused.value.details["holders"]
        assert (holder["lease"], holder["uid"], holder["pid"]) == (lease.id, UID, 7)
    shown = await bench.store.models.show("a")
    assert (shown.state, [each.lease for each in shown.holders]) == ("loaded", [lease.id])
    listed = (await bench.store.models.page("state=loaded", None, after=None, limit=10)).models
    assert [model.name for model in listed] == ["a"]
    assert bench.store.leases.resolved(await bench.store.look_up("a")).state == "loaded"
    await bench.store.leases.release(lease)
    assert (await bench.store.models.show("a")).state == "ready"
    await bench.store.renaming.remove("a")


async def test_bytes_of_a_name_that_was_removed_by_force_stay_until_the_release(bench: Bench) -> None:
    added = await bench.add("a")
    lease = await take(bench, "a")
    removed = await bench.store.renaming.remove("a", force=True)
    assert (removed.frees_bytes, removed.frees_at) == (0, None), "nobody knows when"
    assert "blob" not in await sweep(bench)
    assert os.path.exists(added.path)
    await bench.store.leases.release(lease)
    assert "blob" in await sweep(bench)
    assert not os.path.exists(added.path)


async def test_the_tree_of_several_files_stays_where_it_was_given_out(bench: Bench, tmp_path: Path) -> None:
    source = tmp_path / "several"
    source.mkdir()
    for name in ("config.json", "model.gguf"):
        (source / name).write_bytes(b"GGUF" + name.encode())
    added = await bench.store.add(str(source), name="several")
    lease = await take(bench, "several")
    await bench.store.renaming.remove("several", force=True)
    assert await sweep(bench) == []
    assert sorted(os.listdir(added.path)) == ["config.json", "model.gguf"]
    await bench.store.leases.release(lease)
    later(bench, 1)
    assert set(await sweep(bench)) == {"blob", "tree"}
    assert not os.path.exists(added.path)


async def test_bytes_that_are_replaced_stay_and_the_name_is_free(bench: Bench) -> None:
    old = await bench.add("a")
    lease = await take(bench, "a")
    await bench.add("a", b"GGUF newer", replace=True)
    assert (await bench.store.models.show("a")).state == "ready", "what the name stands for now is not in use"
    assert "blob" not in await sweep(bench)
    assert os.path.exists(old.path)
    await bench.store.leases.release(lease)


async def test_another_name_of_the_same_bytes_is_not_in_use(bench: Bench) -> None:
    await bench.add("a")
    await bench.store.renaming.copy("a", "b")
    await take(bench, "a")
    assert (await bench.store.models.show("b")).state == "ready"
    await bench.store.renaming.remove("b")


async def test_leases_end_with_their_connection_and_no_other(bench: Bench) -> None:
    await bench.add("a")
    first, second = await take(bench, "a", "one"), await take(bench, "a", "two")
    detached = await take(bench, "a", "one", ttl=60.0)
    bench.store.leases.left("one")
    with pytest.raises(NotFound):
        bench.store.leases.find(first.id)
    assert {bench.store.leases.find(each.id) for each in (second, detached)} == {second, detached}
    bench.store.leases.left("one")
    bench.store.leases.left("two")
    assert len(bench.store.leases) == 1


async def test_a_detached_lease_is_there_after_a_restart_and_others_are_not(bench: Bench) -> None:
    added = await bench.add("a")
    detached, _ = await take(bench, "a", ttl=60.0), await take(bench, "a")
    bench.reopen()
    assert [holder.lease for holder in (await bench.store.models.show("a")).holders] == [detached.id]
    with pytest.raises(InUse):
        await bench.store.renaming.remove("a")
    await bench.store.renaming.remove("a", force=True)
    assert "blob" not in await sweep(bench)
    await bench.store.leases.release(bench.store.leases.find(detached.id))
    await sweep(bench)
    assert not os.path.exists(added.path)
    bench.reopen()
    assert len(bench.store.leases) == 0


async def test_a_detached_lease_ends_when_its_time_is_over_also_while_the_daemon_was_away(bench: Bench) -> None:
    await bench.add("a")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.store.leases.keep)
        await take(bench, "a", ttl=60.0)
        short = await take(bench, "a", ttl=0.05)
        await eventually(lambda: len(bench.store.leases) == 1)
        with pytest.raises(NotFound):
            bench.store.leases.find(short.id)
        tasks.cancel_scope.cancel()
    await take(bench, "a", ttl=0.001)
    bench.reopen()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.store.leases.keep)
        await eventually(lambda: len(bench.store.leases) == 1)
        tasks.cancel_scope.cancel()


async def test_what_the_name_no_longer_stands_for_is_not_leased(bench: Bench) -> None:
    await bench.add("a")
    resolved = await bench.store.resolver.resolve("a")
    await bench.add("a", b"GGUF newer", replace=True)
    assert await bench.store.leases.take(resolved, applicant(), None) is None
    await bench.store.renaming.remove("a")
    assert await bench.store.leases.take(resolved, applicant(), None) is None
    assert len(bench.store.leases) == 0
    assert bench.store.holds.blobs() == set(), "an attempt that fails holds nothing"


async def test_a_removal_that_waits_behind_a_lease_sees_it(bench: Bench) -> None:
    """Both in one turn after the other: never a lease of a name that is gone."""
    await bench.add("a")
    resolved = await bench.store.resolver.resolve("a")
    outcomes: list[object] = []

    async def lease() -> None:
        outcomes.append(await bench.store.leases.take(resolved, applicant(), None))

    async def remove() -> None:
        try:
            await bench.store.renaming.remove("a")
        except InUse:
            outcomes.append("in use")
        else:
            outcomes.append("removed")

    for order in ((lease, remove), (remove, lease)):
        async with anyio.create_task_group() as tasks:
            for step in order:
                tasks.start_soon(step)
        leased = any(isinstance(outcome, Lease) for outcome in outcomes)
        assert leased is ("in use" in outcomes), outcomes
        outcomes.clear()
        bench.store.leases.left("one")
        if not bench.names():
            await bench.add("a")


async def test_one_user_has_only_so_many(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LEASES_PER_PEER", 2)
    await bench.add("a")
    for _ in range(2):
        await take(bench, "a")
    with pytest.raises(QueueFull, match="already has 2 leases"):
        await take(bench, "a")
    await take(bench, "a", "two", uid=UID + 1)
    bench.store.leases.left("one")
    await take(bench, "a")
