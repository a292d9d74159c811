"""A clock that is set expires nothing early."""

from __future__ import annotations

from modeld.platform import clock


class Hands:
    """The time of day and the time that passes, moved by the test."""

    def __init__(self) -> None:
        self.day, self.passed = 1_000_000.0, 50.0
        self.calendar = clock.Calendar(lambda: self.day, lambda: self.passed)

    def wait(self, seconds: float) -> None:
        self.day += seconds
        self.passed += seconds


def test_a_calendar_goes_on_with_the_time() -> None:
    hands = Hands()
    hands.wait(3600)
    assert hands.calendar() == 1_003_600.0


def test_a_clock_set_forward_makes_nothing_older() -> None:
    hands = Hands()
    hands.wait(10)
    hands.day += 365 * 86400
    hands.wait(10)
    assert hands.calendar() == 1_000_020.0


def test_a_clock_set_back_makes_everything_younger() -> None:
    hands = Hands()
    hands.day -= 5000
    assert hands.calendar() == 995_000.0


def test_time_passes_and_never_runs_back() -> None:
    moments = [clock.elapsed() for _ in range(100)]
    assert moments == sorted(moments)
