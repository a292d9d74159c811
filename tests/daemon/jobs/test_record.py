"""Rows of the ledger as jobs again: with the types of their kind, or as what another version wrote."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from modeld.jobs import record
from modeld.jobs.ledger import JobRecord
from modeld.jobs.restart import restore
from modelwire.encoding import encode
from modelwire.errors import Unsupported
from modelwire.replies import Result
from modelwire.requests import ModelAdd
from modelwire.values import Added, Swept, Victim
from rigs.board_rig import HeldWork, desk

PUBLISHED = Added(name="llama", blob="sha256:" + "0" * 64, size_bytes=1, format="gguf", path="/x")
ROW = JobRecord(
    id="0" * 26,
    kind="model.add",
    key="k",
    peer_uid=1000,
    priority=3,
    order=1,
    state="running",
    request=record.encode(ModelAdd(path="/source", name="llama")),
    on_disconnect="continue",
    created_at=1.0,
)


def row(**changed: object) -> JobRecord:
    return msgspec.structs.replace(ROW, **changed)


def test_a_row_comes_back_with_the_types_of_its_kind() -> None:
    job = record.live(row(result=record.encode(PUBLISHED)), HeldWork())
    assert job.request == ModelAdd(path="/source", name="llama")
    assert (job.intent, job.failure, job.stage, job.state) == (PUBLISHED, None, "running", "running")
    past = record.past(row(state="done", result=record.encode(PUBLISHED)), HeldWork())
    assert past.outcome() == PUBLISHED
    assert (past.stage, past.ended.is_set()) == ("done", True)


def test_an_outcome_that_cannot_be_read_is_an_error_of_its_own() -> None:
    """The same token gives the same job, whose value a later version wrote."""
    past = record.past(row(state="done", result=b'{"name":7}'), HeldWork())
    assert past.value is None
    with pytest.raises(Unsupported, match=ROW.id):
        past.outcome()


@pytest.mark.parametrize(
    "written",
    [{"kind": "model.dream", "request": b'{"op":"model.dream"}'}, {"request": b'{"op":"model.add"}'}, {"result": b"7"}],
    ids=["the kind", "the request", "what it announced"],
)
async def test_an_open_job_that_cannot_be_read_ends_and_says_so(tmp_path: Path, written: dict[str, object]) -> None:
    async with desk(tmp_path) as at:
        await at.ledger.insert(row(**written))
        assert await restore(at.board, at.ledger) == 0
        job = await at.board.find(ROW.id)
        assert (job.state, job.kind.name) == ("failed", written.get("kind", "model.add"))
        assert isinstance(job.failure, Unsupported)
        stored = await at.ledger.get(ROW.id)
        assert stored is not None
        assert stored.state == "failed"
    async with desk(tmp_path) as at:
        again = await at.board.find(ROW.id)
        assert (again.state, again.value) == ("failed", None)
        assert isinstance(again.failure, Unsupported)


@pytest.mark.parametrize("entries", [0, 1, 499, 501, 1000, 1050])
async def test_an_outcome_with_a_long_list_is_recorded_and_sent_as_any_other(entries: int) -> None:
    victims = tuple(Victim(path=f"/s/{n}", kind="blob", size_bytes=n, reason='"gr\u00fcn"') for n in range(entries))
    swept = Swept(victims=victims, removed=entries, freed_bytes=7, dry_run=True, kept=0, notes=("one",))
    held = await record.with_long_lists_encoded(swept)
    assert (held is swept) == (entries <= 500)
    assert record.encode(held) == record.encode(swept)
    assert msgspec.json.decode(record.encode(held), type=Swept) == swept
    assert encode(Result(id="1", value=held)) == encode(Result(id="1", value=swept))
