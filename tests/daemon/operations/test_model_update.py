"""Update commands on one machine: what each outcome leaves, and what is refused."""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from modeld.operations import loading, model_update
from modeld.operations.events_subscribe import Subscribe
from modeld.operations.operation import Caller
from modeld.platform import clock
from modeld.store import Requester
from modeld.store.catalog import updates as catalog_updates
from modelwire.errors import (
    AlreadyExists,
    Cancelled,
    Corrupt,
    DigestMismatch,
    InUse,
    InvalidDigest,
    InvalidName,
    InvalidRequest,
    NoSpace,
    NotFound,
    PermissionDenied,
    QueueFull,
    SourceNotFound,
    TimedOut,
    Unsupported,
    WireError,
)
from modelwire.requests import (
    EventsSubscribe,
    LeaseAcquire,
    ModelAdd,
    ModelList,
    ModelPin,
    ModelRemove,
    ModelShow,
    ModelUpdate,
    ModelUpdates,
    RefuseLoad,
)
from modelwire.values import Machine, ModelView, Updated, Updates
from rigs.operations_rig import ADMIN, ANOTHER, MINE, HandsNothing, NotingCall, OperationsRig, operations_rig
from rigs.scripted_server import Asked, Reply, Server, file_reply
from rigs.update_commands import command, content, digits
from rigs.waiting import eventually

VERSIONS = ("1.0", "2.0", "3.0")


def route(asked: Asked) -> Reply:
    version = asked.path.removeprefix("/m-").removesuffix(".gguf")
    return file_reply(asked, content(version)) if version in VERSIONS else Reply(404)


@pytest.fixture
def web() -> Iterator[Server]:
    with Server(route) as server:
        yield server


def address(web: Server, version: str) -> dict[str, Any]:
    return {"download_url": f"{web.url}/m-{version}.gguf"}


@asynccontextmanager
async def running(room: Path) -> AsyncIterator[OperationsRig]:
    """A daemon that has been there for long: no engine is on its way back to it."""
    async with operations_rig(room) as at:
        at.services.daemon.began -= 60
        yield at


class OtherFiles(HandsNothing):
    """A client for whom other files lie at the same paths, also one of the daemon's own user."""

    async def may_name_paths(self) -> bool:
        return False


async def update(at: OperationsRig, given: dict[str, Any]) -> Updated:
    made = await at.ask(ModelUpdate(command=given))
    assert isinstance(made, Updated)
    return made


async def shown(at: OperationsRig, name: str) -> ModelView:
    view = await at.ask(ModelShow(name=name))
    assert isinstance(view, ModelView)
    return view


async def updates(at: OperationsRig) -> Updates:
    listed = await at.ask(ModelUpdates())
    assert isinstance(listed, Updates)
    return listed


def load_within(at: OperationsRig, seconds: float) -> None:
    node = msgspec.structs.replace(at.services.settings.node, load_within=seconds)
    object.__setattr__(at.services, "settings", msgspec.structs.replace(at.services.settings, node=node))


def is_called(at: OperationsRig, **node: Any) -> None:
    changed = msgspec.structs.replace(at.services.settings.node, **node)
    object.__setattr__(at.services, "settings", msgspec.structs.replace(at.services.settings, node=changed))


@asynccontextmanager
async def engine(at: OperationsRig, caller: Caller = MINE) -> AsyncIterator[NotingCall]:
    """Subscribed, with all that it sees."""
    call = NotingCall(caller)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(at.of(Subscribe).run, call, EventsSubscribe(id="e", events=(loading.REQUESTED,)))
        await eventually(lambda: bool(at.services.loading._engines))
        yield call
        tasks.cancel_scope.cancel()


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


async def test_other_bytes_than_the_command_names_are_not_published(tmp_path: Path, web: Server) -> None:
    async with running(tmp_path) as at:
        await update(at, command("1.0", **address(web, "1.0")))
        given = command("2.0", **address(web, "3.0"))
        with pytest.raises(DigestMismatch) as refused:
            await update(at, given)
        assert refused.value.details["outcome"] == "failed"
        assert (await shown(at, "m-3b")).blob == f"sha256:{digits('1.0')}"
        with pytest.raises(NotFound):
            await shown(at, "m-3b-2_0-q4_k_m")
        with pytest.raises(DigestMismatch):
            await update(at, given)
        assert len([each for each in web.asked if "3.0" in each.path]) <= 2, "the stored failure is the answer"
        failed = (await updates(at)).updates[0]
        assert (failed.outcome, failed.error and failed.error.code) == ("failed", "digest_mismatch")


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


