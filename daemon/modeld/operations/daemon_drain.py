"""daemon.drain: stops the daemon once its running jobs have ended, or at a deadline."""

from __future__ import annotations

import math

from modeld.operations.daemon_status import queue_view
from modeld.operations.operation import Caller, QuickOperation
from modelwire.errors import InvalidRequest
from modelwire.requests import DaemonDrain
from modelwire.values import Drained

_LONGEST_DEADLINE = 3600.0


class Drain(QuickOperation[DaemonDrain, Drained]):
    request, value = DaemonDrain, Drained

    def answer(self, _: Caller, request: DaemonDrain, /) -> Drained:
        wanted = request.deadline_s
        if wanted is not None and not (math.isfinite(wanted) and 0 <= wanted <= _LONGEST_DEADLINE):
            raise InvalidRequest(
                f"$.deadline_s: {wanted} is not between 0 and {_LONGEST_DEADLINE:g}",
                hint="Leave it out for the configured deadline.",
            )
        queue = queue_view(self._services)
        parked = sum(job.state == "running" and job.resumable for job in self._services.board.jobs)
        return Drained(
            running=queue.running - parked, waiting=queue.waiting + parked, deadline_s=self._services.drain(wanted)
        )
