"""What an exchange makes of the replies to its request, without a connection."""

from __future__ import annotations

from typing import cast

import pytest

from modelclient.calls import Call
from modelclient.exchange_state import ExchangeState
from modelclient.inbox import Inbox
from modelwire.errors import ConnectionLost, ModeldError
from modelwire.replies import Progress, Received
from modelwire.requests import EventsSubscribe, JobAttach, Request
from modelwire.values import Counters, EventsEnd


class InboxDouble:
    """One report of progress; then the connection is gone."""

    def __init__(self) -> None:
        self._left: list[Received] = [Progress.of("1", "j1", Counters())]

    def take(self) -> Received:
        if not self._left:
            raise ConnectionLost("the daemon went away", hint="Start again.")
        return self._left.pop()


@pytest.mark.parametrize(("request_", "names_job"), [(JobAttach(job="j1"), True), (EventsSubscribe(), False)])
def test_a_lost_connection_leads_to_the_job_of_the_request_alone(request_: Request, names_job: bool) -> None:
    """A subscription gets the progress of all jobs; none of them is what became of it."""
    state = ExchangeState(Call(request_, EventsEnd), (Progress,))
    state.inbox = cast("Inbox", InboxDouble())
    while not state.over:
        state.poll()
    with pytest.raises(ModeldError) as lost:
        state.value()
    assert ("modelctl job j1" in (lost.value.hint or "")) is names_job
