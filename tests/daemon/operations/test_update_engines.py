"""Engines and update commands: whom the daemon asks, and what each answer leads to."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import anyio
import msgspec
import pytest

from modeld.operations import model_update
from modeld.operations.events_subscribe import Subscribe
from modeld.platform import clock
from modeld.store import ModelName
from modelwire.errors import (
    NotFound,
    TimedOut,
    Unsupported,
)
from modelwire.requests import (
    EventsSubscribe,
    LeaseAcquire,
    ModelAdd,
    RefuseLoad,
)
from modelwire.values import Updated
from rigs.operations_rig import ANOTHER, MINE, NotingCall, operations_rig
from rigs.scripted_server import Server
from rigs.update_commands import command, content, digits
from rigs.update_rig import address, engine, load_within, running, shown, update, updates
from rigs.waiting import eventually


async def test_an_engine_leases_the_new_version_before_the_name_moves(tmp_path: Path, web: Server) -> None:
    async with running(tmp_path) as at:
        await update(at, command("1.0", **address(web, "1.0")))
        async with engine(at) as call, anyio.create_task_group() as tasks:
            made = list[Updated]()

            async def run() -> None:
                made.append(await update(at, command("2.0", **address(web, "2.0"))))

            tasks.start_soon(run)
            await eventually(lambda: bool(call.sent))
            assert isinstance(call.sent[0], bytes)
            event = msgspec.json.decode(call.sent[0])
            assert event["event"] == "model.load_requested"
            assert (event["model"], event["name"]) == ("m-3b-2_0-q4_k_m", "m-3b")
            assert event["digest"] == f"sha256:{digits('2.0')}"
            assert Path(event["path"]).read_bytes() == content("2.0")
            assert (await shown(at, "m-3b")).blob == f"sha256:{digits('1.0')}", "the old one, until it is loaded"
            (pending,) = (await updates(at)).pending
            assert (pending.command_id, pending.version) == (event["command"], event["model"])
            await at.ask(LeaseAcquire(name=event["model"]))
        assert (made[0].outcome, made[0].loaded) == ("applied", True)
        assert (await shown(at, "m-3b")).state in ("ready", "loaded")


async def test_an_engine_that_cannot_load_it_stops_the_update(tmp_path: Path, web: Server) -> None:
    async with running(tmp_path) as at:
        first = await update(at, command("1.0", **address(web, "1.0")))
        async with engine(at) as call, anyio.create_task_group() as tasks:
            given, made = command("2.0", {"rollback_model_id": "m-3b"}, **address(web, "2.0")), list[Updated]()

            async def run() -> None:
                made.append(await update(at, given))

            tasks.start_soon(run)
            await eventually(lambda: bool(call.sent))
            with pytest.raises(NotFound):
                await at.ask(RefuseLoad(command_id=given["command_id"], reason="not mine"), ANOTHER)
            with pytest.raises(NotFound):
                await at.ask(RefuseLoad(command_id=str(uuid.uuid4()), reason="unknown"))
            done = await at.ask(RefuseLoad(command_id=given["command_id"], reason="too old an engine"))
            assert (done.target, done.state) == (given["command_id"], "refused")
        assert (made[0].outcome, made[0].error and made[0].error.code) == ("rolled_back", Unsupported.code)
        assert made[0].error is not None
        assert "too old an engine" in made[0].error.message
        assert (await shown(at, "m-3b")).blob == first.blob


async def test_an_engine_that_does_not_answer_in_time_stops_the_update(tmp_path: Path, web: Server) -> None:
    async with running(tmp_path) as at:
        load_within(at, 0.1)
        async with engine(at):
            with pytest.raises(TimedOut, match="no engine has leased"):
                await update(at, command("1.0", **address(web, "1.0")))
        with pytest.raises(NotFound):
            await shown(at, "m-3b")


async def test_no_engine_is_asked_without_auto_load(tmp_path: Path, web: Server) -> None:
    async with running(tmp_path) as at, engine(at) as call:
        made = await update(at, command("1.0", {"auto_load": False}, **address(web, "1.0")))
        assert (made.outcome, made.loaded, call.sent) == ("applied", None, [])


async def test_a_watcher_of_everything_is_no_engine(tmp_path: Path, web: Server) -> None:
    async with running(tmp_path) as at, anyio.create_task_group() as tasks:
        call = NotingCall(MINE)
        tasks.start_soon(at.of(Subscribe).run, call, EventsSubscribe(id="w"))
        await eventually(lambda: at.services.activity.watchers == 1)
        assert (await update(at, command("1.0", **address(web, "1.0")))).outcome == "applied"
        tasks.cancel_scope.cancel()


async def test_an_engine_has_a_moment_to_come_back_after_a_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_update, "RETURN_SECONDS", 60)
    async with operations_rig(tmp_path) as at, anyio.create_task_group() as tasks:
        await at.ask(ModelAdd(path=at.file("m.gguf", content("1.0")), name="brought"))
        made = list[Updated]()

        async def run() -> None:
            made.append(await update(at, command("1.0")))

        tasks.start_soon(run)
        await eventually(lambda: at.services.store.models.has_digest("m-3b-1_0-q4_k_m", f"sha256:{digits('1.0')}"))
        async with engine(at) as call:
            await eventually(lambda: bool(call.sent))
            await at.ask(LeaseAcquire(name="m-3b-1_0-q4_k_m"))
            await eventually(lambda: bool(made))
        assert made[0].loaded

        monkeypatch.setattr(model_update, "RETURN_SECONDS", 0.05)
        at.services.daemon.began = clock.elapsed()
        assert (await update(at, command("1.0", version="2.0"))).outcome == "applied", "none has come"


async def test_the_ledger_has_that_an_engine_was_asked(tmp_path: Path) -> None:
    """So an engine has to answer after a restart too."""
    async with running(tmp_path) as at, engine(at) as call, anyio.create_task_group() as tasks:
        await at.ask(ModelAdd(path=at.file("m.gguf", content("1.0")), name="brought"))
        made = list[Updated]()

        async def run() -> None:
            made.append(await update(at, command("1.0")))

        tasks.start_soon(run)
        await eventually(lambda: bool(call.sent))
        (job,) = at.services.board.jobs
        assert job.intent is None, "of an earlier run only"
        row = await at.services.board._ledger.get(job.id)
        assert row is not None
        assert msgspec.json.decode(row.result or b"", type=Updated).loaded is False
        await at.ask(LeaseAcquire(name="m-3b-1_0-q4_k_m"))
        await eventually(lambda: bool(made))


async def test_a_rollback_that_fails_too_is_said_beside_the_first_failure(tmp_path: Path) -> None:
    async with running(tmp_path) as at, engine(at) as call, anyio.create_task_group() as tasks:
        await at.ask(ModelAdd(path=at.file("m.gguf", content("1.0")), name="brought"))
        await at.ask(ModelAdd(path=at.file("0.gguf"), name="m-0b"))
        given, faults = command("1.0", {"rollback_model_id": "m-0b"}), list[Unsupported]()

        async def run() -> None:
            with pytest.raises(Unsupported) as fault:
                await update(at, given)
            faults.append(fault.value)

        tasks.start_soon(run)
        await eventually(lambda: bool(call.sent))
        os.unlink(at.services.store.layout.manifest(ModelName.parse("m-0b")))  # another tool
        await at.ask(RefuseLoad(command_id=given["command_id"], reason="no"))
        await eventually(lambda: bool(faults))
        (fault,) = faults
        assert fault.details["rollback"] == "not_found"
        assert fault.hint is not None
        said = ("Look at the engine's own log.", "The rollback failed too: ", "'m-3b' was not moved.")
        assert [fault.hint.count(each) for each in said] == [1, 1, 1]
        assert fault.hint.endswith("To try again, send a command with another id.")


async def test_an_engine_of_another_user_alone_stops_no_update(tmp_path: Path, web: Server) -> None:
    async with running(tmp_path) as at, engine(at) as call, anyio.create_task_group() as tasks:
        async with engine(at, ANOTHER):
            await eventually(lambda: len(at.services.loading._engines) == 2)
            given = command("1.0", **address(web, "1.0"))
            tasks.start_soon(update, at, given)
            await eventually(lambda: bool(call.sent))
            await at.ask(RefuseLoad(command_id=given["command_id"], reason="no"), ANOTHER)
            await at.ask(LeaseAcquire(name="m-3b-1_0-q4_k_m"))
            await eventually(lambda: not list(at.services.board.jobs))
            with pytest.raises(NotFound):
                await at.ask(RefuseLoad(command_id=given["command_id"], reason="too late"))
        assert (await shown(at, "m-3b")).blob == f"sha256:{digits('1.0')}"
