"""One ring for all watchers gives each of them what a queue of its own would."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from modeld.activity import Filter, Item, Lagged, Latest, Recorded
from modeld.activity.fanout import RING, Fanout, Watcher


def event(seq: int, name: str = "job.started", job: str | None = None, model: str | None = None) -> Recorded:
    return Recorded(seq, name, job, model, b"{}", b"}\n")


class Counted:
    """A watcher that counts how often it was woken."""

    def __init__(self, fanout: Fanout, wanted: Filter | None = None) -> None:
        self.wakes = 0
        self.watcher: Watcher = fanout.watch(wanted or Filter(), self._wake)

    def _wake(self) -> None:
        self.wakes += 1

    def take(self) -> Sequence[Item]:
        self.wakes = 0
        return self.watcher.pending()


def seqs(items: Sequence[Item]) -> list[object]:
    return [item.seq if isinstance(item, Recorded) else item for item in items]


def test_a_watcher_is_woken_once_until_it_has_read() -> None:
    fanout = Fanout(0)
    one = Counted(fanout)
    for seq in (1, 2, 3):
        fanout.publish(event(seq))
        assert one.wakes == 1
    assert seqs(one.take()) == [1, 2, 3]
    assert one.take() == ()
    assert one.wakes == 0
    fanout.publish(event(4))
    assert one.wakes == 1


def test_a_watcher_sees_what_comes_after_it_and_nothing_after_its_close() -> None:
    fanout = Fanout(41)
    fanout.publish(event(42))
    late = Counted(fanout)
    assert len(fanout) == 1
    fanout.publish(event(43))
    assert seqs(late.take()) == [43]
    late.watcher.close()
    late.watcher.close()
    fanout.publish(event(44))
    assert late.wakes == 0
    assert len(fanout) == 0
    late.watcher.pending()
    fanout.publish(event(45))
    assert late.wakes == 0


def test_256_behind_is_fine_and_257_lags_by_one() -> None:
    fanout = Fanout(0)
    one = Counted(fanout)
    for seq in range(1, 257):
        fanout.publish(event(seq))
    assert seqs(one.take()) == list(range(1, 257))
    for seq in range(257, 514):
        fanout.publish(event(seq))
    assert seqs(one.take()) == [Lagged(1, 256), *range(258, 514)]
    assert one.take() == ()


def test_lagging_far_beyond_the_ring_is_counted_exactly() -> None:
    fanout = Fanout(0)
    one = Counted(fanout)
    for seq in range(1, 10 * RING + 1):
        fanout.publish(event(seq))
    lagged, *rest = one.take()
    assert lagged == Lagged(10 * RING - 256, 0)
    assert seqs(rest) == list(range(10 * RING - 255, 10 * RING + 1))


def test_a_filter_chooses_by_event_family_model_and_job() -> None:
    fanout = Fanout(0)
    by = {
        "event": Counted(fanout, Filter(events=frozenset({"model.added"}))),
        "family": Counted(fanout, Filter(events=frozenset({"job"}))),
        "model": Counted(fanout, Filter(model="Llama:8B")),
        "job": Counted(fanout, Filter(job="j1")),
        "both": Counted(fanout, Filter(job="j1", model="other")),
    }
    fanout.publish(event(1, "model.added", None, "llama:8b"))
    fanout.publish(event(2, "job.done", "j1", "llama:8b"))
    fanout.publish(event(3, "jobs.pruned"))
    fanout.publish(event(4, "job.done", "j2", "other"))
    assert {name: seqs(one.take()) for name, one in by.items()} == {
        "event": [1],
        "family": [2, 4],
        "model": [1, 2],
        "job": [2],
        "both": [],
    }


def test_events_that_are_not_wanted_neither_wake_nor_make_one_lag() -> None:
    fanout = Fanout(0)
    idle, busy = (Counted(fanout, Filter(job="j1")) for _ in range(2))
    fanout.publish(event(1, job="j1"))
    assert idle.take()
    for seq in range(2, 600):
        fanout.publish(event(seq, job="j2"))
    fanout.publish(event(600, job="j1"))
    assert idle.wakes == 1
    assert seqs(idle.take()) == [600]
    assert seqs(busy.take()) == [1, 600]


def test_a_filtered_watcher_that_wants_too_much_lags_too() -> None:
    fanout = Fanout(0)
    one = Counted(fanout, Filter(events=frozenset({"job"})))
    for seq in range(1, 301):
        fanout.publish(event(seq, job="j"))
    assert seqs(one.take()) == [Lagged(44, 0), *range(45, 301)]


def test_progress_is_the_newest_only_and_stands_where_it_belongs() -> None:
    fanout = Fanout(0)
    one = Counted(fanout, Filter(progress=True))
    plain = Counted(fanout)
    fanout.publish_progress(Latest("a", None, b"1"))
    assert (one.wakes, plain.wakes) == (1, 0)
    fanout.publish_progress(Latest("b", None, b"2"))
    fanout.publish(event(1, "job.phase", "a"))
    fanout.publish_progress(Latest("a", None, b"3"))
    fanout.publish(event(2, "job.phase", "a"))
    assert [item.line if isinstance(item, Latest) else item for item in one.take()] == [
        b"2",
        event(1, "job.phase", "a"),
        b"3",
        event(2, "job.phase", "a"),
    ]
    assert seqs(plain.take()) == [1, 2]
    assert one.take() == ()


def test_nothing_of_a_job_comes_after_its_end() -> None:
    fanout = Fanout(0)
    one = Counted(fanout, Filter(progress=True))
    fanout.publish_progress(Latest("a", None, b"1"))
    fanout.publish_progress(Latest("b", None, b"2"))
    fanout.publish(event(1, "job.done", "a"), ends_job=True)
    fanout.forget_progress("b")
    assert seqs(one.take()) == [1]


def test_progress_can_be_of_one_job_or_model_only() -> None:
    fanout = Fanout(0)
    one = Counted(fanout, Filter(job="a", progress=True))
    fanout.publish_progress(Latest("b", None, b""))
    assert one.wakes == 0
    fanout.publish_progress(Latest("a", None, b""))
    assert one.take() == [Latest("a", None, b"")]


def test_a_wake_up_may_read_close_and_open_at_once() -> None:
    fanout = Fanout(0)
    seen: list[Any] = []
    opened: list[Watcher] = []

    def wake() -> None:
        seen.append(seqs(first.pending()))
        second.close()
        opened.append(fanout.watch(Filter(), lambda: None))

    first = fanout.watch(Filter(), wake)
    second = fanout.watch(Filter(), lambda: None)
    fanout.publish(event(1))
    fanout.publish(event(2))
    assert seen == [[1], [2]]
    assert seqs(opened[0].pending()) == [2]


LIMIT = 5


class RingAgainstQueues(RuleBasedStateMachine):
    """Each watcher of the ring against a bounded queue of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.fanout = Fanout(100, limit=LIMIT)
        self.watchers: list[tuple[Counted, deque[Recorded], list[int]]] = []

    @rule(wanted=st.sampled_from([Filter(), Filter(events=frozenset({"a"})), Filter(job="j")]))
    def watch(self, wanted: Filter) -> None:
        if len(self.watchers) < 6:
            self.watchers.append((Counted(self.fanout, wanted), deque(), [self.fanout.last_seq, 0]))

    @rule(name=st.sampled_from(["a", "b"]), job=st.sampled_from(["j", "k", None]), times=st.integers(1, 4))
    def publish(self, name: str, job: str | None, times: int) -> None:
        for _ in range(times):
            record = event(self.fanout.last_seq + 1, name, job)
            self.fanout.publish(record)
            for counted, queue, state in self.watchers:
                if counted.watcher.wanted.wants(record):
                    queue.append(record)
                    if len(queue) > LIMIT:
                        queue.popleft()
                        state[1] += 1
                elif not queue:
                    state[0] = record.seq

    @rule(index=st.integers(0, 5))
    def take(self, index: int) -> None:
        if index >= len(self.watchers):
            return
        counted, queue, state = self.watchers[index]
        expected: list[Item] = [Lagged(state[1], state[0])] if state[1] else []
        assert list(counted.take()) == [*expected, *queue]
        queue.clear()
        state[:] = [self.fanout.last_seq, 0]

    @invariant()
    def woken_exactly_when_something_waits(self) -> None:
        for counted, queue, _ in self.watchers:
            assert counted.wakes == bool(queue)


TestRingAgainstQueues = RingAgainstQueues.TestCase
TestRingAgainstQueues.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("since", [None, 3, 99])
def test_a_watcher_can_begin_in_the_past_that_the_ring_holds(since: int | None) -> None:
    fanout = Fanout(0)
    for seq in range(1, 6):
        fanout.publish(event(seq))
    watcher = fanout.watch(Filter(), lambda: None, since=since)
    assert seqs(watcher.pending()) == ([4, 5] if since == 3 else [])
