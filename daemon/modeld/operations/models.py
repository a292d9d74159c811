"""model.*: adding, listing, showing and resolving models."""

from __future__ import annotations

import os
from collections.abc import Callable

import msgspec

from modeld.jobs.job import Job
from modeld.operations.calling import Call, Caller, Handlers
from modeld.operations.following import follow
from modeld.operations.house import House
from modeld.store import Digest, ModelName, open_source, open_source_as
from modelwire import requests
from modelwire.errors import InvalidRequest
from modelwire.values import Added, ModelList, ModelView, Resolved

_PAGE = 200
"""Models of one answer: 1000 would keep the event loop for 6 to 15 ms; the client asks for the next page."""


def handlers(house: House) -> Handlers:
    async def add(call: Call, request: requests.ModelAdd) -> Added:
        request = _checked(request)
        attachment = await house.board.submit(
            request, kind="model.add", key=_key(request, call.caller), model=request.name, peer=call.caller.uid
        )
        job = await follow(call, attachment)
        if job.failure is not None:
            raise job.failure
        return msgspec.convert(job.value, Added, from_attributes=True)

    async def add_work(job: Job) -> Added:
        request = msgspec.convert(job.request, requests.ModelAdd, from_attributes=True)
        return await house.store.add_file(
            request.path,
            name=request.name,
            sha256=request.sha256,
            replace=request.replace,
            license=request.license,
            order=job.order,
            observer=job.meter,
            opener=_opener(house, job.peer),
            notes=PublicationNotes(house, job),
        )

    def list_models(_: Caller, request: requests.ModelList) -> ModelList:
        return house.store.page(after=request.after, limit=min(request.limit or _PAGE, _PAGE))

    def show(_: Caller, request: requests.ModelShow) -> ModelView:
        return house.store.show(request.name)

    def resolve(_: Caller, request: requests.ModelResolve) -> Resolved:
        return house.store.resolve(request.name)

    house.board.runner.register("model.add", add_work)
    return Handlers(
        quick={requests.ModelList: list_models, requests.ModelShow: show, requests.ModelResolve: resolve},
        long={requests.ModelAdd: add},
    )


class PublicationNotes:
    """Ties a publication to its job: see `Runner.about_to_publish`."""

    def __init__(self, house: House, job: Job) -> None:
        self._runner = house.board.runner
        self._job = job

    async def about_to_publish(self, added: Added) -> None:
        await self._runner.about_to_publish(self._job, added)

    async def published(self, added: Added) -> None:
        await self._runner.published(self._job, added)


def _checked(request: requests.ModelAdd) -> requests.ModelAdd:
    """What can be refused without looking at the disk is refused before anything is queued."""
    if not os.path.isabs(request.path) or "\0" in request.path:
        raise InvalidRequest(
            f"$.path: {request.path!r} is not an absolute path",
            hint="the daemon has another working directory than you: give the whole path",
        )
    name = ModelName.parse(request.name) if request.name is not None else ModelName.suggest(request.path)
    if request.sha256 is not None:
        Digest.parse(request.sha256)
    return msgspec.structs.replace(request, name=name.text)


def _key(request: requests.ModelAdd, caller: Caller) -> str:
    """Equal for requests that ask for the same outcome. The asker is part of it: rights to the file may differ."""
    parts = [request.path, request.name, request.sha256, request.replace, request.license, caller.uid]
    return "model.add " + msgspec.json.encode(parts).decode()


def _opener(house: House, uid: int) -> Callable[[str], int]:
    """The daemon opens with its own rights; for another user it opens only what that user could read."""
    if uid in (house.own_uid, 0):
        return open_source
    return lambda path: open_source_as(path, uid=uid, gids=house.accounts.groups_of(uid))
