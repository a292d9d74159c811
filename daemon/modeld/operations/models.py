"""model.*: adding, listing, showing and resolving models."""

from __future__ import annotations

import os

import msgspec

from modeld.jobs.job import Job
from modeld.operations.calling import Call, Caller, Handlers, TakesTime
from modeld.operations.house import House
from modeld.operations.working import PublicationNotes, as_job, refusals_kept
from modeld.store import Asker, Digest, ModelName, OwnReader, PeerReader, Reader, Unproven
from modelwire import limits, requests
from modelwire.errors import InvalidRequest
from modelwire.values import Added, ModelList, ModelView, Resolved

_PAGE = 200
"""Models of one answer: 1000 would keep the event loop for 6 to 15 ms; the client asks for the next page."""

_PAGE_BYTES = limits.MAX_REPLY // 2
"""Of one answer's models, by an estimate that is rather too high. The other half is for what else the answer tells."""

_LONGEST_PATH = 4095
"""As much as the kernel takes. What is refused here is stored nowhere; later it would be in the ledger and the log."""

_LONGEST_LICENSE = 1024
"""A name or an address of a license. It is part of every list of models, so it is no place for the license itself."""


def handlers(house: House) -> Handlers:
    async def add(call: Call, request: requests.ModelAdd) -> Added:
        request = _checked(request)
        return await as_job(house, call, request, _key(request, call.caller), request.name, Added)

    async def add_work(job: Job) -> Added:
        request = msgspec.convert(job.request, requests.ModelAdd, from_attributes=True)
        async with refusals_kept(house, job, request.path):
            added: Added = await house.store.add(
                request.path,
                name=request.name,
                sha256=request.sha256,
                replace=request.replace,
                license=request.license,
                how="move" if request.move else "link" if request.link else "copy",
                order=job.order,
                observer=job.meter,
                reader=await reader_for(house, job.peer),
                notes=PublicationNotes(house, job),
                asker=Asker(peer=job.peer, job=job.id),
            )
        return added

    def add_took_place(job: Job) -> bool:
        """Its content alone does not tell: the name may have stood for it before, and the job was to change what is
        said about it."""
        intent = job.intent
        if not isinstance(intent, Added) or not house.store.published(intent):
            return False
        request = job.request
        if not isinstance(request, requests.ModelAdd):
            return True
        if request.move and os.path.lexists(request.path):
            return False  # the source was to go: asked again, the work finds its bytes and takes it away
        return house.store.show(intent.name).license == request.license

    async def list_models(call: Call, request: requests.ModelList) -> ModelList:
        await call.until_writable()
        limit = min(request.limit or _PAGE, _PAGE)
        return _cut_to_size(
            await house.store.care.select(request.filter, request.sort, after=request.after, limit=limit)
        )

    async def show(_: Call, request: requests.ModelShow) -> ModelView:
        return await house.store.care.show(request.name)

    def resolve(_: Caller, request: requests.ModelResolve) -> Resolved:
        try:
            return house.store.resolve(request.name, request.file)
        except Unproven:
            raise TakesTime from None

    async def resolve_slowly(call: Call, request: requests.ModelResolve) -> Resolved:
        def failed(name: str, digest: Digest, reason: str) -> None:
            house.activity.record("model.failed", model=name, digest=digest.text, message=reason)

        asker = Asker(peer=call.caller.uid)
        return await house.store.proven(request.name, request.file, asker=asker, failed=failed)

    house.board.runner.register("model.add", add_work, add_took_place)
    return Handlers(
        quick={requests.ModelResolve: resolve},
        long={
            requests.ModelAdd: add,
            requests.ModelList: list_models,
            requests.ModelShow: show,
            requests.ModelResolve: resolve_slowly,
        },
        looks=frozenset({requests.ModelList, requests.ModelShow}),
    )


def _checked(request: requests.ModelAdd) -> requests.ModelAdd:
    """What can be refused without looking at the disk is refused before anything is queued."""
    _bounded("path", request.path, _LONGEST_PATH, "no file has a longer one")
    _bounded("license", request.license, _LONGEST_LICENSE, "give the license's name or address, not its text")
    if not os.path.isabs(request.path) or "\0" in request.path:
        raise InvalidRequest(
            f"$.path: {request.path!r} is not an absolute path",
            hint="the daemon has another working directory than you: give the whole path",
        )
    name = ModelName.parse(request.name) if request.name is not None else ModelName.suggest(request.path)
    if request.sha256 is not None:
        Digest.parse(request.sha256)
    if request.move and request.link:
        raise InvalidRequest(
            "$.link: a file is either moved or linked", hint="a move takes the source away, a link keeps it"
        )
    return msgspec.structs.replace(request, name=name.text)


def _bounded(field: str, text: str | None, longest: int, hint: str) -> None:
    if text is not None and (length := len(text.encode())) > longest:
        raise InvalidRequest(f"$.{field}: it has {length} bytes, {longest} are allowed", hint=hint)


def _cut_to_size(page: ModelList) -> ModelList:
    """As many of the models as fit into one reply, and always one: other tools write manifests of up to 1 MiB."""
    room = _PAGE_BYTES
    for number, view in enumerate(page.models):
        room -= _bytes_of(view)
        if room < 0 and number:
            return msgspec.structs.replace(page, models=page.models[:number], next=page.models[number - 1].name)
    return page


def _bytes_of(view: ModelView) -> int:
    """At most, as JSON: an escaped character takes six bytes."""
    told = len(view.license or "") + len(view.format) + len(view.produced_by or "") + len(view.produced_at or "")
    if view.source is not None:
        source = view.source
        told += len(source.registry) + len(source.repo) + len(source.revision) + len(source.filename)
    for file in view.files:
        told += 100 + len(file.path) + len(file.role or "")
    return 1000 + 6 * told


def _key(request: requests.ModelAdd, caller: Caller) -> str:
    """Equal for requests that ask for the same outcome. The asker is part of it: rights to the file may differ."""
    how = [request.move, request.link]
    parts = [request.path, request.name, request.sha256, request.replace, request.license, caller.uid, *how]
    return "model.add " + msgspec.json.encode(parts).decode()


async def reader_for(house: House, uid: int) -> Reader:
    """The daemon opens with its own rights; for another user it opens only what that user could read."""
    if uid in (house.own_uid, 0):
        return OwnReader(uid)
    return PeerReader(uid, (await house.accounts.account_of(uid)).groups)