async def test_a_rollback_model_that_is_not_here_is_refused_before_any_byte(tmp_path: Path, web: Server) -> None:
    async with running(tmp_path) as at:
        given = command("1.0", {"rollback_model_id": "m-0b"}, **address(web, "1.0"))
        with pytest.raises(NotFound, match="m-0b"):
            await update(at, given)
        assert not web.asked
        assert (await updates(at)).updates == (), "a refusal is no outcome"
        await at.ask(ModelAdd(path=at.file("m.gguf"), name="m-0b"))
        assert (await update(at, given)).outcome == "applied"


async def test_a_rollback_model_without_its_bytes_is_refused(tmp_path: Path, web: Server) -> None:
    async with running(tmp_path) as at:
        first = await update(at, command("1.0", **address(web, "1.0")))
        Path((await shown(at, first.version)).path or "").unlink()
        with pytest.raises(Corrupt, match="cannot be gone back to"):
            await update(at, command("2.0", {"rollback_model_id": first.version}, **address(web, "2.0")))


async def test_nobody_removes_the_rollback_model_of_a_running_update(tmp_path: Path, web: Server) -> None:
    async with running(tmp_path) as at, engine(at) as call:
        await at.ask(ModelAdd(path=at.file("m.gguf"), name="m-0b"))
        given = command("1.0", {"rollback_model_id": "m-0b"}, **address(web, "1.0"))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(update, at, given)
            await eventually(lambda: bool(call.sent))
            with pytest.raises(InUse, match="an update that needs it"):
                await at.ask(ModelRemove(name="m-0b"))
            await at.ask(LeaseAcquire(name="m-3b-1_0-q4_k_m"))
        await at.ask(ModelRemove(name="m-0b"))


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


async def test_the_name_of_another_user_is_not_moved(tmp_path: Path, web: Server) -> None:
    async with running(tmp_path) as at:
        store = at.services.store
        await store.add(at.file("m.gguf"), name="m-3b", requester=Requester(peer=2002))
        with pytest.raises(PermissionDenied):
            await at.ask(ModelUpdate(command=command("1.0", **address(web, "1.0"))), ANOTHER)
        assert not web.asked
        made = await at.ask(ModelUpdate(command=command("1.0", **address(web, "1.0"))), ADMIN)
        assert made.outcome == "applied"
        assert (await shown(at, "m-3b")).owner == 2002, "the name stays its owner's"


async def test_a_pin_stays_with_the_name(tmp_path: Path, web: Server) -> None:
    async with running(tmp_path) as at:
        await update(at, command("1.0", **address(web, "1.0")))
        await at.ask(ModelPin(name="m-3b"))
        await update(at, command("2.0", **address(web, "2.0")))
        assert (await shown(at, "m-3b")).pinned
        assert not (await shown(at, "m-3b-2_0-q4_k_m")).pinned


@pytest.mark.parametrize(
    ("changes", "fault", "says"),
    [
        ({"command_id": "7"}, InvalidRequest, "UUID"),
        ({"command_id": "1c9e1e2e-6f0f-1a30-8a59-0c6a3c1d2b4f"}, InvalidRequest, "UUID of version 4"),
        ({"timestamp": "yesterday"}, InvalidRequest, "no time"),
        ({"timestamp": "2026-01-31T12:00:00"}, InvalidRequest, "no time with its zone"),
        ({"target_nodes": "here"}, InvalidRequest, "target_nodes"),
        ({"auto_load": "yes"}, InvalidRequest, "auto_load"),
        ({"dry_run": True}, InvalidRequest, "dry_run"),
        ({"manifest": None}, InvalidRequest, "manifest"),
        ({"manifest": {"model_id": "m"}}, InvalidRequest, "manifest"),
        ({"target_nodes": ["n" * 200] * 400}, InvalidRequest, "bytes"),
    ],
)
async def test_a_command_that_is_none(
    tmp_path: Path, changes: dict[str, Any], fault: type[WireError], says: str
) -> None:
    async with running(tmp_path) as at:
        with pytest.raises(fault, match=says):
            await update(at, command("1.0", changes))


