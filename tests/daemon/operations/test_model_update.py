"""Update commands on one machine: what each outcome leaves."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from modeld.store import ModelName
from modeld.store.catalog import updates as catalog_updates
from modeld.store.catalog.catalog import Catalog
from modelwire.errors import (
    InUse,
    NoSpace,
    NotFound,
    SourceNotFound,
)
from modelwire.requests import (
    LeaseAcquire,
    ModelAdd,
    ModelList,
    ModelPin,
    ModelRegister,
    ModelRemove,
    RefuseLoad,
)
from modelwire.values import Machine, Updated
from rigs.scripted_server import Server
from rigs.update_commands import command, content, digits, document
from rigs.update_rig import address, engine, is_called, running, shown, update, updates
from rigs.waiting import eventually


async def test_a_new_version_gets_a_name_of_its_own_and_the_name_of_its_users(tmp_path: Path, web: Server) -> None:
    async with running(tmp_path) as at:
        made = await update(at, command("1.0", **address(web, "1.0")))
        assert (made.outcome, made.name, made.version) == ("applied", "m-3b", "m-3b-1_0-q4_k_m")
        assert (made.blob, made.loaded, made.error) == (f"sha256:{digits('1.0')}", None, None)
        for name in (made.name, made.version):
            view = await shown(at, name)
            assert (view.blob, view.license, view.state) == (made.blob, "mit", "ready")
            assert view.model is not None
            assert (view.model["model_id"], view.model["version"]) == ("m-3b", "1.0")
        again = await update(at, command("2.0", **address(web, "2.0")))
        assert (await shown(at, "m-3b")).blob == again.blob == f"sha256:{digits('2.0')}"
        assert (await shown(at, made.version)).blob == made.blob, "a version stays"


async def test_a_command_for_others_does_nothing(tmp_path: Path, web: Server) -> None:
    async with running(tmp_path) as at:
        is_called(at, id="here", labels=("edge", "lab"))
        made = await update(at, command("1.0", {"target_nodes": ["there", "Here"]}, **address(web, "1.0")))
        assert (made.outcome, made.blob, made.job) == ("not_targeted", None, None)
        assert not web.asked
        with pytest.raises(NotFound):
            await shown(at, "m-3b")
        for target in ("here", "lab"):
            targeted = await update(at, command("1.0", {"target_nodes": ["there", target]}, **address(web, "1.0")))
            assert targeted.outcome == "applied"
        assert [each.outcome for each in (await updates(at)).updates] == ["applied", "applied", "not_targeted"]


async def test_a_model_that_does_not_fit_is_not_fetched(tmp_path: Path, web: Server) -> None:
    async with running(tmp_path) as at:
        at.services.machine._quick = lambda: Machine(architecture="armv7", ram_mb=100)
        made = await update(at, command("1.0", **address(web, "1.0")))
        assert made.outcome == "does_not_fit"
        assert {line.what for line in made.lines} == {"ram", "architecture"}
        assert not web.asked


async def test_bytes_that_are_here_need_no_address(tmp_path: Path) -> None:
    async with running(tmp_path) as at:
        await at.ask(ModelAdd(path=at.file("m.gguf", content("1.0")), name="other"))
        made = await update(at, command("1.0"))
        assert made.outcome == "applied"
        assert (await shown(at, "m-3b")).blob == made.blob
        with pytest.raises(SourceNotFound, match="no place to fetch it from"):
            await update(at, command("2.0"))
        assert (await shown(at, "m-3b")).blob == made.blob


async def test_a_failure_gives_the_name_to_the_rollback_model(tmp_path: Path, web: Server) -> None:
    async with running(tmp_path) as at:
        first = await update(at, command("1.0", **address(web, "1.0")))
        await update(at, command("2.0", **address(web, "2.0")))
        given = command("3.0", {"rollback_model_id": first.version}, **address(web, "missing"))
        made = await update(at, given)
        assert (made.outcome, made.blob, made.rollback) == ("rolled_back", first.blob, first.version)
        assert made.error is not None
        assert made.error.code == "source_not_found"
        view = await shown(at, "m-3b")
        assert (view.blob, view.node and view.node["model_id"]) == (first.blob, "m-3b")
        assert await update(at, given) == msgspec.structs.replace(made, repeated=True)


async def test_going_back_to_the_name_itself_leaves_it(tmp_path: Path, web: Server) -> None:
    async with running(tmp_path) as at:
        first = await update(at, command("1.0", **address(web, "1.0")))
        made = await update(at, command("3.0", {"rollback_model_id": "m-3b"}, **address(web, "missing")))
        assert (made.outcome, made.blob) == ("rolled_back", first.blob)


async def test_nobody_removes_the_rollback_model_of_a_running_update(tmp_path: Path, web: Server) -> None:
    async with running(tmp_path) as at, engine(at) as call:
        await at.ask(ModelAdd(path=at.file("m.gguf"), name="m-0b"))
        given = command("1.0", {"rollback_model_id": "m-0b"}, **address(web, "1.0"))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(update, at, given)
            await eventually(lambda: bool(call.sent))
            with pytest.raises(InUse, match="an update that needs it"):
                await at.ask(ModelRemove(name="m-0b"))
            (job,) = at.services.board.jobs
            await at.services.board.pause(job)
            await eventually(lambda: job.stage == "paused")
            with pytest.raises(InUse, match=job.id):
                await at.ask(ModelRemove(name="m-0b"))
            await at.services.board.resume(job)
            await eventually(lambda: len(call.sent) == 2)
            await at.ask(LeaseAcquire(name="m-3b-1_0-q4_k_m"))
        await at.ask(ModelRemove(name="m-0b"))


async def test_a_pin_stays_with_the_name(tmp_path: Path, web: Server) -> None:
    async with running(tmp_path) as at:
        await update(at, command("1.0", **address(web, "1.0")))
        await at.ask(ModelPin(name="m-3b"))
        await update(at, command("2.0", **address(web, "2.0")))
        assert (await shown(at, "m-3b")).pinned
        assert not (await shown(at, "m-3b-2_0-q4_k_m")).pinned


async def test_no_command_takes_the_last_name_of_a_model_away(tmp_path: Path, web: Server) -> None:
    async with running(tmp_path) as at:
        added = await at.ask(ModelAdd(path=at.file("m.gguf"), name="m-3b"))
        await update(at, command("1.0", **address(web, "1.0")))
        kept = {view.name for view in (await at.ask(ModelList())).models if view.blob == added.blob}
        assert kept == {f"m-3b-{added.blob.removeprefix('sha256:')[:12]}"}, "nobody has said which version it is"
        await update(at, command("2.0", **address(web, "2.0")))
        assert len((await at.ask(ModelList())).models) == 4, "the first version has a name of its own"


async def test_the_document_of_the_command_counts_for_bytes_that_had_the_name_of_the_version(tmp_path: Path) -> None:
    async with running(tmp_path) as at:
        await at.ask(ModelAdd(path=at.file("m.gguf", content("1.0")), name="m-3b-1_0-q4_k_m"))
        await update(at, command("1.0", features=["chat"]))
        for name in ("m-3b", "m-3b-1_0-q4_k_m"):
            block = (await shown(at, name)).model
            assert block is not None
            assert (block["version"], list(block["features"]), block["sha256"]) == ("1.0", ["chat"], digits("1.0"))


async def test_what_a_running_update_needs_is_not_removed(tmp_path: Path, web: Server) -> None:
    async with running(tmp_path) as at, engine(at) as call, anyio.create_task_group() as tasks:
        await update(at, command("1.0", {"auto_load": False}, **address(web, "1.0")))
        tasks.start_soon(update, at, command("2.0", {"rollback_model_id": "m-3b"}, **address(web, "2.0")))
        await eventually(lambda: bool(call.sent))
        for name in ("m-3b", "m-3b-2_0-q4_k_m"):
            with pytest.raises(InUse):
                await at.ask(ModelRemove(name=name))
        await at.ask(LeaseAcquire(name="m-3b-2_0-q4_k_m"))


async def test_an_outcome_that_the_disk_did_not_take_does_not_undo_the_move(
    tmp_path: Path, web: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as at:
        catalog = at.services.store.updates._catalog
        assert catalog is not None
        write, refused = catalog.write, list[int]()

        async def refusing(function: Any, *rest: Any) -> Any:
            if len(refused) < 3 and "updates" in function.__module__:
                refused.append(1)
                raise NoSpace("no space")
            return await write(function, *rest)

        monkeypatch.setattr(catalog, "write", refusing)
        monkeypatch.setattr(catalog_updates, "LATE_SECONDS", 0.01)
        given = command("1.0", **address(web, "1.0"))
        assert (await update(at, given)).outcome == "applied"
        assert refused
        assert (await shown(at, "m-3b")).blob == f"sha256:{digits('1.0')}"
        assert (await update(at, given)).repeated
        assert await rows(catalog) == 0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(at.services.store.updates.keep)
            with anyio.fail_after(30):
                while not await rows(catalog):  # noqa: ASYNC110 - the catalogue has no event for it
                    await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()
        assert (await update(at, given)).repeated


async def rows(catalog: Catalog) -> int:
    """Outcomes that are in the file."""
    ((number,),) = await catalog.read(lambda db: db.execute("SELECT count(*) FROM updates").fetchall())
    return int(number)


async def test_a_name_that_another_tool_has_is_waited_for_when_an_update_goes_back(tmp_path: Path, web: Server) -> None:
    async with running(tmp_path) as at, engine(at) as call, anyio.create_task_group() as tasks:
        await at.ask(ModelAdd(path=at.file("m.gguf"), name="m-0b"))
        await update(at, command("1.0", {"auto_load": False}, **address(web, "1.0")))
        made = list[Updated]()
        given = command("2.0", {"rollback_model_id": "m-0b"}, **address(web, "2.0"))

        async def run() -> None:
            made.append(await update(at, given))

        tasks.start_soon(run)
        await eventually(lambda: bool(call.sent))
        layout = at.services.store.layout
        descriptor = os.open(f"{layout.root}/locks/m-3b.lock", os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        await at.ask(RefuseLoad(command_id=given["command_id"], reason="too old an engine"))
        await eventually(lambda: any(job.id in at.services.gate._aside for job in at.services.board.jobs))
        os.close(descriptor)
        await eventually(lambda: bool(made))
        assert made[0].outcome == "rolled_back"
        assert (await shown(at, "m-3b")).blob == (await shown(at, "m-0b")).blob


async def test_a_registered_name_gets_its_first_version(tmp_path: Path, web: Server) -> None:
    async with running(tmp_path) as at:
        await at.ask(ModelRegister(manifest=document("1.0", **address(web, "1.0"))))
        assert (await shown(at, "m-3b")).state == "available"
        assert (await update(at, command("2.0", **address(web, "2.0")))).outcome == "applied"
        view = await shown(at, "m-3b")
        assert (view.blob, view.state) == (f"sha256:{digits('2.0')}", "ready")
        assert at.services.store.registrations.of(ModelName.parse("m-3b")) is None
