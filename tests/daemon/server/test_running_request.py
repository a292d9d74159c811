"""One request that takes time, over a connection that records its calls: one terminal reply, whatever happens."""

from __future__ import annotations

from typing import Any, cast

import anyio
import pytest
import structlog

from modeld.operations.operation import Caller
from modeld.server.faults import numbered
from modeld.server.running_request import ReplyChannel, RunningRequest
from modelwire import requests
from modelwire.errors import Internal, Interrupted, LocalError, NotFound, WireError
from modelwire.values import Done, Value


class NotingChannel:
    """Refuses to finish on demand, as a connection does with a value that is too long for a reply."""

    caller = Caller(1000, 1000, "write")

    def __init__(self, unsendable: Exception | None = None) -> None:
        self.unsendable = unsendable
        self.ends: list[Value | WireError] = []
        self.left = 0

    def finish(self, request_id: str, value: Value) -> None:
        assert request_id == "7"
        if self.unsendable is not None:
            raise self.unsendable
        self.ends.append(value)

    def fail(self, request_id: str, fault: WireError) -> None:
        assert request_id == "7"
        self.ends.append(fault)

    def ended(self, _: RunningRequest) -> None:
        self.left += 1


def request_over(channel: NotingChannel) -> RunningRequest:
    return RunningRequest(cast(ReplyChannel, channel), requests.JobList(id="7"), is_lookup=False)


async def done(_: Any, __: Any) -> Value:
    return Done(target="x")


async def test_a_value_is_the_end() -> None:
    channel = NotingChannel()
    await request_over(channel).run(done)
    assert (channel.ends, channel.left) == ([Done(target="x")], 1)


@pytest.mark.parametrize("error", [LocalError("the reply has 9000000 bytes"), TypeError("no JSON")], ids=repr)
async def test_a_value_that_cannot_be_sent_is_an_error_of_this_request_alone(error: Exception) -> None:
    channel = NotingChannel(unsendable=error)
    with structlog.testing.capture_logs():
        await request_over(channel).run(done)
    (end,) = channel.ends
    assert isinstance(end, Internal)
    assert channel.left == 1


@pytest.mark.parametrize("error", [NotFound("no job"), RuntimeError("unforeseen")], ids=repr)
async def test_what_the_work_raises_is_the_end(error: Exception) -> None:
    async def failing(_: Any, __: Any) -> Value:
        raise error

    channel = NotingChannel()
    with structlog.testing.capture_logs() as logs:
        await request_over(channel).run(failing)
    (end,) = channel.ends
    if isinstance(error, NotFound):
        assert end is error
    else:
        assert isinstance(end, Internal)
        assert end.details["incident"] == logs[0]["incident"]
        assert "unforeseen" not in end.message + str(end.hint).replace("did not foresee", "")


@pytest.mark.parametrize("when", ["before it starts", "while it waits"])
@pytest.mark.parametrize(("how", "code"), [("cancel", "cancelled"), ("end", "interrupted")])
async def test_a_cancelled_request_still_has_its_end(when: str, how: str, code: str) -> None:
    channel = NotingChannel()
    request = request_over(channel)
    waiting = anyio.Event()

    async def long(_: Any, __: Any) -> Value:
        waiting.set()
        await anyio.sleep_forever()
        raise AssertionError

    def stop() -> None:
        if how == "cancel":
            request.cancel()
        else:
            request.end(Interrupted("the daemon stopped"))

    async with anyio.create_task_group() as tasks:
        if when == "before it starts":
            stop()
        tasks.start_soon(request.run, long)
        if when == "while it waits":
            await waiting.wait()
            stop()
    assert [end.code for end in channel.ends if isinstance(end, WireError)] == [code]
    assert channel.left == 1


async def test_an_end_from_outside_has_its_words_too() -> None:
    """The task group that all requests are in is cancelled: the daemon ends at once."""
    channel = NotingChannel()
    async with anyio.create_task_group() as tasks:

        async def long(_: Any, __: Any) -> Value:
            tasks.cancel_scope.cancel()
            await anyio.sleep_forever()
            raise AssertionError

        tasks.start_soon(request_over(channel).run, long)
    assert [end.code for end in channel.ends if isinstance(end, WireError)] == ["interrupted"]
    assert channel.left == 1


def test_an_internal_error_with_words_of_its_own_gets_a_number_once() -> None:
    with structlog.testing.capture_logs() as logs:
        fault = numbered(Internal("the disk reported an error", retryable=True, details={"errno": "EIO"}))
        again = numbered(fault)
    assert again is fault
    assert [entry["incident"] for entry in logs] == [fault.details["incident"]]
    assert fault.message == "the disk reported an error"
    assert fault.details["errno"] == "EIO"
    assert fault.retryable
    assert str(fault.details["incident"]) in str(fault.hint)
