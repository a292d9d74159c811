from __future__ import annotations

import pytest

from modelclient.ctl.progress_line import ProgressLine, describe
from modelwire.replies import Accepted, Progress
from modelwire.values import Counters


def progress(done: int, total: int | None = 1000, **more: object) -> Progress:
    return Progress.of("1", "j", Counters(phase="copy", bytes_done=done, bytes_total=total, **more))  # type: ignore[arg-type]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("modelclient.ctl.progress_line.time.monotonic", made)
    return made


def test_a_line_tells_all_that_is_known() -> None:
    now = progress(250, rate_bps=2_000_000, eta_s=12.0, attempt=2, files_done=1, files_total=3, source="/a/b.gguf")
    assert describe(now, bar=True) == (
        "copy  [######..................]  25 %  250 B of 1.00 kB  file 2 of 3  2.00 MB/s  12 s left"
        "  attempt 2  from b.gguf"
    )


def test_a_line_tells_no_more_than_is_known() -> None:
    assert describe(progress(0, None), bar=True) == "copy"
    assert describe(progress(500, None), bar=True) == "copy  500 B"
    assert describe(progress(1000, eta_s=0.0), bar=False) == "copy  100 %  1.00 kB of 1.00 kB"


def test_on_a_screen_one_line_is_drawn_over(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    line = ProgressLine(live=True)
    line.show(progress(100))
    line.show(progress(200))
    line.clear()
    line.clear()
    err = capsys.readouterr().err
    assert err.count("\r") == 3
    assert err.count("\n") == 0
    assert err.endswith("\r\x1b[K")


def test_a_drawn_line_never_wraps(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    ProgressLine(live=True).show(progress(100))
    assert capsys.readouterr().err == "\rcopy  [##..........\x1b[K"


def test_elsewhere_a_line_comes_each_tenth_that_takes_a_while_or_each_ten_seconds(
    capsys: pytest.CaptureFixture[str], clock: Clock
) -> None:
    line = ProgressLine(live=False)
    for done in range(0, 1001, 5):
        clock.now += 0.125
        line.show(progress(done))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[0] == "modelctl: copy   10 %  100 B of 1.00 kB"
    slow = ProgressLine(live=False)
    for done in range(60):
        clock.now += 1
        slow.show(progress(done, 1_000_000))
    assert len(capsys.readouterr().err.splitlines()) == 5


def test_waiting_is_shown_whenever_it_changes(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    line = ProgressLine(live=False)
    for position in (3, 3, 1, 0):
        line.show(Accepted(id="1", job="j", position=position))
    assert capsys.readouterr().err == (
        "modelctl: job j waits, 3 jobs before it\nmodelctl: job j waits, 1 job before it\n"
    )


def test_nothing_is_said_when_nothing_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    line = ProgressLine(live=True, wanted=False)
    line.show(progress(100))
    line.clear()
    assert capsys.readouterr().err == ""
