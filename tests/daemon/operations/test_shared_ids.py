"""One id and several models: of one user, of several, of the same files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modeld.access.roles import Access
from modeld.config.settings import AccessSettings
from modeld.operations.model_ids import name_of, under_id
from modeld.operations.operation import Caller
from modeld.operations.services import Services
from modeld.store import Requester
from modelwire.errors import (
    AlreadyExists,
    InvalidName,
    InvalidRequest,
    PermissionDenied,
    SourceNotFound,
)
from modelwire.requests import (
    ModelAdd,
    ModelProvision,
    ModelPull,
    ModelRemove,
)
from rigs.ids_rig import CONTENT, ID, manifest, path_of, register, rewrite
from rigs.operations_rig import ADMIN, ANOTHER, MINE, operations_rig

THIRD = Caller(ANOTHER.uid + 1, ANOTHER.uid + 1, "write")


async def test_nobody_gives_an_id_to_the_model_of_another_user(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        path = at.file("m.gguf", CONTENT)
        await at.ask(ModelAdd(path=path, name="m"))
        before = manifest(at, "m").read_bytes()
        theirs = Requester(peer=ANOTHER.uid)
        with pytest.raises(PermissionDenied, match="cannot be given an id by uid 1001"):
            await at.services.store.add(path, name="m", known_as=ID, requester=theirs)
        assert manifest(at, "m").read_bytes() == before


async def test_nobody_registers_the_id_of_another_user(tmp_path: Path) -> None:
    """It would mean two models to a third user, who can do nothing about it."""
    async with operations_rig(tmp_path, AccessSettings()) as at:
        theirs = Requester(peer=ANOTHER.uid)
        await at.services.store.add(at.file("t.gguf"), name="theirs", known_as=ID, requester=theirs)
        for name in (None, "mine"):
            with pytest.raises(PermissionDenied, match=f"'{ID}' is the id of 'theirs'.* uid {ANOTHER.uid}") as fault:
                await under_id(at.services, THIRD.uid, ModelAdd(path=at.file("m.gguf"), name=name), ID)
            assert fault.value.details == {"id": ID, "existing": "theirs", "owner": ANOTHER.uid, "uid": THIRD.uid}
            assert f"Ask uid {ANOTHER.uid}" in (fault.value.hint or "")
        again = await under_id(at.services, ANOTHER.uid, ModelAdd(path=at.file("m.gguf")), ID)
        assert again.name == "theirs"
        for caller in (MINE, ADMIN):  # the daemon's own user may change the models of others too
            assert (await register(at, caller=caller, file=f"{caller.uid}.gguf")).name == str(caller.uid)


async def test_nobody_registers_an_id_that_another_user_has_got_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def overtaken(services: Services, uid: int, request: ModelAdd, id_: str) -> ModelAdd:
        wanted = await under_id(services, uid, request, id_)
        await services.store.add(request.path, name="theirs", known_as=id_, requester=Requester(peer=ANOTHER.uid))
        return wanted

    monkeypatch.setattr("modeld.operations.model_add.under_id", overtaken)
    monkeypatch.setattr(Access, "is_admin", _nobody_is)
    async with operations_rig(tmp_path, AccessSettings()) as at:
        with pytest.raises(PermissionDenied, match="is the id of 'theirs'"):
            await register(at)
        assert os.listdir(at.services.store.layout.manifests_dir) == ["theirs.json"]


async def _nobody_is(_: Access, _uid: int) -> bool:
    return False


async def test_two_files_at_once_do_not_both_get_an_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def overtaken(services: Services, uid: int, request: ModelAdd, id_: str) -> ModelAdd:
        wanted = await under_id(services, uid, request, id_)
        await services.store.add(request.path, name="first", known_as=id_, requester=Requester(peer=uid))
        return wanted

    monkeypatch.setattr("modeld.operations.model_add.under_id", overtaken)
    async with operations_rig(tmp_path) as at:
        with pytest.raises(AlreadyExists, match=f"'{ID}' is the id of 'first' already"):
            await register(at, name="second")
        assert os.listdir(at.services.store.layout.manifests_dir) == ["first.json"]


async def test_two_models_with_one_id(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        await register(at)
        theirs = Requester(peer=ANOTHER.uid)
        await at.services.store.add(at.file("t.gguf", CONTENT + b"2"), name="theirs", known_as=ID, requester=theirs)
        assert (await path_of(at, ID), await path_of(at, ID, ANOTHER)) == ("m", "theirs")
        with pytest.raises(InvalidRequest, match="is the id of 2 models: m, theirs") as fault:
            await path_of(at, ID, ADMIN)
        assert fault.value.details == {"id": ID, "close": ["m", "theirs"]}
        with pytest.raises(InvalidRequest, match="is the id of 2 models"):
            await at.ask(ModelRemove(name=ID), ADMIN)
        rewrite(at, "theirs", owner_uid=MINE.uid)
        with pytest.raises(InvalidRequest, match="is the id of 2 models: m, theirs"):
            await path_of(at, ID)
        with pytest.raises(InvalidRequest, match="is the id of 2 models"):
            await register(at)


async def test_two_models_of_the_same_files_with_one_id(tmp_path: Path) -> None:
    """As after two users have provisioned the same reference."""
    async with operations_rig(tmp_path) as at:
        await register(at)
        theirs = Requester(peer=ANOTHER.uid)
        await at.services.store.add(at.file("t.gguf", CONTENT), name="theirs", known_as=ID, requester=theirs)
        assert (await path_of(at, ID), await path_of(at, ID, ANOTHER)) == ("m", "theirs")
        assert await path_of(at, ID, ADMIN) in ("m", "theirs")
        with pytest.raises(InvalidRequest, match="is the id of 2 models: m, theirs"):
            await at.ask(ModelRemove(name=ID), ADMIN)


async def test_a_path_that_is_gone_is_no_id_of_another_user(tmp_path: Path) -> None:
    """Else a user who registers the paths of others gives them bytes when a file is away."""
    async with operations_rig(tmp_path, AccessSettings()) as at:
        path, theirs = at.file("m.gguf"), Requester(peer=ANOTHER.uid)
        await at.services.store.add(path, name="theirs", known_as=f"local:{path}", requester=theirs)
        os.unlink(path)
        for request in (ModelPull(ref=path), ModelPull(ref=f"local:{path}"), ModelProvision(ref=path)):
            for caller in (MINE, ADMIN):
                with pytest.raises(SourceNotFound, match="is not there"):
                    await at.ask(request, caller)
        await at.services.store.add(
            at.file("o.gguf"), name="own", known_as=f"local:{path}", requester=Requester(peer=MINE.uid)
        )
        assert (await at.ask(ModelPull(ref=path))).name == "own"


async def test_an_id_of_own_models_alone(tmp_path: Path) -> None:
    async with operations_rig(tmp_path, AccessSettings()) as at:
        theirs = Requester(peer=ANOTHER.uid)
        await at.services.store.add(at.file("t.gguf"), name="theirs", known_as=ID, requester=theirs)
        assert await name_of(at.services, ANOTHER.uid, ID, own=True) == "theirs"
        assert await name_of(at.services, MINE.uid, ID) == "theirs"
        for caller in (MINE, ADMIN):
            with pytest.raises(InvalidName) as fault:
                await name_of(at.services, caller.uid, ID, own=True)
            assert "No model of yours is known by it as an id either." in (fault.value.hint or "")
        assert await name_of(at.services, MINE.uid, "theirs", own=True) == "theirs"


async def test_the_path_of_another_user_is_never_an_id(tmp_path: Path) -> None:
    async with operations_rig(tmp_path, AccessSettings()) as at:
        path = at.file("m.gguf", CONTENT)
        await register(at, f"local:{path}", path=path)
        os.unlink(path)
        assert await path_of(at, f"local:{path}", ANOTHER) == "m", "as a name it is one"
        with pytest.raises(PermissionDenied):
            await at.ask(ModelPull(ref=f"local:{path}"), ANOTHER)
