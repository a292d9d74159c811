"""Update commands that are refused, and bytes that are not those of the command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from modeld.store import ModelName, Requester
from modelwire.errors import (
    AlreadyExists,
    Corrupt,
    DigestMismatch,
    InvalidDigest,
    InvalidName,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    WireError,
)
from modelwire.requests import (
    LeaseAcquire,
    ModelAdd,
    ModelList,
    ModelRegister,
    ModelUpdate,
)
from modelwire.values import Updated
from rigs.operations_rig import ADMIN, ANOTHER, MINE, HandsNothing, NotingCall
from rigs.scripted_server import Server
from rigs.update_commands import command, content, digits, document
from rigs.update_rig import address, engine, running, shown, update, updates
from rigs.waiting import eventually


class OtherFiles(HandsNothing):
    """A client for whom other files lie at the same paths, also one of the daemon's own user."""

    async def may_name_paths(self) -> bool:
        return False


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


async def test_other_bytes_of_a_version_that_is_here(tmp_path: Path, web: Server) -> None:
    async with running(tmp_path) as at:
        await update(at, command("1.0", **address(web, "1.0")))
        with pytest.raises(AlreadyExists) as fault:
            await update(at, command("1.0", sha256=digits("2.0"), **address(web, "2.0")))
        assert "another version" in (fault.value.hint or "")


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


async def test_a_name_whose_manifest_cannot_be_read_is_refused_before_any_byte(tmp_path: Path, web: Server) -> None:
    async with running(tmp_path) as at:
        await at.ask(ModelAdd(path=at.file("m.gguf"), name="m-3b"))
        Path(at.services.store.layout.manifest(ModelName.parse("m-3b"))).write_text("{")
        with pytest.raises(Corrupt):
            await update(at, command("1.0", **address(web, "1.0")))
        assert web.asked == []
        assert (await updates(at)).updates == ()


async def test_a_name_that_another_user_has_registered_is_not_moved(tmp_path: Path, web: Server) -> None:
    async with running(tmp_path) as at:
        await at.ask(ModelRegister(manifest=document("1.0", **address(web, "1.0"))))
        with pytest.raises(PermissionDenied, match="registered"):
            await at.ask(ModelUpdate(command=command("2.0", **address(web, "2.0"))), ANOTHER)
        assert web.asked == []
