"""The counters of a job: they only grow, whatever its work reports and however often it starts over."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from modeld.jobs.progress import Meter
from modelwire.values import Counters

GROWING = ("bytes_done", "network_bytes", "verified_bytes", "reused_bytes", "committed_bytes", "files_done", "attempt")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


amounts = st.integers(0, 1 << 40)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("done"), amounts),
        st.tuples(st.just("verified"), amounts),
        st.tuples(st.just("reused"), amounts),
        st.tuples(st.just("committed"), amounts),
        st.tuples(st.just("total"), st.one_of(st.none(), amounts)),
        st.tuples(st.just("again"), st.just(0)),
        st.tuples(st.just("time"), st.integers(0, 100)),
    ),
    max_size=40,
)


@given(steps)
def test_no_counter_decreases(taken: list[tuple[str, int | None]]) -> None:
    clock = Clock()
    meter, attempt = Meter(clock), 1
    before = meter.snapshot()
    for what, amount in taken:
        if what == "again":
            attempt += 1
            meter.begin_attempt(attempt)
        elif what == "time":
            clock.now += (amount or 0) / 10
        elif what == "total":
            meter.total(amount)
        else:
            meter.advance(**{what: amount or 0})
        now = meter.snapshot()
        assert all(getattr(now, name) >= getattr(before, name) for name in GROWING)
        assert now.bytes_total is None or now.bytes_total >= now.bytes_done
        assert now.rate_bps is None or now.rate_bps >= 0
        assert now.eta_s is None or now.eta_s >= 0
        assert msgspec.json.decode(msgspec.json.encode(now), type=Counters) == now
        before = now


def test_the_rate_follows_and_the_rest_is_estimated() -> None:
    clock = Clock()
    meter = Meter(clock)
    meter.phase("copy")
    meter.total(1000)
    assert after(meter, clock, rounds=200, each=1).rate_bps == 10
    assert meter.snapshot().eta_s == 80.0
    assert after(meter, clock, rounds=300, each=2).rate_bps == 20


def after(meter: Meter, clock: Clock, *, rounds: int, each: int) -> Counters:
    """Looked at ten times a second while it goes on."""
    for _ in range(rounds):
        clock.now += 0.1
        meter.advance(done=each)
        meter.snapshot()
    return meter.snapshot()


def test_looking_often_does_not_change_the_rate() -> None:
    clock = Clock()
    meter = Meter(clock)
    meter.advance(done=100)
    clock.now += 1
    first = meter.snapshot().rate_bps
    for _ in range(100):
        assert meter.snapshot().rate_bps == first


def test_a_new_attempt_forgets_the_stop_sign() -> None:
    meter = Meter()
    assert not meter.stopped()
    meter.stop_reason = "pause"
    assert meter.stopped()
    meter.begin_attempt(2)
    assert not meter.stopped()
    assert meter.snapshot().attempt == 2


def test_what_waits_or_is_done_has_no_estimate() -> None:
    clock = Clock()
    meter = Meter(clock)
    meter.total(10)
    meter.advance(done=5)
    clock.now += 1
    assert meter.snapshot().eta_s is None
    meter.phase("copy")
    assert meter.snapshot().eta_s is not None
    meter.phase("done")
    assert meter.snapshot().eta_s is None
