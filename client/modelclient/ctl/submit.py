"""What `add` and `pull` share: the options of a new model, its job waited for or left running, and what it made."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Final, TypeVar

from modelclient.ctl.arguments import content_of
from modelclient.ctl.follow import follow, supervise
from modelclient.ctl.output import count, option, printable
from modelclient.ctl.session import Session
from modelclient.ctl.sharing import newly_readable
from modelclient.ctl.table import line
from modelclient.exchange import Work
from modelclient.new_models import NewModel
from modelwire import limits
from modelwire.errors import Cancelled, InvalidRequest, ModeldError
from modelwire.units import rounded_size
from modelwire.values import Added, JobView, Pulled, Value
from modelwire.vocabulary import PRIORITY_DEFAULT, PRIORITY_HIGHEST, PRIORITY_LOWEST, TERMINAL_STATES

T = TypeVar("T", bound=Value)
Made = TypeVar("Made", Added, Pulled)

_STOP_SECONDS: Final = 1.0
"""Work looks every few milliseconds whether it is to stop. A job of two clients still runs after this time, and is
reported as one that goes on."""

_PAUSE_SECONDS: Final = 0.02


def configure(parser: argparse.ArgumentParser, *, made_of: str, license_from: str = "") -> None:
    """The options that say what the model is called, what it must be, and how its job is to run."""
    parser.add_argument("--name", help=f"the model's name (default: made of {made_of})")
    parser.add_argument("--sha256", metavar="HEX", help="the digest that the file must have")
    parser.add_argument("--replace", action="store_true", help="replace a model of that name")
    parser.add_argument("--license", metavar="ID", help=f"the license that the manifest records{license_from}")
    parser.add_argument(
        "--signature", metavar="FILE", help="the model's signature, where the daemon requires one (default: beside it)"
    )
    formats = parser.add_mutually_exclusive_group()
    formats.add_argument(
        "--force-format",
        action="store_true",
        help="store also what is no model: an error page, a pointer to a file, a file that is cut off",
    )
    formats.add_argument(
        "--strict-format",
        action="store_true",
        help="refuse weights whose header cannot be read, or that are not what their name promises",
    )
    parser.add_argument(
        "--priority",
        type=int,
        choices=range(PRIORITY_HIGHEST, PRIORITY_LOWEST + 1),
        default=PRIORITY_DEFAULT,
        help=f"{PRIORITY_HIGHEST} is the highest (default: {PRIORITY_DEFAULT})",
    )
    parser.add_argument("--detach", action="store_true", help="print the job's id and leave it running")


def options(args: argparse.Namespace) -> NewModel:
    """The same options as the client takes them."""
    file = args.signature
    return {
        "name": args.name,
        "sha256": args.sha256,
        "replace": args.replace,
        "license": args.license,
        "force_format": args.force_format,
        "strict_format": args.strict_format,
        "signature": None if file is None else content_of(file, "signature", limits.SIGNATURE),
        "priority": args.priority,
        "on_disconnect": "continue" if args.detach else "cancel",
    }


def words(args: argparse.Namespace) -> list[str]:
    """The same options as they are written, for the same command once more: without its digest it would not be
    checked, nor replace anything."""
    made: list[str] = []
    for name in ("name", "sha256", "license", "signature"):
        if getattr(args, name) is not None:
            made += option(name, getattr(args, name))
    made += ["--replace"] if args.replace else []
    made += ["--force-format"] if args.force_format else []
    made += ["--strict-format"] if args.strict_format else []
    return made + (["--priority", str(args.priority)] if args.priority != PRIORITY_DEFAULT else [])


def interruption(session: Session, work: Work[T], stopped: Callable[[str], Cancelled]) -> Cancelled:
    """What Ctrl-C has done; it may come before the daemon has answered."""
    if work.job is None:
        return stopped("the request was taken back")
    job, see = work.job, f"See `modelctl job {work.job}`."
    view = _after_cancel(session, job)
    if view is None:
        return Cancelled(f"interrupted: nothing is known of what became of job {job}", hint=see)
    if view.state == "cancelled":
        return stopped(f"job {job} was stopped")
    if view.state in TERMINAL_STATES:
        return Cancelled(f"interrupted: job {job} had {'failed' if view.error else 'ended'} before that", hint=see)
    if view.on_disconnect == "cancel" and not view.watchers:
        return Cancelled(f"interrupted: job {job} is being stopped", hint=see)
    why = "which another client wants" if view.on_disconnect == "cancel" else "which waits for no client"
    end = f"or end it with `modelctl cancel {job}`."
    if view.state == "paused":
        hint = f"Go on with it with `modelctl resume {job}`, {end}"
        return Cancelled(f"interrupted: job {job}, {why}, stays paused", hint=hint)
    return Cancelled(f"interrupted: job {job}, {why}, goes on", hint=f"Follow it with `modelctl attach {job}`, {end}")


def _after_cancel(session: Session, job: str) -> JobView | None:
    """The job when it has ended, or when it does not end; None when the daemon does not answer."""
    client = session.client()
    client.timeout = _STOP_SECONDS
    deadline = time.monotonic() + _STOP_SECONDS
    view = None
    try:
        while True:
            # An attachment would keep the job running, and would not stop it when it leaves.
            view = client.job(job)
            over = view.state in TERMINAL_STATES or view.on_disconnect == "continue" or time.monotonic() > deadline
            if over:
                return view
            time.sleep(_PAUSE_SECONDS)
    except ModeldError:
        return view


def submit(
    session: Session,
    start: Callable[[], Work[Made]],
    *,
    detach: bool,
    stopped: Callable[[str], Cancelled],
    known: Callable[[Made], str],
) -> None:
    """`stopped` makes the report of work that Ctrl-C stopped, from words that say so; `known` says what of the model
    was there before."""
    supervise(
        session,
        start,
        lambda work: (leave if detach else follow_and_show)(session, work, lambda made: _show(session, made, known)),
        lambda work, _: interruption(session, work, stopped),
    )


def note_readers(session: Session, path: str) -> None:
    """Before any byte moves, says which private file others will be able to read. Never a question: scripts go on."""
    if (sentence := newly_readable(path, session.client().hello.store)) is not None:
        session.note(f"note: {sentence}")


def sendable(text: str, what: str) -> str:
    """The text as it is, when the wire can hold it; otherwise refused before anything is sent."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(
            f"the {what} {printable(text)} is not UTF-8, and the protocol is", hint="Rename the file, or link to it."
        ) from None
    return text


def follow_and_show(session: Session, work: Work[T], show: Callable[[T], None]) -> None:
    show(follow(session, work))


def leave(session: Session, work: Work[T], show: Callable[[T], None]) -> None:
    """The job's id, and the daemon goes on; work that had ended by then is shown as it is."""
    accepted = work.accepted()
    work.detach()
    if accepted is None:
        show(work.result())
        return
    job = {"job": accepted.job, "position": accepted.position, "joined": accepted.joined}
    session.show(job, quiet=[accepted.job], text=line(accepted.job))
    if not session.raw:
        session.note(f"it goes on without you: modelctl attach {accepted.job}")


def _show(session: Session, made: Made, known: Callable[[Made], str]) -> None:
    if made.warning is not None and not session.raw:
        session.note(f"warning: {made.warning}")
    match made:
        case Pulled(note=str(note)) if not session.raw:
            session.note(f"{note}; --all fetches all of them")
    files = f", {count(len(made.files), 'file')}" if made.files else ""
    session.show_result(
        made,
        quiet=[made.name],
        text=line(made.name, rounded_size(made.size_bytes), f"{made.format}{files}{known(made)}") + line(made.path),
    )
