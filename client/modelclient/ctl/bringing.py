"""What `add` and `pull` share: work that brings a model in, waited for or left running, and what it brought."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeVar

from modelclient.ctl import exits, figures
from modelclient.ctl.following import follow, interruptible
from modelclient.ctl.output import printable
from modelclient.ctl.session import Session
from modelclient.ctl.telling import tell
from modelclient.exchange import Work
from modelwire.errors import Cancelled, InvalidRequest
from modelwire.values import Added, Pulled
from modelwire.vocabulary import PRIORITY_DEFAULT

Brought = TypeVar("Brought", Added, Pulled)


def configure(parser: argparse.ArgumentParser, *, made_of: str, license_from: str = "") -> None:
    """The options that say what the model is called, what it must be, and how its job is to run."""
    parser.add_argument("--name", default=None, help=f"the model's name (default: made of {made_of})")
    parser.add_argument("--sha256", metavar="HEX", default=None, help="the digest that the file must have")
    parser.add_argument("--replace", action="store_true", default=False, help="take the place of a model of that name")
    parser.add_argument("--license", metavar="ID", default=None, help=f"noted in the manifest{license_from}")
    parser.add_argument(
        "--priority", type=int, choices=range(1, 6), default=PRIORITY_DEFAULT, help="1 is the highest (default: 3)"
    )
    parser.add_argument("--detach", action="store_true", default=False, help="print the job's id and leave it running")


def options_of(args: argparse.Namespace) -> list[str]:
    """As words, for the same command once more: without its digest it would not be checked, nor replace anything."""
    words: list[str] = []
    for option in ("name", "sha256", "license"):
        if getattr(args, option) is not None:
            words += [f"--{option}", getattr(args, option)]
    words += ["--replace"] if args.replace else []
    return words + (["--priority", str(args.priority)] if args.priority != PRIORITY_DEFAULT else [])


def bring_in(
    session: Session,
    ask: Callable[[], Work[Brought]],
    *,
    detach: bool,
    stopped: Callable[[str | None], Cancelled],
    known: Callable[[Brought], str],
) -> int:
    """`stopped` says, of a job, what Ctrl-C has left; `known` what of the model was there before."""
    with interruptible() as interruption:
        work = ask()
        interruption.leads_to(work.cancel)
        try:
            if detach:
                return _leave(session, work, known)
            _show(session, follow(session, work), known)
        except Cancelled:
            if not interruption.happened:
                raise
            return session.fail(stopped(work.job), exit_code=exits.INTERRUPTED)
    return exits.FINE


def written(text: str, what: str) -> str:
    """Fit for the wire, or refused before anything is sent."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(
            f"the {what} {printable(text)} is not UTF-8, and the protocol is", hint="rename the file, or link to it"
        ) from None
    return text


def _leave(session: Session, work: Work[Brought], known: Callable[[Brought], str]) -> int:
    """The job's id, and the daemon goes on; what had ended by then is shown as it is."""
    accepted = work.accepted()
    work.detach()
    if accepted is None:
        _show(session, work.result(), known)
    elif session.events or session.json:
        (session.out.record if session.events else session.out.document)(
            {"job": accepted.job, "position": accepted.position, "joined": accepted.joined}
        )
    else:
        session.out.line(accepted.job)
        session.note(f"it goes on without you: modelctl attach {accepted.job}")
    return exits.FINE


def _show(session: Session, brought: Brought, known: Callable[[Brought], str]) -> None:
    files = f", {figures.count(len(brought.files), 'file')}" if brought.files else ""
    tell(
        session,
        brought,
        quiet=f"{brought.name}\n",
        text=f"{brought.name}  {figures.size(brought.size_bytes)}  {brought.format}{files}{known(brought)}\n"
        f"{printable(brought.path)}\n",
    )
