"""The table of `manifests/states.py`, walked on a real store: each condition, and each event in each state."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import get_args

import pytest

from modeld.store import WouldBlock
from modeld.store.manifests.states import STATES, Answer, Condition
from modeld.store.names import ModelName
from modelwire.errors import Corrupt, NotFound, WireError
from modelwire.vocabulary import ModelState
from rigs.maintain_rig import Bench

CONTENT = b"GGUF weights"

Step = Callable[[Bench], Awaitable[object]]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def outside(bench: Bench) -> Path:
    """The other name of the linked blob."""
    return bench.directory / "linked.gguf"


def write_outside(bench: Bench, content: bytes) -> None:
    os.chmod(outside(bench), 0o644)
    outside(bench).write_bytes(content)


def condition(bench: Bench, name: str) -> Condition | None:
    entry = bench.store.index.entry(ModelName.parse(name))
    return None if entry is None else entry.look().condition


def listed(bench: Bench, name: str) -> str | None:
    """The state as a list of models has it."""
    states = {view.name: view.state for view in bench.store.index.page(None, None).models}
    return states.get(name)


# -- how a model comes into each state


async def ready(bench: Bench) -> None:
    outside(bench).write_bytes(CONTENT)
    await bench.store.add(str(outside(bench)), name="a", how="link")


async def suspect(bench: Bench) -> None:
    await ready(bench)
    write_outside(bench, CONTENT)


async def failed(bench: Bench) -> None:
    await ready(bench)
    await disappears(bench)


async def damaged(bench: Bench) -> None:
    await ready(bench)
    Path(bench.manifest("a")).write_text("{")


CONDITIONS: dict[Condition, Step] = {
    Condition.WHOLE: ready,
    Condition.CHANGED: suspect,
    Condition.LACKING: failed,
    Condition.DAMAGED: damaged,
}

# -- what happens to it


async def written_through_the_other_name(bench: Bench) -> None:
    write_outside(bench, CONTENT)


async def replaced_by_the_same_bytes(bench: Bench) -> None:
    """As a backup that is put back."""
    for path in bench.blobs():
        Path(f"{path}-copy").write_bytes(CONTENT)
        os.rename(f"{path}-copy", path)


async def disappears(bench: Bench) -> None:
    for path in bench.blobs():
        os.unlink(path)


async def changes_its_size(bench: Bench) -> None:
    write_outside(bench, CONTENT + b"more")


async def verified(bench: Bench) -> None:
    await bench.store.verifier.verify(["a"])


async def found_corrupt(bench: Bench) -> None:
    write_outside(bench, b"X" * len(CONTENT))
    assert not (await bench.store.verifier.verify(["a"])).ok


async def asked_for(bench: Bench) -> None:
    await bench.store.resolver.resolve("a")


async def added_again(bench: Bench) -> None:
    await bench.add("a", CONTENT)


async def copied(bench: Bench) -> None:
    await bench.store.renaming.copy("a", "b")


async def moved(bench: Bench) -> None:
    await bench.store.renaming.move("a", "b")


async def replaced(bench: Bench) -> None:
    await bench.add("a", b"other bytes", replace=True)


async def removed(bench: Bench) -> None:
    await bench.store.renaming.remove("a")


async def its_manifest_is_damaged(bench: Bench) -> None:
    Path(bench.manifest("a")).write_text("{")


STATES_BEFORE: dict[str, Step] = {"ready": ready, "suspect": suspect, "failed": failed}

REFUSED = "refused"

EVENTS: dict[Step, tuple[str, dict[str, str | None]]] = {
    written_through_the_other_name: ("a", {"ready": "suspect", "suspect": "suspect", "failed": "failed"}),
    replaced_by_the_same_bytes: ("a", {"ready": "suspect", "suspect": "suspect", "failed": "failed"}),
    disappears: ("a", {"ready": "failed", "suspect": "failed", "failed": "failed"}),
    changes_its_size: ("a", {"ready": "suspect", "suspect": "suspect", "failed": "failed"}),
    verified: ("a", {"ready": "ready", "suspect": "ready", "failed": "failed"}),
    asked_for: ("a", {"ready": "ready", "suspect": "ready", "failed": REFUSED}),
    added_again: ("a", {"ready": "ready", "suspect": "suspect", "failed": "suspect"}),
    copied: ("b", {"ready": "ready", "suspect": "suspect", "failed": REFUSED}),
    moved: ("b", {"ready": "ready", "suspect": "suspect", "failed": "failed"}),
    replaced: ("a", {"ready": "ready", "suspect": "ready", "failed": "ready"}),
    removed: ("a", {"ready": None, "suspect": None, "failed": None}),
    its_manifest_is_damaged: ("a", {"ready": None, "suspect": None, "failed": None}),
}
"""The name to look at afterwards, and its state by the state before; None: no list has it."""


def test_the_table_is_complete() -> None:
    assert set(STATES) == set(Condition) == set(CONDITIONS)
    names = [state.name for state in STATES.values() if state.name is not None]
    assert len(set(names)) == len(names)
    assert set(names) <= set(get_args(ModelState))
    assert set(STATES_BEFORE) == set(names)
    for _, after in EVENTS.values():
        assert set(after) == set(names)


@pytest.mark.parametrize("wanted", CONDITIONS, ids=str)
async def test_what_follows_from_each_condition(bench: Bench, wanted: Condition) -> None:
    await CONDITIONS[wanted](bench)
    assert condition(bench, "a") is wanted
    state = STATES[wanted]
    page = bench.store.index.page(None, None)
    if state.name is None:
        assert (page.models, len(page.damaged)) == ((), 1)
    else:
        assert [(view.state, view.path is not None) for view in page.models] == [
            (state.name, state.answer is Answer.PATH)
        ]
        assert (page.models[0].reason is None) == (wanted is Condition.WHOLE)
    if state.answer is Answer.PATH:
        assert Path(bench.store.index.resolve("a").path).read_bytes() == CONTENT
    elif state.answer is Answer.VERIFY:
        with pytest.raises(WouldBlock):
            bench.store.index.resolve("a")
        assert Path((await bench.store.resolver.resolve("a")).path).read_bytes() == CONTENT
    else:
        with pytest.raises(Corrupt):
            bench.store.index.resolve("a")
        with pytest.raises(Corrupt):
            await bench.store.resolver.resolve("a")


@pytest.mark.parametrize("before", STATES_BEFORE)
@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.__name__)
async def test_each_event_in_each_state(bench: Bench, before: str, event: Step) -> None:
    await STATES_BEFORE[before](bench)
    assert listed(bench, "a") == before
    name, after = EVENTS[event]
    if after[before] == REFUSED:
        with pytest.raises(WireError):
            await event(bench)
        assert listed(bench, "a") == before
        return
    await event(bench)
    assert listed(bench, name) == after[before]
    if event is moved:
        assert condition(bench, "a") is None
    if event is removed:
        with pytest.raises(NotFound):
            bench.store.index.resolve("a")


async def test_changed_bytes_that_are_added_again_are_ready_unless_the_blob_was_linked(bench: Bench) -> None:
    await bench.add("a", CONTENT)
    await replaced_by_the_same_bytes(bench)
    assert listed(bench, "a") == "suspect"
    await added_again(bench)
    assert listed(bench, "a") == "ready"


async def test_missing_bytes_that_are_added_again_are_ready_unless_the_blob_was_linked(bench: Bench) -> None:
    await bench.add("a", CONTENT)
    await disappears(bench)
    assert listed(bench, "a") == "failed"
    await added_again(bench)
    assert listed(bench, "a") == "ready"


async def test_corrupt_bytes_take_a_model_out_of_use_in_every_state_that_has_bytes(bench: Bench) -> None:
    for before in (ready, suspect):
        await before(bench)
        await found_corrupt(bench)
        assert listed(bench, "a") == "failed"
        assert "corrupt" in str(bench.store.models.view("a").reason)
        await bench.store.renaming.remove("a")
        outside(bench).unlink()
