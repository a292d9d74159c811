"""One request of the async client and its replies: awaitable, iterable, a context manager."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator
from contextlib import closing, suppress
from functools import partial
from types import TracebackType
from typing import Any, Generic, Self

import anyio
import anyio.lowlevel
from anyio import to_thread

from modelclient.async_connection import AsyncConnection, Mailbox
from modelclient.calls import Call, T
from modelclient.exchange_state import ExchangeState, Item, keeping
from modelclient.local_files import HandOver
from modelwire.errors import ModeldError
from modelwire.replies import Accepted, Progress
from modelwire.requests import Cancel

CANCEL_SECONDS = 5.0
"""A cancel is a hundred bytes. When the daemon does not even take these, closing the connection cancels as well."""


class AsyncExchange(Generic[Item, T]):
    """`await` it for the outcome alone; or `async with` it, iterate for what happens on the way, then `result()`.

    The request is sent at the first use. Leaving early cancels it, and so does the cancellation of a task that waits
    for it; after `detach()` the daemon goes on with it. `async with` covers the body of a loop over it too.
    """

    def __init__(self, connection: AsyncConnection, call: Call[T], items: tuple[type[Item], ...]) -> None:
        self._connection = connection
        self._state = ExchangeState(call, items)
        self._mailbox: Mailbox | None = None

    @property
    def job(self) -> str | None:
        """The job's id, as soon as a reply has named it."""
        return self._state.job

    @property
    def joined(self) -> bool:
        """Whether the job was there before this request, as far as a reply has told."""
        return self._state.joined

    def __await__(self) -> Generator[Any, None, T]:
        return self._all().__await__()

    async def __aenter__(self) -> Self:
        await self._opened()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> AsyncIterator[Item]:
        return self

    async def __anext__(self) -> Item:
        try:
            item = await self._next()
        except anyio.get_cancelled_exc_class():
            await self.aclose()
            raise
        if item is None:
            self._state.value()  # an error never passes in silence
            raise StopAsyncIteration
        return item

    async def result(self, timeout: float | None = None) -> T:
        """Waits for the terminal reply. `TimedOut` leaves the exchange as it is: it can be waited for again."""
        try:
            return await self._outcome(timeout)
        except anyio.get_cancelled_exc_class():
            await self.aclose()
            raise

    async def cancel(self) -> None:
        """Asks the daemon to end the request. The terminal reply still comes; this does not wait for it."""
        self._state.cancelled = True
        if self._mailbox is not None and not self._state.over:
            self._connection._forget((await self._connection._send(Cancel(target=self._mailbox.inbox.id))).inbox.id)

    def detach(self) -> None:
        """Leaves without cancelling: this side hears no more of it."""
        self._state.left = True
        if self._mailbox is not None:
            self._connection._forget(self._mailbox.inbox.id)

    async def aclose(self) -> None:
        """Cancels what is not finished. Also done when the caller itself is being cancelled: hence the shield."""
        if not self._state.over:
            # Without a connection the daemon has noticed by itself.
            with suppress(ModeldError), anyio.move_on_after(CANCEL_SECONDS, shield=True):
                await self.cancel()
            AsyncExchange.detach(self)

    async def _all(self) -> T:
        async with self:
            return await self.result()

    async def _outcome(self, timeout: float | None) -> T:
        try:
            with anyio.fail_after(timeout):
                while await self._next() is not None:
                    pass
        except TimeoutError:
            raise self._state.timed_out(timeout) from None
        return self._state.value()

    async def _opened(self) -> Mailbox:
        if self._mailbox is None:
            self._mailbox = await self._connection._send(self._state.request, self._state.descriptors)
            self._state.inbox = self._mailbox.inbox
        return self._mailbox

    async def _next(self) -> Item | None:
        if self._state.over:
            return None
        try:
            mailbox = await self._opened()
        except ModeldError as error:
            self._state.fail(error)
            return None
        await anyio.lowlevel.checkpoint_if_cancelled()  # also when there is no need to wait
        while (item := self._state.poll()) is None:
            if handed := self._state.refused_path(self._connection.hello):
                mailbox = await self._hand_over_files(handed) or mailbox
            elif not self._state.over:
                await mailbox.wait()
            else:
                break
        if item is None and (handed := self._state.succeeded()) and (fault := await to_thread.run_sync(handed.finish)):
            self._state.fail(fault)
        return item

    async def _hand_over_files(self, handed: HandOver) -> Mailbox | None:
        """The mailbox of the request that was sent again; None when this exchange has failed."""
        connection, state = self._connection, self._state
        try:
            with closing(handed.offers()) as offers:
                while (offer := await to_thread.run_sync(partial(next, offers, None))) is not None:
                    await AsyncExchange(connection, offer, ()).result(connection.timeout)
            self._mailbox = await connection._send(handed.request)
        except ModeldError as error:
            state.fail(error)
            return None
        state.inbox = self._mailbox.inbox
        if state.cancelled:
            await self.cancel()
        return self._mailbox


class AsyncWork(AsyncExchange[Accepted | Progress, T]):
    """A write, or an attachment to one: `Accepted` first and again with each new position, then progress, then the
    typed value."""

    async def accepted(self, timeout: float | None = None) -> Accepted | None:
        """Waits until the daemon has taken the work: the job's id and its position. None when it had ended by then."""
        try:
            with anyio.fail_after(timeout):
                while (item := await self._next()) is not None:
                    if isinstance(item, Accepted):
                        return item
        except TimeoutError:
            raise self._state.timed_out(timeout) from None
        except anyio.get_cancelled_exc_class():
            await self.aclose()
            raise
        self._state.value()
        return None

    def detach(self) -> None:
        """Leaves the job to the daemon, which goes on with it also when this client ends: a task of the client reports
        that to the daemon, and closing the client waits for it."""
        if self._mailbox is None or not self._state.ends_when_left:
            super().detach()
            return
        self._state.left = True
        self._connection._finish(partial(self._hand_over, self._mailbox))

    async def _hand_over(self, mailbox: Mailbox) -> None:
        connection, job = self._connection, self._state.job
        try:
            while job is None:
                if (reply := mailbox.inbox.take()) is None:
                    await mailbox.wait()
                elif isinstance(reply, Accepted):
                    job = reply.job
                elif reply.terminal:
                    handed = self._state.refused_path(connection.hello, reply)
                    again = None if handed is None else await self._hand_over_files(handed)
                    if again is None:
                        return  # it was refused
                    mailbox = again
            await AsyncExchange(connection, keeping(job), ()).result(connection.timeout)
        finally:
            connection._forget(mailbox.inbox.id)
