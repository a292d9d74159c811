"""Work in front of a person: progress while it runs, and Ctrl-C as a request to stop it in good order."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TypeVar

from modelclient.ctl.progress_line import ProgressLine
from modelclient.ctl.session import Session
from modelclient.exchange import Work
from modelwire.errors import Cancelled, ModeldError
from modelwire.replies import Accepted, Progress
from modelwire.values import Value

T = TypeVar("T", bound=Value)
R = TypeVar("R")


class Interruption:
    """Whether Ctrl-C came, and what to do then. The second one ends the command at once."""

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
        with suppress(ModeldError):  # the wait that is going on ends with the same error, in a better place
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
    """Shows what comes until the work ends. Returns its value or raises its error."""
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


def supervise(
    session: Session,
    start: Callable[[], Work[T]],
    until: Callable[[Work[T]], R],
    interrupted: Callable[[Work[T], Cancelled], Cancelled],
) -> R:
    """Starts work and waits as `until` does. Ctrl-C stops the work; `interrupted` makes the report of that."""
    with interruptible() as interruption:
        work = start()
        interruption.leads_to(work.cancel)
        try:
            return until(work)
        except Cancelled as error:
            if not interruption.happened:
                raise
            session.fail(interrupted(work, error))
            raise KeyboardInterrupt from None


def carry_out(session: Session, start: Callable[[], Work[T]], again: str) -> T:
    """To the end of the work. After Ctrl-C, `again` is the command that goes on."""
    return supervise(
        session,
        start,
        lambda work: follow(session, work),
        lambda _, error: stopped(error, again),
    )


def stopped(error: Cancelled, again: str) -> Cancelled:
    """The report of work that Ctrl-C has stopped."""
    return Cancelled(f"interrupted: {error.message}", hint=f"To go on, run `{again}` again.")
