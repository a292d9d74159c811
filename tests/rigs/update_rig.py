"""Update commands on a daemon in this process, and the engines that load what they bring."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec

from modeld.operations import loading
from modeld.operations.events_subscribe import Subscribe
from modeld.operations.operation import Caller
from modelwire.requests import (
    EventsSubscribe,
    ModelShow,
    ModelUpdate,
    ModelUpdates,
)
from modelwire.values import ModelView, Updated, Updates
from rigs.operations_rig import MINE, NotingCall, OperationsRig, operations_rig
from rigs.scripted_server import Asked, Reply, Server, file_reply
from rigs.update_commands import content
from rigs.waiting import eventually

VERSIONS = ("1.0", "2.0", "3.0")


def route(asked: Asked) -> Reply:
    version = asked.path.removeprefix("/m-").removesuffix(".gguf")
    return file_reply(asked, content(version)) if version in VERSIONS else Reply(404)


def address(web: Server, version: str) -> dict[str, Any]:
    return {"download_url": f"{web.url}/m-{version}.gguf"}


@asynccontextmanager
async def running(room: Path) -> AsyncIterator[OperationsRig]:
    """A daemon that has been there for long: no engine is on its way back to it."""
    async with operations_rig(room) as at:
        at.services.daemon.began -= 60
        yield at


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
