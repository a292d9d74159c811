"""Work in front of a person: progress while it runs, Ctrl-C as a request to stop in good order."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TypeVar

from modelclient.ctl.bar import ProgressLine
from modelclient.ctl.session import Session
from modelclient.exchange import Work
from modelwire.errors import ModeldError
from modelwire.replies import Accepted, Progress
from modelwire.values import Value

T = TypeVar("T", bound=Value)


class Interruption:
    """Whether Ctrl-C came, and what to do then. The second one is no longer polite."""

    def __init__(self) -> None:
        self.happened = False
        self._answer: Callable[[], None] | None = None

    def leads_to(self, answer: Callable[[], None]) -> None:
        """Called at the first Ctrl-C, in the middle of whatever waits; or now, when it has come already."""
        self._answer = answer
        if self.happened:
            self._carry_out(answer)

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        if self.happened:
            raise KeyboardInterrupt
        self.happened = True
        if self._answer is not None:
            self._carry_out(self._answer)

    def _carry_out(self, answer: Callable[[], None]) -> None:
        with suppress(ModeldError):  # whoever waits is about to learn it in a better place
            answer()


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Within this, Ctrl-C is a request and no exception.

    An exception thrown into a read could lose the bytes that had just been read, and with them the terminal reply that
    the work still gets. Waiting is resumed after a handler that returns.
    """
    seen = Interruption()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield seen  # started by something that keeps Ctrl-C away from it, nohup for one
        return
    before = signal.signal(signal.SIGINT, seen)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, before)


def follow(session: Session, work: Work[T], *, attached: bool = False) -> T:
    """To the end of the work: its value, or its error raised. Everything that comes by is shown."""
    line = ProgressLine(live=session.live, wanted=session.progress, attached=attached)
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
