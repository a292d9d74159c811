"""The models of live pulls, before there is a manifest."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from modeld.jobs.job import AnyJob
from modelwire.errors import Cancelled, NotFound, SourceNotFound, Unsupported
from modelwire.knowledge.document import built
from modelwire.requests import ModelAdd, ModelFit, ModelList, ModelPull, ModelRegister, ModelShow
from modelwire.values import ModelView
from rigs.operations_rig import ADMIN, MINE, PATIENCE, OperationsRig, operations_rig
from rigs.scripted_server import Asked, Reply, Server, file_reply
from rigs.waiting import eventually

CONTENT = b"GGUF\3\0\0\0 the bytes of a model"
DIGITS = "ab" * 32


def hex_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@asynccontextmanager
async def pulling(at: OperationsRig, web: Server, *pulls: ModelPull) -> AsyncIterator[list[AnyJob]]:
    """Jobs that wait for the first word of their source; at the end they are cancelled."""
    async with anyio.create_task_group() as tasks:
        for pull in pulls:
            tasks.start_soon(ask_quietly, at, pull)
        await eventually(lambda: len(web.asked) == len(pulls))
        jobs = sorted(at.services.board.jobs, key=lambda job: job.id)
        yield jobs
        for job in jobs:
            await at.services.board.cancel(job, "the test is over")


async def ask_quietly(at: OperationsRig, pull: ModelPull) -> None:
    with suppress(Cancelled):
        await at.ask(pull, ADMIN)


@pytest.fixture
def web() -> Iterator[Server]:
    """Answers nothing before the end of the test."""
    over = threading.Event()

    def route(_: Asked) -> Reply:
        over.wait(PATIENCE)
        return Reply(404)

    with Server(route) as server:
        yield server
        over.set()


async def listed(at: OperationsRig, **query: Any) -> list[ModelView]:
    return list((await at.ask(ModelList(**query))).models)


async def test_a_pull_that_runs(tmp_path: Path, web: Server) -> None:
    async with operations_rig(tmp_path) as at:
        pull = ModelPull(ref=f"{web.url}/m.gguf", name="M:8b", sha256=DIGITS, license="mit")
        async with pulling(at, web, pull) as (job,):
            job.progress.total(4000)
            job.progress.advance(done=1000)
            (view,) = await listed(at)
            shown = await at.ask(ModelShow(name="m:8b"))
            assert (view.name, view.state, view.path, view.size_bytes) == ("M:8b", "downloading", None, 4000)
            assert (view.blob, view.progress, view.license, view.owner) == (f"sha256:{DIGITS}", 0.25, "mit", ADMIN.uid)
            assert view.reason == f"job {job.id} is running"
            assert shown.node == {
                "model_id": "M:8b",
                "status": "downloading",
                "local_path": None,
                "download_progress": 0.25,
                "verified_at": None,
                "error": None,
            }
            assert shown.catalogue_state == "pending"
            assert shown.model is not None
            assert (shown.model["source"], shown.model["sha256"]) == (f"{web.url}/m.gguf", DIGITS)
            assert (await at.ask(ModelFit(name="M:8b"))).requirements_from == "defaults"
            with pytest.raises(NotFound):
                await at.services.store.look_up("M:8b")
            with pytest.raises(Unsupported, match=r"is not read: job .* is running"):
                await at.ask(ModelShow(name="M:8b", keys=("general.name",)))
        assert await listed(at) == []
        with pytest.raises(NotFound):
            await at.ask(ModelShow(name="M:8b"))


async def test_filters_orders_and_pages(tmp_path: Path, web: Server) -> None:
    async with operations_rig(tmp_path) as at:
        await at.services.store.add(at.file("here.gguf", CONTENT), name="here")
        pulls = [ModelPull(ref=f"{web.url}/{name}.gguf", name=name) for name in ("coming", "zuletzt")]
        async with pulling(at, web, *pulls) as jobs:
            for job, total in zip(jobs, (10**6, 2 * 10**6), strict=True):
                job.progress.total(total)
            last, first = jobs[1].model, jobs[0].model
            assert [view.name for view in await listed(at)] == ["coming", "here", "zuletzt"]
            assert [view.name for view in await listed(at, filter="state=downloading")] == ["coming", "zuletzt"]
            assert [view.name for view in await listed(at, filter="state=ready")] == ["here"]
            assert [view.name for view in await listed(at, filter="used>1h")] == []
            assert [view.name for view in await listed(at, sort="-size")] == [last, first, "here"]
            page = await at.ask(ModelList(limit=1, sort="state"))
            assert ([view.name for view in page.models], page.next) == (["coming"], "coming")
            rest = await listed(at, limit=10, sort="state", after="coming")
            assert [view.name for view in rest] == ["zuletzt", "here"]


async def test_the_default_tag(tmp_path: Path, web: Server) -> None:
    async with operations_rig(tmp_path) as at:
        async with pulling(at, web, ModelPull(ref=f"{web.url}/m.gguf", name="m:latest")):
            assert (await at.ask(ModelShow(name="m"))).name == "m:latest"


async def test_a_name_that_has_a_manifest_keeps_its_state(tmp_path: Path, web: Server) -> None:
    async with operations_rig(tmp_path) as at:
        await at.services.store.add(at.file("m.gguf", CONTENT), name="m")
        async with pulling(at, web, ModelPull(ref=f"{web.url}/m.gguf", name="m", replace=True)):
            assert [(view.name, view.state) for view in await listed(at)] == [("m", "ready")]
            assert (await at.ask(ModelShow(name="m"))).state == "ready"
            assert (await at.services.store.look_up("m")).path


async def test_of_two_pulls_for_one_name_the_one_that_is_further(tmp_path: Path, web: Server) -> None:
    async with operations_rig(tmp_path) as at:
        pulls = [ModelPull(ref=f"{web.url}/{name}.gguf", name="m") for name in ("a", "b")]
        async with pulling(at, web, *pulls) as (one, other):
            for job, done in ((one, 10), (other, 900)):
                job.progress.total(1000)
                job.progress.advance(done=done)
            (view,) = await listed(at)
            assert view.reason == f"job {other.id} is running"


async def test_a_pull_that_succeeds_has_a_manifest_instead(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        with Server(lambda asked: file_reply(asked, CONTENT)) as web:
            await at.ask(ModelPull(ref=f"{web.url}/m.gguf", name="m"), ADMIN)
        (view,) = await listed(at)
        assert (view.state, view.progress) == ("ready", None)


async def test_neither_an_add_nor_a_pull_of_a_name_brings_a_model(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        kinds = at.services.board
        with pytest.raises(NotFound):
            await at.ask(ModelPull(ref="nothing"), MINE)
        await at.ask(ModelAdd(path=at.file("m.gguf", CONTENT), name="m"), ADMIN)
        assert not kinds.jobs or all(job.terminal for job in kinds.jobs)
        assert [view.state for view in await listed(at)] == ["ready"]


async def test_a_model_whose_bytes_are_gone_is_downloading_while_they_are_fetched(tmp_path: Path, web: Server) -> None:
    async with operations_rig(tmp_path) as at:
        added = await at.services.store.add(at.file("m.gguf", CONTENT), name="m")
        Path(added.path).unlink()
        before = await at.ask(ModelShow(name="m"))
        assert (before.state, before.node["status"], before.catalogue_state) == ("failed", "failed", "failed")
        async with pulling(at, web, ModelPull(ref=f"{web.url}/m.gguf", name="m", sha256=hex_of(CONTENT))):
            view = await at.ask(ModelShow(name="m"))
            assert (view.state, view.catalogue_state, view.reason) == ("downloading", "pending", before.reason)
            assert view.node == before.node | {"status": "downloading", "download_progress": 0.0}
            (row,) = await listed(at)
            assert (row.name, row.state, row.progress) == ("m", "downloading", 0.0)
            assert [row.name for row in await listed(at, filter="state=downloading")] == ["m"]
            assert await listed(at, filter="state=failed") == []
        assert (await at.ask(ModelShow(name="m"))).state == "failed"


async def test_a_registered_model_that_could_not_be_fetched_has_failed(tmp_path: Path) -> None:
    with Server(lambda asked: Reply(404)) as web:
        async with operations_rig(tmp_path) as at:
            document = built("m", "M", "llm", download_url=f"{web.url}/m.gguf")
            await at.ask(ModelRegister(manifest=msgspec.to_builtins(document)))
            view = await at.ask(ModelShow(name="m"))
            assert (view.state, view.catalogue_state) == ("available", "pending")
            with pytest.raises(SourceNotFound) as fault:
                await at.ask(ModelPull(ref="m"))
            view = await at.ask(ModelShow(name="m"))
            assert (view.state, view.catalogue_state, view.reason) == ("failed", "failed", fault.value.message)
            assert view.node["status"] == "failed"
            assert (view.node["local_path"], view.node["error"]) == (None, fault.value.message)
            assert [row.state for row in await listed(at)] == ["failed"]
            await at.ask(ModelAdd(path=at.file("m.gguf", CONTENT), name="m"))
            assert (await at.ask(ModelShow(name="m"))).state == "ready"
