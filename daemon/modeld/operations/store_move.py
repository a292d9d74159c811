"""store.move: moves the whole store to another directory while it serves, and drops the one that it was in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import anyio

from modeld.jobs.board import Attachment
from modeld.jobs.job import AnyJob, Job
from modeld.operations.job_operation import JobOperation, Submission
from modeld.operations.model_add import check_path
from modeld.operations.operation import Call, Caller
from modeld.operations.services import Services
from modeld.progress import check
from modeld.store.disk.durable import source_faults
from modelwire.errors import InvalidRequest, PermissionDenied
from modelwire.requests import StoreMove
from modelwire.values import MoveView, Relocated

_LOOK_SECONDS: Final = 1.0
"""Between two looks at the jobs that are waited for: one may end without a signal to this one."""


class MoveStore(JobOperation[StoreMove, Relocated]):
    request, value = StoreMove, Relocated
    always_resumable = True

    def check(self, caller: Caller, request: StoreMove, /) -> Submission[StoreMove]:
        if (request.path is None) != request.drop_old:
            raise InvalidRequest(
                "$.path: it is the directory to move to, and `drop_old` removes the one of before",
                hint="Give one of the two.",
            )
        if request.path is not None:
            check_path("path", request.path)
        return Submission(request, self.key(request.path, caller.uid), None)

    async def submit(self, call: Call, request: StoreMove, /) -> Attachment[StoreMove, Relocated]:
        """The daemon makes a directory at a path only for users who have its own rights there."""
        self.check(call.caller, request)
        with source_faults(request.path or ""):
            opened = await call.handed.may_name_paths()
        if not opened:
            raise PermissionDenied(
                f"uid {call.caller.uid} cannot move the store: only the daemon's own user and root can, where these see"
                " the same files as the daemon does",
                hint="Run it as that user, on the same machine and outside of a container.",
                details={"uid": call.caller.uid},
            )
        if request.drop_old:
            self._services.store.mover.check_idle()
        return await super().submit(call, request)

    def took_place(self, request: StoreMove, intent: Relocated, /) -> bool:
        return not request.drop_old and self._services.store.mover.took_place(intent.path)

    async def work(self, job: Job[StoreMove, Relocated], /) -> Relocated:
        mover, path = self._services.store.mover, job.request.path
        if path is None:
            return await mover.drop(job.progress)
        return await mover.move(
            path,
            accepted_at=job.created_at,
            alone=partial(self._alone, job),
            order=job.order,
            progress=job.progress,
            notes=self.notes(job),
        )

    @asynccontextmanager
    async def _alone(self, job: AnyJob) -> AsyncIterator[None]:
        """While no other job runs: those that go on later where they were give way, the others are waited for."""
        board = self._services.board
        gate, runner = board.runner.gate, board.runner
        try:
            while others := [other for id_ in gate.leave_alone(job.id) if (other := board.jobs.get(id_)) is not None]:
                check(job.progress)
                for other in others:
                    if other.resumable:
                        runner.put_back(other, "the store moves to another directory")
                with anyio.move_on_after(_LOOK_SECONDS):
                    await others[0].changed.wait()
            yield
        finally:
            runner.settle(gate.leave_together())


def move_view(services: Services) -> MoveView | None:
    """None when the store does not move, and has not moved."""
    moves = [job for job in services.board.jobs if isinstance(job.kind, MoveStore) and job.request.path is not None]
    job = next((job for job in moves if job.state in ("running", "paused")), None)
    former = services.store.mover.former
    if job is None:
        return MoveView(former=former) if former else None
    now = job.progress.snapshot()
    return MoveView(
        job=job.id,
        path=job.request.path,
        paused=job.state == "paused",
        bytes_done=now.bytes_done,
        bytes_total=now.bytes_total,
        former=former,
    )
