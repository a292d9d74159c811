"""model.updates and model.refuse_load: the update commands of this machine, and the word of an engine about one."""

from __future__ import annotations

from modeld.operations.model_update import UpdateModel
from modeld.operations.operation import Call, Caller, QuickOperation, SlowOperation
from modelwire.limits import MAX_REPLY
from modelwire.requests import ModelUpdates, RefuseLoad
from modelwire.values import Done, PendingUpdate, Updates

_MOST = 1000
"""Outcomes in one answer: they have about a kilobyte each."""


class ListUpdates(SlowOperation[ModelUpdates, Updates]):
    request, value = ModelUpdates, Updates

    async def run(self, _: Call, request: ModelUpdates, /) -> Updates:
        services, node = self._services, self._services.settings.node
        pending = [
            PendingUpdate(
                command_id=update.command.command_id, name=update.name.text, version=update.version.text, job=job.id
            )
            for job in services.board.jobs
            if isinstance(job.kind, UpdateModel) and not job.terminal and (update := job.kind.read(job.request))
        ]
        return Updates(
            node=node.name,
            labels=node.labels,
            pending=tuple(pending),
            updates=await services.store.updates.newest(min(request.limit, _MOST), MAX_REPLY // 2),
        )


class Refuse(QuickOperation[RefuseLoad, Done]):
    request, value = RefuseLoad, Done

    def answer(self, caller: Caller, request: RefuseLoad, /) -> Done:
        self._services.loading.refuse(caller.uid, request.command_id, request.reason)
        return Done(target=request.command_id, state="refused")
