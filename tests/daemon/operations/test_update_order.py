"""Update commands that meet others: the same one again, several for one name, cancelled and paused ones."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from modeld.operations.operation import Caller
from modeld.store import ModelName
from modeld.store.catalog import updates as catalog_updates
from modelwire.errors import (
    AlreadyExists,
    Cancelled,
    InUse,
    NotFound,
    QueueFull,
    SourceNotFound,
    WireError,
)
from modelwire.requests import (
    LeaseAcquire,
    ModelAdd,
    ModelUpdate,
)
from modelwire.values import Updated
from rigs.operations_rig import ADMIN, MINE, OperationsRig
from rigs.scripted_server import Server
from rigs.update_commands import command, content, digits
from rigs.update_rig import address, engine, is_called, running, shown, update, updates
from rigs.waiting import eventually


async def ignoring(at: OperationsRig, given: dict[str, Any]) -> None:
    with suppress(WireError):
        await update(at, given)


async def test_the_same_command_gives_the_same_outcome_and_does_nothing(tmp_path: Path, web: Server) -> None:
    async with running(tmp_path) as at:
        given = command("1.0", **address(web, "1.0"))
        made, asked = await update(at, given), len(web.asked)
        await update(at, command("2.0", **address(web, "2.0")))
        assert await update(at, dict(reversed(given.items()))) == msgspec.structs.replace(made, repeated=True)
        assert (await shown(at, "m-3b")).blob == f"sha256:{digits('2.0')}", "it is not carried out again"
        assert len([each for each in web.asked if "1.0" in each.path]) == asked
        with pytest.raises(AlreadyExists, match="another command"):
            await update(at, given | {"priority": 1})
        listed = await updates(at)
        assert [each.command_id for each in listed.updates][1] == made.command_id
        assert listed.pending == ()


async def test_a_cancelled_update_goes_back(tmp_path: Path, web: Server) -> None:
    async with running(tmp_path) as at, engine(at) as call:
        await at.ask(ModelAdd(path=at.file("m.gguf"), name="m-0b"))
        for rollback, outcome in (("m-0b", "rolled_back"), (None, "failed")):
            async with anyio.create_task_group() as tasks:
                given, seen = command("1.0", {"rollback_model_id": rollback}, **address(web, "1.0")), len(call.sent)

                async def run(given: dict[str, Any] = given) -> None:
                    with suppress(Cancelled):
                        await update(at, given)

                tasks.start_soon(run)
                await eventually(lambda seen=seen: len(call.sent) > seen)  # type: ignore[misc]
                (job,) = at.services.board.jobs
                await at.services.board.cancel(job, "the test asks for it")
            last = (await updates(at)).updates[0]
            assert (last.command_id, last.outcome) == (given["command_id"], outcome)
            assert last.error is not None
            assert last.error.code == "cancelled"
            assert (await shown(at, "m-3b")).blob == (await shown(at, "m-0b")).blob


async def test_commands_for_one_name_take_effect_in_their_order(tmp_path: Path) -> None:
    async with running(tmp_path) as at, anyio.create_task_group() as tasks:
        for version in ("1.0", "2.0"):
            await at.ask(ModelAdd(path=at.file(f"{version}.gguf", content(version)), name=f"brought-{version}"))
        async with engine(at) as call:
            tasks.start_soon(update, at, command("1.0"))
            await eventually(lambda: len(call.sent) == 1)
            tasks.start_soon(update, at, command("2.0", {"auto_load": False, "priority": 1}))
            await eventually(lambda: len(list(at.services.board.jobs)) == 2)
            await eventually(lambda: at.services.store.models.has_digest("m-3b-2_0-q4_k_m", f"sha256:{digits('2.0')}"))
            with pytest.raises(NotFound):
                await shown(at, "m-3b")
            await at.ask(LeaseAcquire(name="m-3b-1_0-q4_k_m"))
            await eventually(lambda: not list(at.services.board.jobs))
        assert (await shown(at, "m-3b")).blob == f"sha256:{digits('2.0')}"


async def test_the_priority_of_the_command_counts(tmp_path: Path) -> None:
    async with running(tmp_path) as at, engine(at) as call, anyio.create_task_group() as tasks:
        await at.ask(ModelAdd(path=at.file("m.gguf", content("1.0")), name="brought"))
        tasks.start_soon(update, at, command("1.0", {"priority": 17}))
        await eventually(lambda: bool(call.sent))
        (job,) = at.services.board.jobs
        assert (job.priority, job.on_disconnect) == (5, "continue")
        await at.ask(LeaseAcquire(name="m-3b-1_0-q4_k_m"))


async def test_a_repeated_outcome_says_so(tmp_path: Path, web: Server) -> None:
    async with running(tmp_path) as at:
        given, failing = command("1.0", **address(web, "1.0")), command("2.0", **address(web, "missing"))
        made = await update(at, given)
        assert not made.repeated
        assert await update(at, given) == msgspec.structs.replace(made, repeated=True)
        for says in (False, True):
            with pytest.raises(SourceNotFound) as fault:
                await update(at, failing)
            assert ("That was the outcome at" in (fault.value.hint or "")) is says


async def test_a_command_that_is_cancelled_before_its_turn_has_no_effect(tmp_path: Path) -> None:
    async with running(tmp_path) as at, engine(at) as call, anyio.create_task_group() as tasks:
        for version in ("1.0", "2.0"):
            await at.ask(ModelAdd(path=at.file(f"{version}.gguf", content(version)), name=f"brought-{version}"))
        tasks.start_soon(update, at, command("1.0"))
        await eventually(lambda: len(call.sent) == 1)

        async def second() -> None:
            with pytest.raises(Cancelled):
                await update(at, command("2.0", {"rollback_model_id": "brought-1.0"}))

        tasks.start_soon(second)
        await eventually(lambda: len(list(at.services.board.jobs)) == 2)
        await at.services.board.cancel(max(at.services.board.jobs, key=lambda job: job.order), "the test asks for it")
        await eventually(lambda: len(list(at.services.board.jobs)) == 1)
        with pytest.raises(NotFound):
            await shown(at, "m-3b")
        await at.ask(LeaseAcquire(name="m-3b-1_0-q4_k_m"))
        await eventually(lambda: not list(at.services.board.jobs))
        assert (await shown(at, "m-3b")).blob == f"sha256:{digits('1.0')}"


async def test_the_same_command_of_two_users_at_once_is_carried_out_once(tmp_path: Path, web: Server) -> None:
    async with running(tmp_path) as at, engine(at) as call, anyio.create_task_group() as tasks:
        given, made = command("1.0", **address(web, "1.0")), list[Updated]()

        async def ask(caller: Caller) -> None:
            made.append(await at.ask(ModelUpdate(command=given), caller))

        for caller in (MINE, ADMIN, MINE):
            tasks.start_soon(ask, caller)
        await eventually(lambda: bool(call.sent))
        assert len(list(at.services.board.jobs)) == 1
        other = dict(given, command_id=given["command_id"].upper(), priority=1)
        with pytest.raises(AlreadyExists, match="another command"):
            await update(at, other)
        await at.ask(LeaseAcquire(name="m-3b-1_0-q4_k_m"))
        await eventually(lambda: len(made) == 3)
        assert {each.outcome for each in made} == {"applied"}
        assert len((await updates(at)).updates) == 1


async def test_a_user_has_only_so_many_updates_at_once(tmp_path: Path) -> None:
    async with running(tmp_path) as at, engine(at), anyio.create_task_group() as tasks:
        most = at.services.gate.limits.waiting_per_peer
        for number in range(most):
            version = f"{number}.0"
            await at.ask(ModelAdd(path=at.file(f"{version}.gguf", content(version)), name=f"brought-{version}"))
            tasks.start_soon(ignoring, at, command(version))
            await eventually(lambda number=number: len(list(at.services.board.jobs)) > number)  # type: ignore[misc]
        with pytest.raises(QueueFull, match="update commands"):
            await update(at, command("1.0"))
        elsewhere = await update(at, command("1.0", {"target_nodes": ["another"]}))
        assert elsewhere.outcome == "not_targeted", "it is for another machine in any case"
        for job in list(at.services.board.jobs):
            await at.services.board.cancel(job, "the test is over")
        await eventually(lambda: not list(at.services.board.jobs))


async def test_commands_that_do_nothing_push_out_none_that_did_something(tmp_path: Path, web: Server) -> None:
    async with running(tmp_path) as at:
        given = command("1.0", **address(web, "1.0"))
        made = await update(at, given)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(catalog_updates, "KEPT", 3)
            for _ in range(6):
                await update(at, command("2.0", {"target_nodes": ["another"]}))
        assert len((await updates(at)).updates) == 4
        assert (await update(at, given)).at == made.at


async def test_a_command_that_is_cancelled_in_the_queue_has_an_outcome(tmp_path: Path) -> None:
    async with running(tmp_path) as at, anyio.create_task_group() as tasks:
        await at.ask(ModelAdd(path=at.file("1.gguf", content("1.0")), name="brought"))
        await at.ask(ModelAdd(path=at.file("0.gguf"), name="m-0b"))
        given, cancelled = command("1.0", {"rollback_model_id": "m-0b"}), list[Cancelled]()

        async def run() -> None:
            with pytest.raises(Cancelled) as fault:
                await update(at, given)
            cancelled.append(fault.value)

        at.services.gate.leave_alone("nobody")
        tasks.start_soon(run)
        await eventually(lambda: [job.stage for job in at.services.board.jobs] == ["queued"])
        (job,) = at.services.board.jobs
        holds = at.services.store.holds
        for name in ("m-0b", "m-3b-1_0-q4_k_m"):
            with pytest.raises(InUse, match=job.id):
                holds.check_free(ModelName.parse(name), "removed")
        await at.services.board.cancel(job, "the test asks for it")
        holds.check_free(ModelName.parse("m-0b"), "removed")
        at.services.gate.leave_together()
        await eventually(lambda: bool(cancelled))
        assert cancelled[0].details["outcome"] == "failed"
        (last,) = (await updates(at)).updates
        assert (last.outcome, last.job, last.error and last.error.code) == ("failed", job.id, "cancelled")
        with pytest.raises(Cancelled, match="cancelled"):
            await update(at, given)
        with pytest.raises(NotFound):
            await shown(at, "m-3b")


@pytest.mark.parametrize("rollback", ["m-0b", None])
async def test_a_paused_command_takes_nothing_back_from_a_later_one(tmp_path: Path, rollback: str | None) -> None:
    async with running(tmp_path) as at, anyio.create_task_group() as tasks:
        await at.ask(ModelAdd(path=at.file("0.gguf"), name="m-0b"))
        for version in ("1.0", "2.0"):
            await at.ask(ModelAdd(path=at.file(f"{version}.gguf", content(version)), name=f"brought-{version}"))
        faults = list[AlreadyExists]()

        async def first() -> None:
            with pytest.raises(AlreadyExists) as fault:
                await update(at, command("1.0", {"rollback_model_id": rollback}))
            faults.append(fault.value)

        async with engine(at) as call:
            tasks.start_soon(first)
            await eventually(lambda: len(call.sent) == 1)
            (job,) = at.services.board.jobs
            await at.services.board.pause(job)
            await eventually(lambda: job.stage == "paused")
        later = command("2.0", {"auto_load": False})
        assert (await update(at, later)).outcome == "applied"
        await at.services.board.resume(job)
        await eventually(lambda: bool(faults))
        assert faults[0].details["later"] == later["command_id"]
        assert (await shown(at, "m-3b")).blob == f"sha256:{digits('2.0')}"
        assert [each.outcome for each in (await updates(at)).updates] == ["failed", "applied"]


async def test_a_command_of_an_earlier_run_is_looked_at_again(tmp_path: Path) -> None:
    async with running(tmp_path) as at, engine(at) as call, anyio.create_task_group() as tasks:
        await at.ask(ModelAdd(path=at.file("1.gguf", content("1.0")), name="brought"))
        made = list[Updated]()

        async def run() -> None:
            made.append(await update(at, command("1.0", {"target_nodes": ["here"]})))

        is_called(at, id="here")
        tasks.start_soon(run)
        await eventually(lambda: len(call.sent) == 1)
        (job,) = at.services.board.jobs
        await at.services.board.pause(job)
        await eventually(lambda: job.stage == "paused")
        is_called(at, id="elsewhere")
        await at.services.board.resume(job)
        await eventually(lambda: bool(made))
        assert (made[0].outcome, made[0].job) == ("not_targeted", job.id)
        with pytest.raises(NotFound):
            await shown(at, "m-3b")
