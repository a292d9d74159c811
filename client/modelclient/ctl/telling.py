"""Work that a verb asks for and shows: followed to its end, and its value told in the form that was asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from modelclient.ctl.following import follow, interruptible
from modelclient.ctl.session import Session
from modelclient.exchange import Work
from modelwire.errors import Cancelled
from modelwire.values import Value

T = TypeVar("T", bound=Value)


def carry_out(session: Session, ask: Callable[[], Work[T]], again: str) -> T:
    """To the end of the work. Ctrl-C stops it; `again` is the command that goes on then."""
    with interruptible() as interruption:
        work = ask()
        interruption.leads_to(work.cancel)
        try:
            return follow(session, work)
        except Cancelled as error:
            if not interruption.happened:
                raise
            session.fail(Cancelled(f"interrupted: {error.message}", hint=f"to go on, run it again: {again}"))
            raise KeyboardInterrupt from None


def tell(session: Session, value: Any, *, quiet: str, text: str) -> None:
    """The value as a document, as the last record of the stream, in names only, or as text for people."""
    if session.json:
        session.out.document(value)
    elif session.events:
        session.out.record({"type": "result", "value": value})
    else:
        session.out.text(quiet if session.quiet else text)