@pytest.mark.parametrize("missing", ["command_id", "manifest", "target_nodes", "priority", "auto_load", "timestamp"])
async def test_all_fields_but_the_rollback_are_required(tmp_path: Path, missing: str) -> None:
    async with running(tmp_path) as at:
        given = command("1.0")
        del given[missing]
        with pytest.raises(InvalidRequest, match=missing):
            await update(at, given)


@pytest.mark.parametrize(
    ("of_document", "fault"),
    [
        ({"sha256": ""}, InvalidDigest),
        ({"sha256": "AB" * 32}, InvalidDigest),
        ({"model_id": "../m"}, InvalidName),
        ({"version": "1/2"}, InvalidName),
        ({"download_url": "https://user:word@example.org/m.gguf"}, InvalidRequest),
        ({"download_url": "just-a-name"}, InvalidRequest),
    ],
)
async def test_a_document_that_no_machine_takes(
    tmp_path: Path, of_document: dict[str, Any], fault: type[WireError]
) -> None:
    async with running(tmp_path) as at:
        with pytest.raises(fault):
            await update(at, command("1.0", **of_document))
        assert (await updates(at)).updates == ()


async def test_a_local_address_is_for_those_whose_paths_the_daemon_opens(tmp_path: Path) -> None:
    async with running(tmp_path) as at:
        path = at.file("m.gguf", content("1.0"))
        given = command("1.0", download_url=f"file:{path}")
        elsewhere = NotingCall(MINE, handed=OtherFiles())
        with pytest.raises(PermissionDenied):
            await at.operations.slow[ModelUpdate](elsewhere, ModelUpdate(command=given))
        assert (await update(at, given)).outcome == "applied"
        assert len((await at.ask(ModelList())).models) == 2


async def test_the_priority_of_the_command_counts(tmp_path: Path) -> None:
    async with running(tmp_path) as at, engine(at) as call, anyio.create_task_group() as tasks:
        await at.ask(ModelAdd(path=at.file("m.gguf", content("1.0")), name="brought"))
        tasks.start_soon(update, at, command("1.0", {"priority": 17}))
        await eventually(lambda: bool(call.sent))
        (job,) = at.services.board.jobs
        assert (job.priority, job.on_disconnect) == (5, "continue")
        await at.ask(LeaseAcquire(name="m-3b-1_0-q4_k_m"))


async def test_an_engine_has_a_moment_to_come_back_after_a_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


async def test_no_command_takes_the_last_name_of_a_model_away(tmp_path: Path, web: Server) -> None:
    async with running(tmp_path) as at:
        added = await at.ask(ModelAdd(path=at.file("m.gguf"), name="m-3b"))
        await update(at, command("1.0", **address(web, "1.0")))
        kept = {view.name for view in (await at.ask(ModelList())).models if view.blob == added.blob}
        assert kept == {"m-3b-1_0_0-"}, "the name of its version"
        await update(at, command("2.0", **address(web, "2.0")))
        assert len((await at.ask(ModelList())).models) == 4, "the first version has a name of its own"


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


async def test_the_document_of_the_command_counts_for_bytes_that_had_the_name_of_the_version(tmp_path: Path) -> None:
    async with running(tmp_path) as at:
        await at.ask(ModelAdd(path=at.file("m.gguf", content("1.0")), name="m-3b-1_0-q4_k_m"))
        await update(at, command("1.0", features=["chat"]))
        for name in ("m-3b", "m-3b-1_0-q4_k_m"):
            block = (await shown(at, name)).model
            assert block is not None
            assert (block["version"], list(block["features"]), block["sha256"]) == ("1.0", ["chat"], digits("1.0"))


