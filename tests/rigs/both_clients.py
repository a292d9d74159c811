"""The async client with the face of the blocking one, so that one contract suite runs against both.

Only the waiting is translated: each call runs in the client's event loop, in a thread of anyio's portal.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from anyio.from_thread import BlockingPortal, start_blocking_portal

import modelclient

EXCHANGES = (
    *("add", "pull", "provision", "register_file", "update", "attach", "subscribe", "copy", "move", "remove"),
    *("pin", "unpin", "verify", "verify_signature", "repair", "sweep", "scrub", "move_store"),
)

Calls = Any
"""A `modelclient.Client`, or the other one behind `_Facade`."""


@contextmanager
def open_blocking(path: str, **options: Any) -> Iterator[Calls]:
    with modelclient.Client(path, **options) as client:
        yield client


@contextmanager
def open_async(path: str, **options: Any) -> Iterator[Calls]:
    with ExitStack() as stack:
        portal = stack.enter_context(start_blocking_portal("asyncio"))
        client = stack.enter_context(portal.wrap_async_context_manager(modelclient.connect(path, **options)))
        yield _Facade(portal, client)


class _Facade:
    def __init__(self, portal: BlockingPortal, client: modelclient.AsyncClient) -> None:
        self._portal = portal
        self._client = client

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if name in ("hello", "endpoint", "timeout"):
            return found
        if name == "lease":
            return lambda *args, **named: self._portal.wrap_async_context_manager(found(*args, **named))
        if name in EXCHANGES:
            return lambda *args, **named: _Exchange(self._portal, found(*args, **named))
        return lambda *args, **named: self._portal.call(lambda: found(*args, **named))


class _Exchange:
    """The blocking one is on its way when it is made; so is this."""

    def __init__(self, portal: BlockingPortal, exchange: Any) -> None:
        self._portal = portal
        self._exchange = exchange
        portal.call(exchange.__aenter__)

    @property
    def job(self) -> str | None:
        return self._exchange.job  # type: ignore[no-any-return]

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        try:
            return self._portal.call(self._exchange.__anext__)
        except StopAsyncIteration:
            raise StopIteration from None

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._exchange, name)
        if name == "detach":
            return lambda: self._portal.call(_plain, found)
        return lambda *args, **named: self._portal.call(lambda: found(*args, **named))

    def close(self) -> None:
        self._portal.call(self._exchange.aclose)

    def __enter__(self) -> _Exchange:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


async def _plain(call: Any) -> Any:
    return call()
