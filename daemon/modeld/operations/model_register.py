"""model.register: makes a model known before its bytes are here."""

from __future__ import annotations

from functools import partial

from modeld.operations.arriving import check_not_coming
from modeld.operations.operation import Call, SlowOperation
from modeld.operations.services import Services
from modeld.sources.stored import StoredReference
from modeld.store.publish.registering import document_to_register, name_to_register
from modelwire.errors import InvalidRequest
from modelwire.knowledge.document import ModelDocument
from modelwire.requests import ModelRegister
from modelwire.values import Registered


class Register(SlowOperation[ModelRegister, Registered]):
    request, value = ModelRegister, Registered

    async def run(self, call: Call, request: ModelRegister, /) -> Registered:
        services = self._services
        document = document_to_register(request.manifest)
        name = name_to_register(document, request.name)
        _check_address(services, document)
        requester = await services.requester(call.caller.uid)
        check = partial(check_not_coming, services.board, name, call.caller.uid)
        registered = await services.store.registering.register(name, request.manifest, requester, check)
        if registered.changed:
            services.activity.record("model.registered", model=registered.name, peer=call.caller.uid)
        return registered


def _check_address(services: Services, document: ModelDocument) -> None:
    """The address is written into manifests, which everybody reads."""
    if not document.download_url:
        return
    reference = services.pulls.sources.read(document.download_url)
    if reference.secrets:
        raise InvalidRequest(
            "$.manifest.download_url holds a password or a signed query, and the document is for everybody to read",
            hint="Leave them out; give them to the pull with --credentials-file.",
        )
    if isinstance(reference, StoredReference):
        raise InvalidRequest(
            f"$.manifest.download_url: '{reference.text}' is a name in the store, and no place to fetch bytes from",
            hint="Write an address such as https://host/file or hf:org/repo/file.",
        )
