"""A rate holds over all jobs, changes while they run, and serves who is more important first."""

from __future__ import annotations

import threading
import time

import pytest

from modeld.download.engine.budget import BURST_SECONDS, Budget, CommonPace, Share, _Waiting

CHUNK = 1 << 20


class Clock:
    """Time passes when somebody waits: no test sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Rehearsal:
    """Several shares that always want more, on one clock and in one thread."""

    def __init__(self, budget: Budget, clock: Clock) -> None:
        self.budget, self.clock = budget, clock
        self.taken: dict[Share, int] = {}

    def run(self, seconds: float, *shares: Share) -> dict[Share, int]:
        taken = dict.fromkeys(shares, 0)
        until = self.clock.now + seconds
        self.budget._waiting = [_Waiting(share, share) for share in shares]
        for number, waiting in enumerate(self.budget._waiting):
            waiting.number = number
        while self.clock.now < until:
            now = self.clock.now
            ready = self.budget._next(now) if self.budget._bucket.wait(now) <= 0 else None
            if ready is None:
                self.clock.now += 0.001
                continue
            taken[ready.share] += self.budget._grant(ready.share, CHUNK, now)
            ready.number += len(shares)
        self.budget._waiting = []
        return taken


@pytest.mark.parametrize("jobs", [1, 5])
@pytest.mark.parametrize("rate", [50_000, 3_000_000, 400_000_000])
def test_within_five_percent_over_ten_seconds(jobs: int, rate: int) -> None:
    clock = Clock()
    budget = Budget(rate, clock)
    taken = Rehearsal(budget, clock).run(10, *[budget.share() for _ in range(jobs)])
    assert sum(taken.values()) == pytest.approx(rate * 10, rel=0.05)
    assert min(taken.values()) == pytest.approx(rate * 10 / jobs, rel=0.1), "equals are served alike"


def test_changed_while_they_run() -> None:
    clock = Clock()
    budget = Budget(10_000_000, clock)
    shares = [budget.share() for _ in range(5)]
    rehearsal = Rehearsal(budget, clock)
    assert sum(rehearsal.run(10, *shares).values()) == pytest.approx(100_000_000, rel=0.05)
    budget.set_rate(1_000_000)
    assert sum(rehearsal.run(10, *shares).values()) == pytest.approx(10_000_000, rel=0.05)
    shares[0].set_rate(100_000)
    assert rehearsal.run(10, *shares)[shares[0]] == pytest.approx(1_000_000, rel=0.05)


def test_the_more_important_job_is_served_first() -> None:
    clock = Clock()
    budget = Budget(1_000_000, clock)
    urgent, idle = budget.share(priority=1), budget.share(priority=5)
    taken = Rehearsal(budget, clock).run(10, idle, urgent)
    assert taken[urgent] >= 9_400_000
    urgent.set_priority(5)
    taken = Rehearsal(budget, clock).run(10, idle, urgent)
    assert taken[urgent] == pytest.approx(taken[idle], rel=0.1)


def test_a_job_with_its_own_limit_holds_back_nobody() -> None:
    clock = Clock()
    budget = Budget(1_000_000, clock)
    slow, quick = budget.share(priority=1, rate=100_000), budget.share(priority=5)
    taken = Rehearsal(budget, clock).run(10, slow, quick)
    assert taken[slow] == pytest.approx(1_000_000, rel=0.05)
    assert taken[quick] == pytest.approx(9_000_000, rel=0.05)


def test_what_is_saved_up_is_bounded() -> None:
    clock = Clock()
    budget = Budget(1_000_000, clock)
    clock.now = 3600
    assert budget._bucket.available(clock.now) == 1_000_000 * BURST_SECONDS


def test_without_a_limit_everything_is_granted_at_once() -> None:
    share = Budget().share()
    assert share.take(CHUNK, lambda: False) == CHUNK
    share.refund(10)


def test_what_was_not_read_is_given_back() -> None:
    clock = Clock()
    budget = Budget(1_000_000, clock)
    share = budget.share()
    clock.now = 10
    granted = share.take(CHUNK, lambda: False)
    share.refund(granted)
    assert budget._bucket.available(clock.now) == pytest.approx(250_000)


def common(*shares: Share) -> CommonPace:
    pace = CommonPace()
    for share in shares:
        pace.join(share)
    return pace


def waiter(pace: CommonPace | Share, stop: threading.Event) -> tuple[threading.Thread, list[int]]:
    got: list[int] = []
    thread = threading.Thread(target=lambda: got.append(pace.take(CHUNK, stop.is_set)))
    thread.start()
    return thread, got


def test_a_transfer_for_several_is_as_quick_as_the_quickest_of_them() -> None:
    slow, free = Budget().share(rate=1000), Budget().share()
    pace = common(slow)
    thread, got = waiter(pace, threading.Event())
    assert thread.is_alive(), "four seconds until there are 4 KiB"
    pace.join(free)
    thread.join(3)
    assert got == [CHUNK]
    pace.leave(free)
    stop = threading.Event()
    thread, got = waiter(pace, stop)
    slow.set_rate(None)
    thread.join(3)
    assert got == [CHUNK]
    pace.leave(slow)
    pace.refund(1)
    assert pace.take(CHUNK, stop.is_set) == CHUNK, "what is left of it is the last one's"


def test_a_transfer_for_several_is_as_urgent_as_the_most_urgent_of_them() -> None:
    clock = Clock()
    budget = Budget(1_000_000, clock)
    rival, late, early = budget.share(priority=2), budget.share(priority=5), budget.share(priority=1)
    pace = common(late)
    waiting = [_Waiting(late, pace), _Waiting(rival, rival)]
    budget._waiting = waiting
    assert budget._next(1.0) is waiting[1]
    pace.join(early)
    assert budget._next(1.0) is waiting[0], "also for a read that waits already"
    early.set_priority(5)
    assert budget._next(1.0) is waiting[1]


def test_stopped_it_waits_no_longer() -> None:
    share = Budget(1).share()
    stop = threading.Event()
    answers: list[int] = []
    waiter = threading.Thread(target=lambda: answers.append(share.take(CHUNK, stop.is_set)))
    waiter.start()
    stop.set()
    waiter.join(10)
    assert answers == [0]


def test_five_threads_never_take_more_than_there_is() -> None:
    rate, seconds = 4_000_000, 1.0
    budget = Budget(rate)
    began = time.monotonic()
    over = threading.Event()
    taken = [0] * 5

    def job(number: int) -> None:
        share = budget.share()
        while time.monotonic() < began + seconds:
            taken[number] += share.take(CHUNK, over.is_set)

    threads = [threading.Thread(target=job, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    elapsed = time.monotonic() - began
    assert sum(taken) <= rate * (elapsed + BURST_SECONDS)
    assert min(taken) > 0


@pytest.mark.parametrize("rate", [0, -1])
def test_no_bytes_at_all_is_no_rate(rate: int) -> None:
    with pytest.raises(ValueError, match="at least one byte"):
        Budget(rate)
