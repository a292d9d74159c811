"""What arrives and is not taken: bounded, in order, and honest about gaps."""

from __future__ import annotations

import pytest

from modelclient.inbox import Inbox
from modelwire.errors import ConnectionLost
from modelwire.replies import Accepted, Event, Lagged, Progress
from modelwire.values import Counters


def progress(done: int, job: str = "j") -> Progress:
    return Progress.of("1", job, Counters(bytes_done=done))


def event(seq: int) -> Event:
    return Event(id="1", seq=seq, time="t", event="e")


def test_replies_come_out_in_order() -> None:
    inbox = Inbox("1")
    accepted = Accepted(id="1", job="j", position=0)
    inbox.put(accepted)
    inbox.put(event(1))
    assert [inbox.take(), inbox.take(), inbox.take()] == [accepted, event(1), None]


def test_only_the_newest_progress_of_a_job_is_kept() -> None:
    inbox = Inbox("1")
    for done in range(1000):
        inbox.put(progress(done))
        inbox.put(progress(done + 5000, "other"))
    assert [inbox.take(), inbox.take(), inbox.take()] == [progress(999), progress(5999, "other"), None]
    inbox.put(progress(1001))
    assert inbox.take() == progress(1001)


def test_a_slow_taker_gets_its_gap_in_its_place() -> None:
    inbox = Inbox("1", events_held=3)
    for seq in range(1, 8):
        inbox.put(event(seq))
    assert [inbox.take() for _ in range(2)] == [event(1), event(2)]
    inbox.put(event(8))
    assert inbox.take() == event(3)
    assert inbox.take() == Lagged(id="1", dropped=4, resume_from=3)
    assert [inbox.take(), inbox.take()] == [event(8), None]


def test_a_second_gap_is_reported_by_itself() -> None:
    inbox = Inbox("1", events_held=1)
    for seq in (1, 2, 3):
        inbox.put(event(seq))
    assert inbox.take() == event(1)
    for seq in (4, 5):
        inbox.put(event(seq))
    taken = [inbox.take() for _ in range(4)]
    assert taken == [
        Lagged(id="1", dropped=2, resume_from=1),
        event(4),
        Lagged(id="1", dropped=1, resume_from=4),
        None,
    ]


def test_what_came_before_the_end_is_taken_first() -> None:
    inbox = Inbox("1")
    inbox.put(progress(1))
    inbox.end(ConnectionLost("gone"))
    inbox.end(ConnectionLost("again"))
    assert inbox.take() == progress(1)
    for _ in range(2):
        with pytest.raises(ConnectionLost, match="gone"):
            inbox.take()
