"""What a verification leaves in the history, and since when bytes are known to be good."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from modeld.store import Manner
from modeld.store.catalog.history import Requester
from modeld.store.digest import Digest
from modeld.store.manifests.models import Kept
from rigs.maintain_rig import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, byte_threads=2)
    yield made
    made.close()


async def test_outcomes_have_the_user_the_time_and_the_bytes(bench: Bench) -> None:
    added = await bench.add("a", requester=Requester(peer=7, job="j0"))
    await bench.store.verifier.verify(None, Manner(requester=Requester(peer=8, job="j1")))
    bench.spoil(added.path)
    bad = (await bench.store.verifier.verify(None, Manner(requester=Requester(peer=9, job="j2")))).models[0]
    history = (await bench.store.models.show("a")).history
    assert [(past.outcome, past.peer, past.job) for past in history] == [
        ("added", 7, "j0"),
        ("verified", 8, "j1"),
        ("corrupt", 9, "j2"),
    ]
    assert {past.expected for past in history} == {added.blob}
    assert [past.actual for past in history] == [added.blob, added.blob, bad.actual]
    assert history[0].source == str(bench.directory / "source.gguf")
    assert all(str(past.tool).startswith("modeld/") for past in history)
    assert [past.time for past in history] == sorted(past.time for past in history)
    bench.reopen()
    assert (await bench.store.models.show("a")).history == history


async def test_when_it_was_verified_is_reported_while_it_is_true(bench: Bench) -> None:
    added = await bench.add("a")
    first = (await bench.store.models.show("a")).verified_at
    await bench.store.verifier.verify()
    second = (await bench.store.models.show("a")).verified_at
    assert first is not None
    assert second is not None
    assert second > first
    bench.ages(added.path, 10)
    assert (await bench.store.models.show("a")).verified_at is None
    await bench.store.verifier.verify()
    assert (await bench.store.models.show("a")).verified_at is not None


@pytest.mark.parametrize("count", [3, 600])
async def test_a_model_of_many_files_is_verified_when_all_of_them_are(bench: Bench, count: int) -> None:
    bench.write_manifest("many", {f"f{number:03}": str(number).encode() for number in range(count)})
    assert (await bench.store.models.show("many")).verified_at is None
    await bench.store.verifier.verify()
    before = await bench.store.models.show("many")
    assert before.verified_at is not None
    assert await bench.store.models.kept(before) == Kept()
    path = bench.layout.blob(Digest.parse(bench.document("many")["files"][count // 2]["blob"]))
    os.unlink(path)
    os.mkdir(path)
    shown = await bench.store.models.show("many")
    assert (shown.verified_at, shown.path, shown.state) == (None, None, "failed")
    assert await bench.store.models.kept(shown) == Kept(before.path, before.verified_at)


async def test_of_a_long_history_the_newest_are_shown(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.add("a")
    monkeypatch.setattr("modeld.store.catalog.history.SHOWN", 3)
    for number in range(5):
        await bench.store.verifier.verify(None, Manner(requester=Requester(peer=number)))
    assert [past.peer for past in (await bench.store.models.show("a")).history] == [2, 3, 4]
