"""Pins: a model that is kept for good, whatever happens to its name's content, its name, or the catalogue."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modeld.store import Requester
from modelwire.errors import InUse, NotFound, PermissionDenied
from rigs.maintain_rig import Bench, RecordedNotes


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


async def test_a_pinned_model_is_removed_only_by_force(bench: Bench) -> None:
    await bench.add("a")
    pinned = await bench.store.pinning.pin("a")
    assert (pinned.pinned, pinned.changed) == (True, True)
    with pytest.raises(InUse, match="it is pinned") as refused:
        await bench.store.renaming.remove("a")
    assert "unpin a" in (refused.value.hint or "")
    assert not refused.value.retryable
    assert (await bench.store.models.show("a")).pinned
    await bench.store.renaming.remove("a", force=True)
    assert bench.names() == []


async def test_an_unpinned_model_is_as_it_was(bench: Bench) -> None:
    await bench.add("a")
    document = bench.document("a")
    await bench.store.pinning.pin("a")
    assert bench.document("a") == document | {"pinned": True}
    assert (await bench.store.pinning.pin("a")).changed is False
    assert (await bench.store.pinning.pin("a", pinned=False)).changed
    assert bench.document("a") == document
    assert (await bench.store.pinning.pin("a", pinned=False)).changed is False
    await bench.store.renaming.remove("a")


async def test_a_pin_outlives_the_catalogue_a_move_and_other_bytes_and_is_not_copied(bench: Bench) -> None:
    await bench.add("a")
    await bench.store.pinning.pin("a")
    bench.close()
    for name in os.listdir(os.path.dirname(bench.layout.catalog_path)):
        if name.startswith("catalog.sqlite"):
            os.unlink(os.path.join(os.path.dirname(bench.layout.catalog_path), name))
    bench.open()
    assert (await bench.store.models.show("a")).pinned
    await bench.add("a", b"GGUF other bytes", replace=True)
    await bench.store.renaming.move("a", "b")
    await bench.store.renaming.copy("b", "c")
    listed = (await bench.store.models.page("pinned=yes", None, after=None, limit=10)).models
    assert [model.name for model in listed] == ["b"]
    await bench.store.renaming.remove("c")
    with pytest.raises(InUse):
        await bench.store.renaming.remove("b")


async def test_only_the_owner_and_an_admin_pin_and_unpin(bench: Bench) -> None:
    await bench.add("a", requester=Requester(peer=1000))
    stranger, admin = Requester(peer=2000), Requester(peer=2000, all_models=True)
    for pinned in (True, False):
        with pytest.raises(PermissionDenied, match="unpinned" if not pinned else "pinned"):
            await bench.store.pinning.pin("a", pinned=pinned, requester=stranger)
        await bench.store.pinning.pin("a", pinned=pinned, requester=admin)
    assert bench.document("a")["owner_uid"] == 1000


@pytest.mark.parametrize("foreign", ["yes", 1, None, {"by": "me"}])
async def test_what_another_tool_writes_there_is_no_pin(bench: Bench, foreign: Any) -> None:
    await bench.add("a")
    Path(bench.manifest("a")).write_text(json.dumps(bench.document("a") | {"pinned": foreign}))
    assert not (await bench.store.models.show("a")).pinned
    await bench.store.renaming.remove("a")


async def test_a_model_that_is_not_there_is_not_pinned(bench: Bench) -> None:
    with pytest.raises(NotFound):
        await bench.store.pinning.pin("a")


async def test_a_restart_finds_a_pin_that_was_announced(bench: Bench) -> None:
    await bench.add("a")
    notes = RecordedNotes(bench)
    pinned = await bench.store.pinning.pin("a", notes=notes)
    assert [call[0] for call in notes.calls] == ["about", "published"]
    assert bench.store.pinning.stands(pinned)
    await bench.store.pinning.pin("a", pinned=False)
    assert not bench.store.pinning.stands(pinned)
