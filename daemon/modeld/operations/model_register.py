"""model.register: makes a model known before its bytes are here."""

from __future__ import annotations

from functools import partial

from modeld.operations.arriving import check_not_coming
from modeld.operations.operation import Call, SlowOperation
from modeld.operations.registered import check_address
from modeld.store.publish.registering import name_to_register
from modelwire.knowledge.document import document_in
from modelwire.requests import ModelRegister
from modelwire.values import Registered


class Register(SlowOperation[ModelRegister, Registered]):
    request, value = ModelRegister, Registered

    async def run(self, call: Call, request: ModelRegister, /) -> Registered:
        services = self._services
        document = document_in(request.manifest, "$.manifest")
        name = name_to_register(document, request.name)
        check_address(services, document, "$.manifest")
        requester = await services.requester(call.caller.uid)
        check = partial(check_not_coming, services.board, name, call.caller.uid)
        registered = await services.store.registering.register(name, request.manifest, requester, check)
        if registered.changed:
            services.activity.record("model.registered", model=registered.name, peer=call.caller.uid)
        return registered
