"""The async client."""

from __future__ import annotations

import anyio

from modelclient.async_connection import AsyncConnection
from modelclient.async_exchange import AsyncExchange, AsyncWork
from modelclient.calls import Call, T
from modelclient.methods import AsyncCaller, Seen
from modelclient.operations import Operations
from modelwire.replies import Accepted, Event, Lagged, Progress, Reply


class AsyncClient(Operations, AsyncCaller, AsyncConnection):
    """The daemon at `socket`, or at the user's endpoint; started when there is none, unless `start` is false.

        async with modelclient.connect() as client:
            added = await client.add("/srv/llama.gguf", name="llama:8b")

    `async with` opens the connection and closes it; any number of tasks may share it. `timeout` bounds each plain
    answer; work (`add`, `attach`) and subscriptions take the time they take.
    """

    async def call(self, call: Call[T]) -> T:
        """One request, one answer."""
        exchange: AsyncExchange[Reply, T] = AsyncExchange(self, call, ())
        try:
            await exchange._opened()  # sending has a bound of its own
            return await exchange._outcome(self.timeout)
        finally:
            exchange.detach()

    async def _call_at_end(self, call: Call[T]) -> None:
        with anyio.CancelScope(shield=True):
            await self.call(call)

    def _work(self, call: Call[T]) -> AsyncWork[T]:
        return AsyncWork(self, call, (Accepted, Progress))

    def _events(self, call: Call[T]) -> AsyncExchange[Seen, T]:
        return AsyncExchange(self, call, (Event, Progress, Lagged))


connect = AsyncClient
"""How a program makes one."""