async def test_other_bytes_of_a_version_that_is_here(tmp_path: Path, web: Server) -> None:
    async with running(tmp_path) as at:
        await update(at, command("1.0", **address(web, "1.0")))
        with pytest.raises(AlreadyExists) as fault:
            await update(at, command("1.0", sha256=digits("2.0"), **address(web, "2.0")))
        assert "another version" in (fault.value.hint or "")


async def test_a_command_that_is_cancelled_before_its_turn_has_no_effect(tmp_path: Path) -> None:
    async with running(tmp_path) as at, engine(at) as call, anyio.create_task_group() as tasks:
        for version in ("1.0", "2.0"):
            await at.ask(ModelAdd(path=at.file(f"{version}.gguf", content(version)), name=f"brought-{version}"))
        tasks.start_soon(update, at, command("1.0"))
        await eventually(lambda: len(call.sent) == 1)

        async def second() -> None:
            with pytest.raises(Cancelled):
                await update(at, command("2.0", {"rollback_model_id": "brought-2.0"}))

        tasks.start_soon(second)
        await eventually(lambda: len(list(at.services.board.jobs)) == 2)
        await at.services.board.cancel(max(at.services.board.jobs, key=lambda job: job.order), "the test asks for it")
        await eventually(lambda: len(list(at.services.board.jobs)) == 1)
        with pytest.raises(NotFound):
            await shown(at, "m-3b")
        await at.ask(LeaseAcquire(name="m-3b-1_0-q4_k_m"))
        await eventually(lambda: not list(at.services.board.jobs))
        assert (await shown(at, "m-3b")).blob == f"sha256:{digits('1.0')}"


async def test_an_engine_that_was_asked_has_to_answer_also_after_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path) as at, anyio.create_task_group() as tasks:
        load_within(at, 0.2)
        await at.ask(ModelAdd(path=at.file("m.gguf", content("1.0")), name="brought"))
        given, made = command("1.0", {"rollback_model_id": "brought"}), list[Updated]()

        async def run() -> None:
            made.append(await update(at, given))

        async with engine(at) as call:
            load_within(at, 20)
            tasks.start_soon(run)
            await eventually(lambda: bool(call.sent))
            (job,) = at.services.board.jobs
            assert job.intent is None, "of an earlier run only"
        load_within(at, 0.1)
        row = await at.services.board._ledger.get(job.id)
        assert row is not None
        assert row.result, "the ledger has that it was asked"
        await at.services.board.cancel(job, "the test is over")
        await eventually(lambda: bool(made))


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


async def test_a_version_that_is_given_to_other_bytes_meanwhile_is_not_moved_to(tmp_path: Path, web: Server) -> None:
    async with running(tmp_path) as at, engine(at) as call, anyio.create_task_group() as tasks:
        given, faults = command("2.0", {"rollback_model_id": "m-3b"}, **address(web, "2.0")), list[Updated]()
        first = await at.ask(ModelUpdate(command=command("1.0", {"auto_load": False}, **address(web, "1.0"))))

        async def run() -> None:
            faults.append(await update(at, given))

        tasks.start_soon(run)
        await eventually(lambda: bool(call.sent))
        await at.services.store.add(at.file("evil.gguf"), name="m-3b-2_0-q4_k_m", replace=True)
        await at.ask(ModelAdd(path=at.file("good.gguf", content("2.0")), name="good"))
        await at.ask(LeaseAcquire(name="good"))
        await eventually(lambda: bool(faults))
        assert faults[0].outcome == "rolled_back"
        assert (await shown(at, "m-3b")).blob == first.blob


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
            if not refused and "updates" in function.__module__:
                refused.append(1)
                raise NoSpace("no space")
            return await write(function, *rest)

        monkeypatch.setattr(catalog, "write", refusing)
        given = command("1.0", **address(web, "1.0"))
        assert (await update(at, given)).outcome == "applied"
        assert refused
        assert (await shown(at, "m-3b")).blob == f"sha256:{digits('1.0')}"
        assert (await update(at, given)).repeated


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
        for job in list(at.services.board.jobs):
            await at.services.board.cancel(job, "the test is over")
        await eventually(lambda: not list(at.services.board.jobs))


async def ignoring(at: OperationsRig, given: dict[str, Any]) -> None:
    with suppress(WireError):
        await update(at, given)


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
