"""Work in front of a person: progress while it runs, Ctrl-C as a request to stop in good order."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from modelclient.ctl.bar import ProgressLine
from modelclient.ctl.session import Session
from modelclient.exchange import Work
from modelwire.replies import Accepted, Progress
from modelwire.values import Value

T = TypeVar("T", bound=Value)


class Interruption:
    """Whether Ctrl-C came. The second one is no longer polite."""

    def __init__(self) -> None:
        self.happened = False


@contextmanager
def interruptible(first: Callable[[], None]) -> Iterator[Interruption]:
    """Runs `first` at the first Ctrl-C, in the middle of whatever waits; the second one is a KeyboardInterrupt.

    An exception thrown into a read could lose the bytes that had just been read, and with them the terminal reply that
    the work still gets. Waiting is resumed after a handler that returns.
    """
    seen = Interruption()

    def interrupted(_number: int, _frame: FrameType | None) -> None:
        if seen.happened:
            raise KeyboardInterrupt
        seen.happened = True
        first()

    before = signal.signal(signal.SIGINT, interrupted)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, before)


def follow(session: Session, work: Work[T]) -> T:
    """To the end of the work: its value, or its error raised. Everything that comes by is shown."""
    line = ProgressLine(live=session.live, wanted=session.progress)
    try:
        for reply in work:
            _show(session, line, reply)
        return work.result()
    finally:
        line.clear()


def _show(session: Session, line: ProgressLine, reply: Accepted | Progress) -> None:
    if session.events:
        session.out.record(reply)
    else:
        line.show(reply)
