"""One method for both clients: the same parameters on each, and types that a checker sees.

`types_of` is not run. `mypy` checks it with the rest of the tests: a wrong type is an error there, and so is a wrong
call that would be let through, for its `type: ignore` would be unused.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, assert_type

import pytest

from modelclient import AsyncClient, AsyncExchange, AsyncWork, Client, Exchange, Work
from modelclient.methods import Operation, Seen
from modelclient.operations import Operations
from modelwire import values
from modelwire.replies import Accepted, Progress
from rigs.scripted_peer import ScriptedPeer, good

NAMES = sorted(
    name for kind in Operations.__mro__ for name, value in vars(kind).items() if isinstance(value, Operation)
)


async def types_of(client: Client, awaited: AsyncClient) -> None:
    assert_type(client.status(), values.Status)
    assert_type(await awaited.status(), values.Status)
    assert_type(client.resolve("a", file="b"), values.Resolved)
    assert_type(await awaited.resolve("a", "b"), values.Resolved)
    assert_type(client.lease("a", purpose="b"), AbstractContextManager[values.Leased])
    assert_type(awaited.lease("a"), AbstractAsyncContextManager[values.Leased])
    assert_type(client.jobs(state="done"), tuple[values.JobView, ...])
    assert_type(await awaited.jobs(limit=5), tuple[values.JobView, ...])
    assert_type(await awaited.list_models(sort="name"), values.ModelList)
    assert_type(client.add("/x", name="n", move=True, priority=1), Work[values.Added])
    assert_type(awaited.add("/x", name="n", move=True, priority=1), AsyncWork[values.Added])
    assert_type(client.verify("a", "b", on_disconnect="continue").result(), values.Verification)
    assert_type(await awaited.verify("a", "b", token="t"), values.Verification)
    assert_type(client.verify_signature("a", "{}", key="PEM").result(), values.SignatureVerified)
    assert_type(client.repair("a", from_path="/x").result(), values.Repaired)
    assert_type(await awaited.repair(priority=1), values.Repaired)
    assert_type(client.subscribe(since=3), Exchange[Seen, values.EventsEnd])
    assert_type(awaited.subscribe(since=3), AsyncExchange[Seen, values.EventsEnd])
    assert_type(Client.show(client, "a"), values.ModelView)
    assert_type(client.fit("a", vram_mb=8192), values.FitView)
    assert_type(client.ensure_present("a", None, False), values.Provisioned)
    assert_type(await awaited.ensure_present("a", strict=False), values.Provisioned)
    for item in client.add("/x"):
        assert_type(item, Accepted | Progress)
    async for seen in awaited.subscribe():
        assert_type(seen, Seen)

    client.resolve()  # type: ignore[call-arg]
    client.resolve(5)  # type: ignore[arg-type]
    await awaited.resolve("a", files="b")  # type: ignore[call-arg]
    client.add("/x", True)  # type: ignore[call-arg]
    client.add("/x", priority="high")  # type: ignore[arg-type]
    awaited.add("/x", on_disconnect="stay")  # type: ignore[arg-type]
    client.copy("a", "b", dryrun=True)  # type: ignore[call-arg]
    await awaited.jobs(state="asleep")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_both_clients_take_the_same(name: str) -> None:
    blocking, awaited = getattr(Client, name), getattr(AsyncClient, name)
    assert inspect.signature(blocking) == inspect.signature(awaited)
    assert blocking.__doc__ == awaited.__doc__
    assert (blocking.__name__, awaited.__name__) == (name, name)


def test_what_is_awaited_is_a_coroutine_function() -> None:
    """Doubles that are made of the class rely on it."""
    awaited = {name for name in NAMES if inspect.iscoroutinefunction(getattr(AsyncClient, name))}
    assert {"show", "list_models", "jobs"} <= awaited
    assert not {"add", "pull", "attach", "subscribe"} & awaited
    assert not any(inspect.iscoroutinefunction(getattr(Client, name)) for name in NAMES)


def test_an_option_that_does_not_exist_is_refused(
    peer: Callable[..., ScriptedPeer], open_client: Callable[..., Any]
) -> None:
    made = peer(good)
    with open_client(made.path) as client:
        with pytest.raises(TypeError):
            client.add("/x", prioritise=1)
    assert made.requests == []
