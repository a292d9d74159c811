"""`look_again`: another directory has been put at the store's path, and whatever is under way is of the old one."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from modeld.platform import watches
from modeld.store.manifests.current import Current
from modeld.store.names import ModelName
from rigs.waiting import eventually
from rigs.watched import Watched, mounted, open_queues, placed_watches

LLAMA = ModelName.parse("llama")


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Watched]:
    made = Watched(tmp_path)
    made.put("llama", b"abc")
    made.put("other", b"xyz")
    made.age()
    yield made
    made.index.current.close()


async def test_all_answers_are_dropped_and_found_again(shelf: Watched) -> None:
    await shelf.know()
    before, queues = placed_watches(), open_queues()
    for _ in range(3):
        shelf.index.current.look_again()
        assert shelf.index.current.answer("llama") is None
        await shelf.know()
        assert (placed_watches(), open_queues()) == (before, queues)
    os.unlink(shelf.blob_path)
    assert shelf.index.current.answer("llama") is None


async def test_a_root_on_another_filesystem_is_watched(shelf: Watched) -> None:
    """What decides whether it can be watched is the filesystem that is there now."""
    await shelf.know()
    with mounted(shelf.above):
        there = Watched.at(shelf.above / "models")
        there.put("llama", b"new")
        there.age()
        there.index.current.close()
        shelf.index.current.look_again()
        assert shelf.index.current.answer("llama") is None
        await shelf.know()
        os.unlink(f"{shelf.layout.manifests_dir}/llama.json")
        assert shelf.index.current.answer("llama") is None
    shelf.index.current.look_again()
    await shelf.know()


@pytest.mark.parametrize("when", ["before it placed", "after it placed"])
async def test_a_look_that_began_before_is_not_admitted(
    shelf: Watched, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    await shelf.index.look_up("llama")
    watched, queues = shelf.index.current, open_queues()
    place = watched.place

    def place_meanwhile(*arguments: object) -> object:
        if when == "before it placed":
            watched.look_again()
        found = place(*arguments)  # type: ignore[arg-type]
        if when == "after it placed":
            watched.look_again()
        return found

    monkeypatch.setattr(Current, "place", lambda _, *arguments: place_meanwhile(*arguments))
    for _ in range(3):
        await shelf.index.look_up("llama")
        assert watched.answer("llama") is None
    monkeypatch.undo()
    watched.look_again()
    assert open_queues() == queues
    await shelf.know()


async def test_what_was_seen_of_the_old_queue_is_nothing_seen_of_the_new_one(shelf: Watched) -> None:
    await shelf.know()
    watched = shelf.index.current
    resolved = watched.answer("llama")
    assert resolved is not None
    watched.look_again()
    for _ in range(3):
        seen = watched.seen()
        watched.look_again()
        placed = watched.place(LLAMA, shelf.blob_path)
        assert placed is not None
        watched.admit(placed, resolved, seen)
        assert watched.answer("llama") is None


async def test_an_answer_is_not_given_when_another_thread_looks_again_meanwhile(
    shelf: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Watches that are closed report no change."""
    watched = shelf.index.current
    await shelf.know()
    known = watched._known
    assert known is not None
    changed = known.watches.changed

    def changed_after_all() -> bool:
        thread = threading.Thread(target=watched.look_again)
        thread.start()
        thread.join(20)
        return changed()

    monkeypatch.setattr(known.watches, "changed", changed_after_all)
    assert watched.answer("llama") is None


async def test_old_numbers_mean_nothing_to_the_new_queue(shelf: Watched) -> None:
    """Both queues count from one: a late `leave` must not remove the watches of another model."""
    watched = shelf.index.current
    await shelf.know()
    found = [watched.place(ModelName.parse(name), shelf.blob_path) for name in ("llama", "other") for _ in range(2)]
    watched.look_again()
    await shelf.know()
    before = placed_watches()
    resolved = watched.answer("llama")
    assert resolved is not None
    for placed in found:
        assert placed is not None
        watched.leave(placed)
        watched.admit(placed, resolved, watched.seen())
    assert placed_watches() == before
    assert watched.answer("llama") is resolved
    assert watched.answer("other") is None
    os.unlink(shelf.blob_path)
    assert watched.answer("llama") is None


async def test_a_thread_that_is_placing_does_not_place_in_the_new_queue(
    shelf: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its call into the system may take as long as the disk: the descriptor is not closed, or given to another file,
    before it returns."""
    watched = shelf.index.current
    await shelf.know()
    reached, released = threading.Event(), threading.Event()
    queues = open_queues()
    known = watched._known
    assert known is not None
    add = known.watches._add

    def hanging(*arguments: object) -> object:
        reached.set()
        released.wait(20)
        return add(*arguments)

    monkeypatch.setattr(known.watches, "_add", hanging)
    placing = threading.Thread(target=watched.place, args=(LLAMA, shelf.blob_path))
    placing.start()
    await eventually(reached.is_set)
    watched.look_again()
    assert open_queues() == queues + 1
    await shelf.know()
    before = placed_watches()
    released.set()
    placing.join(20)
    assert open_queues() == queues
    assert placed_watches() <= before
    assert watched.answer("llama") is not None


async def test_no_answer_is_given_while_it_looks(shelf: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look may hang, and the old directory is another one already."""
    watched = shelf.index.current
    await shelf.know()
    queues = open_queues()
    looking, released = threading.Event(), threading.Event()
    watches_for = watches.watches_for

    def hanging(*directories: str) -> object:
        looking.set()
        released.wait(20)
        return watches_for(*directories)

    monkeypatch.setattr(watches, "watches_for", hanging)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, watched.look_again)
        await eventually(looking.is_set)
        assert watched.answer("llama") is None
        await shelf.index.look_up("llama")
        watched.forget()
        assert watched.answer("llama") is None
        assert open_queues() == queues - 1
        released.set()
    monkeypatch.undo()
    await shelf.know()


async def test_what_is_closed_stays_closed(shelf: Watched) -> None:
    await shelf.know()
    queues = open_queues()
    shelf.index.current.close()
    shelf.index.current.close()
    shelf.index.current.look_again()
    assert open_queues() == queues - 1
    await shelf.index.look_up("llama")
    assert shelf.index.current.answer("llama") is None
    unwatched = Current(shelf.layout, watched=False)
    unwatched.look_again()
    assert unwatched.place(LLAMA, shelf.blob_path) is None
    assert open_queues() == queues - 1


async def test_answers_are_true_while_others_look_again(shelf: Watched) -> None:
    """Threads that look again and that place, against changes of the file whose answer is asked for."""
    watched = shelf.index.current
    await shelf.know()
    ending = threading.Event()

    def again() -> None:
        while not ending.wait(0.02):
            watched.look_again()

    def place() -> None:
        while not ending.wait(0.005):
            watched.leave(watched.place(LLAMA, shelf.blob_path))

    threads = [threading.Thread(target=work) for work in (again, place, place)]
    for thread in threads:
        thread.start()
    given = 0
    try:
        for _ in range(200):
            await shelf.index.look_up("llama")
            given += watched.answer("llama") is not None
            os.rename(shelf.above, f"{shelf.above}-aside")
            for _ in range(20):
                assert watched.answer("llama") is None
            os.rename(f"{shelf.above}-aside", shelf.above)
    finally:
        ending.set()
        for thread in threads:
            thread.join(20)
    assert given > 0
    watched.look_again()  # the last one may have found no directory
    await shelf.know()
