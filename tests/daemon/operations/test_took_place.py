"""What a restart asks of a job that was about to publish: whether that took place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from modeld.operations import (
    model_add,
    model_copy,
    model_move,
    model_pull,
    model_remove,
)
from modelwire import requests
from modelwire.errors import DigestMismatch
from modelwire.values import Copied, Moved, Removed
from rigs.operations_rig import OperationsRig, operations_rig

HEX = "a" * 64


async def added(at: OperationsRig, name: str, **fields: Any) -> tuple[requests.ModelAdd, Any]:
    request = requests.ModelAdd(path=at.file(f"{name}.gguf"), name=name, **fields)
    return request, await at.ask(request)


async def test_an_add_took_place_when_all_that_it_was_asked_for_is_so(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        add = at.of(model_add.Add)
        request, value = await added(at, "m", move=True, license="mit")
        assert add.took_place(request, value)
        at.file("m.gguf")
        assert not add.took_place(request, value), "its source is still there"
        os.unlink(request.path)
        other = requests.ModelAdd(path=request.path, name="m", license="apache-2.0")
        assert not add.took_place(other, value), "the model has another license"
        await at.ask(requests.ModelRemove(name="m"))
        assert not add.took_place(request, value)


async def test_a_pull_from_this_machine_is_an_add_that_took_place(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        request = requests.ModelPull(ref=at.file("m.gguf"), name="m")
        value = await at.ask(request)
        assert value.source
        pull = at.of(model_pull.Pull)
        assert pull.took_place(request, value)
        again = await at.ask(requests.ModelPull(ref="m"))
        assert (again.current, again.blob) == (True, value.blob)
        with pytest.raises(DigestMismatch):
            await at.ask(requests.ModelPull(ref="m", sha256=HEX))
        await at.ask(requests.ModelRemove(name="m"))
        assert not pull.took_place(request, value)


async def test_changes_of_names_took_place_when_the_names_say_so(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        await added(at, "a")
        copy, move, remove = at.of(model_copy.Copy), at.of(model_move.Move), at.of(model_remove.Remove)
        to_copy = requests.ModelCopy(source="a", destination="b")
        plan = await at.ask(requests.ModelCopy(source="a", destination="b", dry_run=True))
        assert isinstance(plan, Copied)
        assert plan.dry_run
        assert not copy.took_place(to_copy, plan)
        assert [job.kind.name for job in await at.services.board.recent(10, None)] == ["model.add"], "a plan is no job"
        copied = await at.ask(to_copy)
        assert copy.took_place(to_copy, copied)

        to_move = requests.ModelMove(source="b", destination="c")
        moved = await at.ask(to_move)
        assert isinstance(moved, Moved)
        assert move.took_place(to_move, moved)
        assert not copy.took_place(to_copy, copied), "its name went on"

        to_remove = requests.ModelRemove(name="c")
        removed = await at.ask(to_remove)
        assert isinstance(removed, Removed)
        assert remove.took_place(to_remove, removed)
        assert not move.took_place(to_move, moved)
