"""The blocking client."""

from __future__ import annotations

from modelclient.calls import Call, T
from modelclient.connection import Connection
from modelclient.exchange import Exchange, Work
from modelclient.methods import BlockingCaller, Seen
from modelclient.operations import Operations
from modelwire.replies import Accepted, Event, Lagged, Progress, Reply


class Client(Operations, BlockingCaller, Connection):
    """Connects when it is made. A context manager: its end closes the connection.

    One thread at a time may use it, with any number of requests in flight. `timeout` bounds each plain answer; work
    (`add`, `attach`) and subscriptions take the time they take.
    """

    def call(self, call: Call[T]) -> T:
        """One request, one answer."""
        exchange: Exchange[Reply, T] = Exchange(self, call, ())
        try:
            return exchange.result(self.timeout)
        finally:
            exchange.detach()

    def _work(self, call: Call[T]) -> Work[T]:
        return Work(self, call, (Accepted, Progress))

    def _events(self, call: Call[T]) -> Exchange[Seen, T]:
        return Exchange(self, call, (Event, Progress, Lagged))
