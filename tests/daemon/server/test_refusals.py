from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from modeld.activity import Activity
from modeld.server.refusals import MOST_LINES, QUIET_SECONDS, Refusals
from modelwire.errors import QueueFull, Unauthorized, WireError

STRANGER = Unauthorized("uid 1000 has no right")
OVER = QueueFull("uid 1000 has 64 connections")


class Recorder:
    """Keeps the lines, and calls back when the test says that the time has come."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.due: list[Callable[[], None]] = []
        self.refusals = Refusals(cast("Activity", self), self._later)

    def record(self, event: str, **fields: Any) -> None:
        assert event == "peer.refused"
        self.lines.append(fields)

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        assert seconds == QUIET_SECONDS
        self.due.append(call)

    def pass_time(self) -> None:
        (call,) = self.due
        self.due.clear()
        call()


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.mark.parametrize("fault", [STRANGER, OVER])
def test_refusals_of_one_user_are_a_line_and_a_sum(recorder: Recorder, fault: WireError) -> None:
    """Also of a user with a role who is over its limits."""
    for _ in range(1000):
        recorder.refusals.note(1000, fault)
    assert [line["message"] for line in recorder.lines] == [fault.message]
    recorder.pass_time()
    assert len(recorder.lines) == 2
    assert (recorder.lines[1]["peer"], recorder.lines[1]["outcome"]) == (1000, fault.code)
    assert recorder.lines[1]["count"] == 999
    recorder.refusals.note(1000, fault)
    assert recorder.lines[2]["message"] == fault.message, "another minute has begun"
    assert "count" not in recorder.lines[2]


def test_each_user_and_each_reason_has_its_line(recorder: Recorder) -> None:
    recorder.refusals.note(1000, STRANGER)
    recorder.refusals.note(1000, OVER)
    recorder.refusals.note(1001, OVER)
    recorder.pass_time()
    assert [(line["peer"], line["outcome"]) for line in recorder.lines] == [
        (1000, "unauthorized"),
        (1000, "queue_full"),
        (1001, "queue_full"),
    ]


def test_many_strangers_take_bounded_memory_and_bounded_lines(recorder: Recorder) -> None:
    for uid in range(65_536):
        recorder.refusals.note(uid, STRANGER)
    assert len(recorder.lines) == len(recorder.refusals._counts) == MOST_LINES
    recorder.pass_time()
    assert recorder.lines[-1]["count"] == 65_536 - MOST_LINES
    assert len(recorder.lines) == MOST_LINES + 1
