"""A store whose root is away, or another store in its place: nothing is given out, nothing is touched, and all is as
before when it is back."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from modeld.store import WouldBlock
from modeld.store.maintain.victims import Ages, Candidate
from modelwire.errors import Internal, NotFound, WireError
from rigs.maintain_rig import DAY, Bench, kinds, later

CONTENT = b"GGUF weights"
UNNAMED = b"nothing names this"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


@contextlib.asynccontextmanager
async def another_in_its_place(bench: Bench, directory: Path) -> AsyncIterator[Bench]:
    """A store of another daemon, with a blob that a sweep would take."""
    directory.mkdir()
    other = Bench(directory)
    for name in ("theirs", "both"):
        await other.add(name, CONTENT)
    other.plant(UNNAMED)
    os.rename(bench.root, f"{bench.root}-away")
    os.rename(other.root, bench.root)
    try:
        yield other
    finally:
        os.rename(bench.root, other.root)
        os.rename(f"{bench.root}-away", bench.root)
        other.close()


async def everything(bench: Bench) -> list[object]:
    """What clients get; an error by its class."""
    found: list[object] = []
    store = bench.store
    for name in ("mine", "theirs", "both"):
        try:
            found.append(store.index.resolve(name).name)
        except (WireError, WouldBlock) as fault:
            found.append(type(fault))
    looks: list[Callable[[], object]] = [lambda: store.index.page(None, None), lambda: store.models.view("both")]
    for look in looks:
        try:
            look()
            found.append("seen")
        except WireError as fault:
            found.append(type(fault))
    return found


@pytest.mark.parametrize("known", [True, False], ids=["known before", "never looked at"])
async def test_models_of_another_store_in_its_place_are_not_given_out(
    bench: Bench, tmp_path: Path, known: bool
) -> None:
    for name in ("mine", "both"):
        await bench.add(name, CONTENT)
    if known:
        await everything(bench)
    else:
        bench.reopen()
    async with another_in_its_place(bench, tmp_path / "theirs"):
        assert set(await everything(bench)) == {Internal}
        with pytest.raises(Internal, match="is not the store"):
            await bench.store.sweeper.sweep()
    assert bench.names() == ["both", "mine"]
    assert await everything(bench) == ["mine", NotFound, "both", "seen", "seen"]


@pytest.mark.parametrize("way", ["away", "empty"])
async def test_all_is_as_before_when_the_root_is_back(bench: Bench, way: str) -> None:
    await bench.add("both", CONTENT)
    before = await everything(bench)
    os.rename(bench.root, f"{bench.root}-away")
    if way == "empty":  # the place where its filesystem was mounted
        os.mkdir(bench.root)
    assert set(await everything(bench)) == {Internal}
    with pytest.raises(Internal):
        await bench.store.sweeper.sweep(grace=0)
    with pytest.raises(Internal):
        await bench.store.renaming.remove("both")
    if way == "empty":
        os.rmdir(bench.root)
    assert not os.path.lexists(bench.root)
    os.rename(f"{bench.root}-away", bench.root)
    assert await everything(bench) == before


async def test_a_sweep_takes_nothing_from_a_store_that_came_meanwhile(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeper, leftovers = bench.store.sweeper, bench.store.sweeper._trees.leftovers
    later(bench, DAY)
    async with contextlib.AsyncExitStack() as swapped:
        others: list[Bench] = []

        async def swap_and_look(ages: Ages) -> list[Candidate]:
            others.append(await swapped.enter_async_context(another_in_its_place(bench, tmp_path / "theirs")))
            return await leftovers(ages)

        monkeypatch.setattr(sweeper._trees, "leftovers", swap_and_look)
        with pytest.raises(Internal, match="is not the store"):
            await sweeper.sweep(grace=0)
        assert UNNAMED in [Path(path).read_bytes() for path in bench.blobs()]
    monkeypatch.undo()
    later(bench, DAY)
    assert kinds(await sweeper.sweep(grace=0)) == []


async def test_reads_go_on_when_only_the_lock_is_gone(bench: Bench) -> None:
    await bench.add("both", CONTENT)
    os.unlink(bench.layout.lock)
    bench.write_manifest("new", {"m.bin": CONTENT})
    assert bench.names() == ["both", "new"]
    with pytest.raises(WireError):
        await bench.store.sweeper.sweep()
