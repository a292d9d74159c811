"""No new model is found in place of another user's: `x` stands for `x:latest` until there is an `x`, and what is here
comes before what is registered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modeld.operations.operation import Caller
from modeld.store import Requester
from modelwire.errors import PermissionDenied
from modelwire.knowledge.document import built
from modelwire.requests import ModelCopy, ModelMove, ModelPull, ModelRegister, ModelShow
from rigs.operations_rig import ADMIN, ANOTHER, MINE, OperationsRig, operations_rig

CONTENT, OTHER = b"GGUF\3\0\0\0 the bytes of one", b"GGUF\3\0\0\0 the bytes of two"
DIGITS = sha256(CONTENT).hexdigest()

Bring = Callable[[OperationsRig, str, Caller], Awaitable[Any]]


async def register(at: OperationsRig, name: str, caller: Caller) -> Any:
    document = msgspec.to_builtins(built("m", "M", "llm"))
    return await at.ask(ModelRegister(manifest=document, name=name), caller)


async def add(at: OperationsRig, name: str, caller: Caller) -> Any:
    """The rig opens no paths for others than the daemon's user, who may change all models."""
    return await at.services.store.add(at.file("a.gguf", CONTENT), name=name, requester=Requester(peer=caller.uid))


async def pull(at: OperationsRig, name: str, caller: Caller) -> Any:
    """Of bytes that are here: the rig reaches no network for other users."""
    await at.services.store.add(at.file("s.gguf", CONTENT), name="bytes")
    request = ModelPull(ref="https://unused.example/a.gguf", name=name, sha256=DIGITS, offline=True)
    return await at.ask(request, caller)


async def copy(at: OperationsRig, name: str, caller: Caller) -> Any:
    await at.services.store.add(at.file("s.gguf", CONTENT), name="source", requester=Requester(peer=caller.uid))
    return await at.ask(ModelCopy(source="source", destination=name), caller)


async def move(at: OperationsRig, name: str, caller: Caller) -> Any:
    await at.services.store.add(at.file("s.gguf", CONTENT), name="source", requester=Requester(peer=caller.uid))
    return await at.ask(ModelMove(source="source", destination=name), caller)


BRINGS = [register, add, pull, copy, move]


async def present(at: OperationsRig, name: str, caller: Caller) -> Any:
    return await at.services.store.add(at.file("o.gguf", OTHER), name=name, requester=Requester(peer=caller.uid))


@pytest.mark.parametrize("bring", BRINGS)
@pytest.mark.parametrize(
    ("there", "known", "wanted"), [(register, "x:latest", "x"), (register, "x", "x:latest"), (present, "x:latest", "x")]
)
async def test_another_users_model_stays_what_its_name_means(
    tmp_path: Path, there: Bring, known: str, wanted: str, bring: Bring
) -> None:
    async with operations_rig(tmp_path) as at:
        await there(at, known, MINE)
        with pytest.raises(PermissionDenied, match=f"'{wanted}' cannot be the name of a new model") as fault:
            await bring(at, wanted, ANOTHER)
        assert fault.value.details == {"name": wanted, "existing": known, "owner": MINE.uid, "uid": ANOTHER.uid}
        assert fault.value.hint
        assert (await at.ask(ModelShow(name="x"))).name == known


@pytest.mark.parametrize("bring", BRINGS)
@pytest.mark.parametrize(
    ("known", "wanted"), [("x:latest", "x"), ("x", "x:latest"), ("x", "x:other"), ("x:other", "x")]
)
async def test_ones_own_and_other_tags_are_free(tmp_path: Path, known: str, wanted: str, bring: Bring) -> None:
    async with operations_rig(tmp_path) as at:
        await register(at, known, MINE if "other" in known + wanted else ANOTHER)
        await bring(at, wanted, ANOTHER)
        assert (await at.ask(ModelShow(name=wanted))).name == wanted


async def test_a_model_that_its_bare_name_finds_already_hides_none(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        await present(at, "x", MINE)
        await add(at, "x:latest", ANOTHER)
        assert (await at.ask(ModelShow(name="x"))).owner == MINE.uid


async def test_a_user_who_may_change_all_models_may_hide_one(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        await register(at, "x:latest", ANOTHER)
        await pull(at, "x", ADMIN)
        assert (await at.ask(ModelShow(name="x"))).name == "x"
