"""What an update leaves of what was here before: the old bytes, the ids that say where they are from, the limits."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import anyio
import pytest

from modeld.store import ModelName, Requester
from modeld.store.catalog.history import Quota
from modelwire.errors import AlreadyExists, Cancelled, InvalidName, InvalidRequest, NoSpace, QuotaExceeded, Unsupported
from modelwire.requests import ModelAdd, ModelList, ModelProvision, RefuseLoad
from rigs.ids_rig import path_of
from rigs.operations_rig import ANOTHER, MINE, OperationsRig
from rigs.scripted_server import Asked, Reply, Server, file_reply
from rigs.update_commands import command, content, digits
from rigs.update_rig import address, engine, running, shown, update, updates
from rigs.waiting import all_wait, eventually

OLD = b"GGUF\3\0\0\0 what was here before the first update"


def kept_name(name: str, old: bytes) -> str:
    """Made of the digest: no name says a version that nobody has said."""
    return f"{name}-{sha256(old).hexdigest()[:12]}"


async def names_of(at: OperationsRig, blob: str) -> set[str]:
    return {view.name for view in (await at.ask(ModelList())).models if view.blob == blob}


@pytest.mark.parametrize("engine_refuses", [False, True])
async def test_a_version_is_not_replaced_by_what_its_address_has_later(tmp_path: Path, engine_refuses: bool) -> None:
    """Also not by a command that fails after its bytes have come."""
    serves = [content("first")]

    def route(asked: Asked) -> Reply:
        return file_reply(asked, serves[0])

    with Server(route) as web:
        async with running(tmp_path) as at, anyio.create_task_group() as tasks:
            place = f"{web.url}/m.gguf"
            for version in ("2.0", "3.0"):
                await update(at, command(version, sha256=digits("first"), download_url=place))
            serves[0] = content("changed")
            again = command("2.0", sha256=digits("changed"), download_url=place)
            if engine_refuses:

                async def refuse() -> None:
                    async with engine(at) as call:
                        await eventually(lambda: bool(call.sent))
                        await at.ask(RefuseLoad(command_id=again["command_id"], reason="too old an engine"))

                tasks.start_soon(refuse)
                await eventually(lambda: bool(at.services.loading._engines))
            with pytest.raises((AlreadyExists, Unsupported)):
                await update(at, again)
            assert (await shown(at, "m-3b-2_0-q4_k_m")).blob == f"sha256:{digits('first')}"
            assert (await shown(at, "m-3b")).blob == f"sha256:{digits('first')}"
            tasks.cancel_scope.cancel()


def unreadable(at: OperationsRig, _: str) -> None:
    """More than a manifest may have: nobody knows what it names."""
    junk = Path(at.services.store.layout.manifest(ModelName.parse("junk")))
    junk.touch()
    os.truncate(junk, 17 << 20)


def nothing(_: OperationsRig, __: str) -> None:
    """Only the document of the new version speaks of the old bytes."""


@pytest.mark.parametrize("spoil", [nothing, unreadable])
async def test_what_only_seems_to_name_the_old_bytes_keeps_nothing(
    tmp_path: Path, web: Server, spoil: Callable[[OperationsRig, str], None]
) -> None:
    async with running(tmp_path) as at:
        before = (await at.ask(ModelAdd(path=at.file("m.gguf", OLD), name="m-3b"))).blob
        spoil(at, before)
        told = {"previous_sha256": before.removeprefix("sha256:")}
        await update(at, command("1.0", **address(web, "1.0"), metadata=told))
        assert await names_of(at, before) == {kept_name("m-3b", OLD)}


async def test_names_that_are_taken_are_passed_over(tmp_path: Path, web: Server) -> None:
    async with running(tmp_path) as at:
        before = (await at.ask(ModelAdd(path=at.file("m.gguf", OLD), name="m-3b"))).blob
        await at.ask(ModelAdd(path=at.file("t.gguf"), name=kept_name("m-3b", OLD)))
        await update(at, command("1.0", **address(web, "1.0")))
        assert await names_of(at, before) == {f"{kept_name('m-3b', OLD)}-2"}


async def test_a_name_that_goes_while_the_move_waits_is_replaced(tmp_path: Path, web: Server) -> None:
    """The old bytes had another name when the command was looked at, and have none in its turn."""
    async with running(tmp_path) as at, anyio.create_task_group() as tasks:
        before = (await at.ask(ModelAdd(path=at.file("m.gguf", OLD), name="m-3b"))).blob
        await at.ask(ModelAdd(path=at.file("m.gguf", OLD), name="alias"))
        layout = at.services.store.layout
        descriptor = os.open(f"{layout.root}/locks/m-3b.lock", os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        tasks.start_soon(update, at, command("1.0", {"auto_load": False}, **address(web, "1.0")))
        await eventually(lambda: any(job.progress.current_phase == "publish" for job in at.services.board.jobs))
        await eventually(lambda: at.services.store.models.has_digest("m-3b-1_0-q4_k_m", f"sha256:{digits('1.0')}"))
        await eventually(lambda: any(job.id in at.services.gate._aside for job in at.services.board.jobs))
        os.unlink(layout.manifest(ModelName.parse("alias")))  # by another tool
        os.close(descriptor)
        await eventually(lambda: not list(at.services.board.jobs))
        assert await names_of(at, before) == {kept_name("m-3b", OLD)}


async def test_an_id_that_says_where_bytes_are_from_stays_with_them(tmp_path: Path, web: Server) -> None:
    async with running(tmp_path) as at:
        path = at.file("m-3b.gguf", OLD)
        made = await at.ask(ModelProvision(ref=path))
        assert (await shown(at, "m-3b")).ids == (f"local:{path}",)
        await update(at, command("1.0", **address(web, "1.0")))
        assert (await shown(at, "m-3b")).ids == ()
        assert await path_of(at, f"local:{path}") == kept_name("m-3b", OLD)
        again = await at.ask(ModelProvision(ref=path))
        assert again.digest == made.digest
        assert (await shown(at, "m-3b")).blob == f"sha256:{digits('1.0')}", "no provision undoes an update"


async def test_an_id_of_bytes_that_have_another_name_ends(tmp_path: Path, web: Server) -> None:
    async with running(tmp_path) as at:
        path = at.file("m-3b.gguf", OLD)
        await at.ask(ModelProvision(ref=path))
        await at.ask(ModelAdd(path=path, name="alias"))
        await update(at, command("1.0", **address(web, "1.0")))
        with pytest.raises(InvalidName):
            await path_of(at, f"local:{path}")


async def test_a_user_with_limits_owns_the_bytes_that_a_name_goes_on_to(tmp_path: Path) -> None:
    async with running(tmp_path) as at:
        store = at.services.store
        await at.ask(ModelAdd(path=at.file("m.gguf", OLD), name="m"))
        quota = Quota(ANOTHER.uid, lambda owner: owner == ANOTHER.uid, 1 << 20, None)
        limited = Requester(peer=ANOTHER.uid, all_models=True, quota=quota)
        added = await store.add(at.file("v.gguf"), name="v", requester=limited)
        await store.pointing.point("m", "v", added.blob, requester=limited)
        assert (await shown(at, "m")).owner == ANOTHER.uid
        assert (await shown(at, kept_name("m", OLD))).owner == MINE.uid


async def test_a_command_that_waits_for_another_tool_can_be_cancelled(tmp_path: Path, web: Server) -> None:
    async with running(tmp_path) as at, anyio.create_task_group() as tasks:
        before = await at.ask(ModelAdd(path=at.file("m.gguf", OLD), name="m-3b"))
        descriptor = os.open(f"{at.services.store.layout.root}/locks/m-3b.lock", os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_EX)

        async def run() -> None:
            with pytest.raises(Cancelled):
                await update(at, command("1.0", {"auto_load": False}, **address(web, "1.0")))

        tasks.start_soon(run)
        await eventually(lambda: at.services.store.models.has_digest("m-3b-1_0-q4_k_m", f"sha256:{digits('1.0')}"))
        await eventually(lambda: any(job.id in at.services.gate._aside for job in at.services.board.jobs))
        (job,) = at.services.board.jobs
        await at.services.board.cancel(job, "the test asks for it")
        await eventually(lambda: not list(at.services.board.jobs))  # and not when the lock is given back
        os.close(descriptor)
        assert [each.outcome for each in (await updates(at)).updates] == ["failed"]
        assert (await shown(at, "m-3b")).blob == before.blob


async def test_the_new_version_is_no_rollback_model(tmp_path: Path) -> None:
    async with running(tmp_path) as at:
        await at.ask(ModelAdd(path=at.file("m.gguf", content("1.0")), name="m-3b-1_0-q4_k_m"))
        with pytest.raises(InvalidRequest, match="the bytes of the new version itself"):
            await update(at, command("1.0", {"rollback_model_id": "m-3b-1_0-q4_k_m"}))


async def test_a_model_of_several_files_can_be_gone_back_to(tmp_path: Path, web: Server) -> None:
    async with running(tmp_path) as at:
        folder = tmp_path / "several"
        folder.mkdir()
        for name in ("config.json", "model.safetensors"):
            (folder / name).write_text("{}" if name == "config.json" else name)
        await at.ask(ModelAdd(path=str(folder), name="several", force_format=True))
        await update(at, command("1.0", {"auto_load": False}, **address(web, "1.0")))
        missing = command("2.0", {"rollback_model_id": "several"}, **address(web, "9.9"))
        made = await update(at, missing)
        assert made.outcome == "rolled_back"
        assert at.services.store.models.same("m-3b", "several")
        (job,) = [each for each in await at.services.board.recent(10, None) if each.id == made.job]
        assert job.kind.took_place(job.request, made), "a crash after the move finds that it took place"


async def test_the_name_of_another_user_keeps_nothing(tmp_path: Path, web: Server) -> None:
    """It may go at any time."""
    async with running(tmp_path) as at:
        before = (await at.ask(ModelAdd(path=at.file("m.gguf", OLD), name="m-3b"))).blob
        await at.services.store.add(at.file("m.gguf", OLD), name="theirs", requester=Requester(peer=ANOTHER.uid))
        await update(at, command("1.0", **address(web, "1.0")))
        assert await names_of(at, before) == {"theirs", kept_name("m-3b", OLD)}


@pytest.mark.parametrize(("room", "most"), [(len(OLD) + 40, None), (None, 2)])
async def test_what_is_kept_counts_for_the_quota(tmp_path: Path, room: int | None, most: int | None) -> None:
    async with running(tmp_path) as at:
        store = at.services.store
        theirs = Requester(peer=ANOTHER.uid)
        await store.add(at.file("m.gguf", OLD), name="m", requester=theirs)
        await store.add(at.file("t.gguf", OLD + b"2"), name="t", requester=Requester(peer=MINE.uid))
        added = await store.add(at.file("v.gguf", content("1.0") * 2), name="v", requester=Requester(peer=MINE.uid))
        if most is not None:
            await store.add(at.file("o.gguf"), name="o", requester=theirs)
        quota = Quota(ANOTHER.uid, lambda owner: owner == ANOTHER.uid, room, most)
        with pytest.raises(QuotaExceeded):
            await store.pointing.point("m", "v", added.blob, requester=Requester(peer=ANOTHER.uid, quota=quota))
        assert (await shown(at, "m")).blob == f"sha256:{sha256(OLD).hexdigest()}"


async def test_a_name_that_is_kept_is_locked(tmp_path: Path, web: Server) -> None:
    """The old bytes have another name at the first look, so only the lock of the name that moves is taken."""
    async with running(tmp_path) as at, anyio.create_task_group() as tasks:
        before = (await at.ask(ModelAdd(path=at.file("m.gguf", OLD), name="m-3b"))).blob
        await at.ask(ModelAdd(path=at.file("m.gguf", OLD), name="alias"))
        layout = at.services.store.layout
        locks = [
            os.open(f"{layout.root}/locks/{name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
            for name in ("m-3b", kept_name("m-3b", OLD))
        ]
        for lock in locks:
            fcntl.flock(lock, fcntl.LOCK_EX)
        tasks.start_soon(update, at, command("1.0", {"auto_load": False}, **address(web, "1.0")))
        await eventually(lambda: at.services.store.models.has_digest("m-3b-1_0-q4_k_m", f"sha256:{digits('1.0')}"))
        await eventually(lambda: any(job.id in at.services.gate._aside for job in at.services.board.jobs))
        os.unlink(layout.manifest(ModelName.parse("alias")))  # by another tool
        os.close(locks[0])
        await all_wait()
        assert await names_of(at, before) == {"m-3b"}, "nothing has moved while another tool has the kept name"
        os.close(locks[1])
        await eventually(lambda: not list(at.services.board.jobs))
        assert await names_of(at, before) == {kept_name("m-3b", OLD)}


async def test_an_error_of_the_disk_after_the_move_is_no_failure(
    tmp_path: Path, web: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as at:
        changes = at.services.store.renaming._name_changes
        write = type(changes).write

        async def failing(self: Any, name: ModelName, *rest: Any, **options: Any) -> None:
            await write(self, name, *rest, **options)
            if options.get("replace"):
                raise NoSpace("the directory could not be synced")

        await at.ask(ModelAdd(path=at.file("m.gguf", OLD), name="m-3b"))
        monkeypatch.setattr(type(changes), "write", failing)
        assert (await update(at, command("1.0", {"auto_load": False}, **address(web, "1.0")))).outcome == "applied"
        assert (await shown(at, "m-3b")).blob == f"sha256:{digits('1.0')}"
        assert [each.outcome for each in (await updates(at)).updates] == ["applied"]
