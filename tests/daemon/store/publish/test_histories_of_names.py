"""What the history says of a name ends with its model, also when a kill was faster than the end of the removal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from modeld.store.catalog.history import Outcome, Requester
from modeld.store.digest import Digest
from modeld.store.names import ModelName
from rigs.maintain_rig import Bench

OLD = Digest("a" * 64)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


async def signed(bench: Bench, name: str) -> None:
    await bench.store.history.record([Outcome(digest=OLD, outcome="signed", actual=OLD, model=ModelName.parse(name))])


async def outcomes(bench: Bench, name: str) -> list[str]:
    return [each.outcome for each in (await bench.store.models.show(name)).history]


async def add(bench: Bench) -> None:
    await bench.add("new", b"GGUF new")


async def copy(bench: Bench) -> None:
    await bench.store.renaming.copy("m", "new")


async def move(bench: Bench) -> None:
    await bench.store.renaming.move("m", "new")


@pytest.mark.parametrize("bring", [add, copy, move])
async def test_a_new_model_has_no_signature_of_an_earlier_one(
    bench: Bench, bring: Callable[[Bench], Awaitable[None]]
) -> None:
    await bench.add("m")
    await signed(bench, "new")
    await bring(bench)
    assert await outcomes(bench, "new") == ["added"]


async def test_a_replacement_keeps_what_was_said_of_its_name(bench: Bench) -> None:
    await bench.add("m")
    await signed(bench, "m")
    await bench.add("m", b"GGUF other", replace=True)
    assert "signed" in await outcomes(bench, "m")


async def test_a_moved_model_takes_its_signature_along(bench: Bench) -> None:
    await bench.add("m")
    await signed(bench, "m")
    await bench.store.renaming.move("m", "new")
    assert "signed" in await outcomes(bench, "new")
    await bench.add("m", b"GGUF other")
    assert await outcomes(bench, "m") == ["added"]


async def test_what_an_interrupted_attempt_has_found_stays_once(bench: Bench) -> None:
    """A job that is run again finds the bytes that it has read before, and gets the name as new."""
    name, again, history = ModelName.parse("new"), Requester(job="again"), bench.store.history
    found = Outcome(digest=OLD, outcome="match", actual=OLD, model=name)
    proof = Outcome(digest=OLD, outcome="signed", actual=OLD, model=name)
    await history.record([proof], Requester(job="other"))
    await history.record([found], again)
    for _ in range(2):
        history.note_new_name(name, again)
        history.note_published([proof], again)
    assert [(each.outcome, each.job) for each in await history.of((), name)] == [
        ("match", "again"),
        ("signed", "again"),
    ]
