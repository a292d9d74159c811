"""`add PATH`: a file into the store."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Callable
from typing import TypeVar

from modelclient.ctl import exits, figures
from modelclient.ctl.following import follow, interruptible
from modelclient.ctl.output import printable
from modelclient.ctl.session import Session
from modelclient.exchange import Work
from modelwire.errors import Cancelled, InvalidRequest
from modelwire.values import Added, Value

T = TypeVar("T", bound=Value)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", help="the file, the directory, or any part of a set of GGUF shards")
    parser.add_argument("--name", default=None, help="the model's name (default: made of the file's name)")
    parser.add_argument("--sha256", metavar="HEX", default=None, help="the digest that the file must have")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--move", action="store_true", default=False, help="take the source away when the model is there")
    how.add_argument("--link", action="store_true", default=False, help="share the bytes: the source becomes read-only")
    parser.add_argument("--replace", action="store_true", default=False, help="take the place of a model of that name")
    parser.add_argument("--license", metavar="ID", default=None, help="noted in the manifest")
    parser.add_argument("--priority", type=int, choices=range(1, 6), default=3, help="1 is the highest (default: 3)")
    parser.add_argument("--detach", action="store_true", default=False, help="print the job's id and leave it running")


def run(session: Session, args: argparse.Namespace) -> int:
    path = _absolute(args.path)
    client = session.client()
    with interruptible() as interruption:
        work = client.add(
            path,
            name=args.name,
            sha256=args.sha256,
            replace=args.replace,
            license=args.license,
            move=args.move,
            link=args.link,
            priority=args.priority,
            on_disconnect="continue" if args.detach else "cancel",
        )
        interruption.leads_to(work.cancel)
        try:
            if args.detach:
                return leave(session, work, _print)
            _print(session, follow(session, work))
        except Cancelled:
            if not interruption.happened:
                raise
            return _interrupted(session, work, args)
    return exits.FINE


def _absolute(path: str) -> str:
    absolute = os.path.abspath(path)
    try:
        absolute.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(
            f"the path {printable(path)} is not UTF-8, and the protocol is", hint="rename the file, or link to it"
        ) from None
    return absolute


def leave(session: Session, work: Work[T], show: Callable[[Session, T], None]) -> int:
    """`--detach`: the job's id, and the daemon goes on. `show` is for what had ended by then."""
    accepted = work.accepted()
    work.detach()
    if accepted is None:
        show(session, work.result())
    elif session.events or session.json:
        (session.out.record if session.events else session.out.document)(
            {"job": accepted.job, "position": accepted.position, "joined": accepted.joined}
        )
    else:
        session.out.line(accepted.job)
        session.note(f"it goes on without you: modelctl attach {accepted.job}")
    return exits.FINE


def _interrupted(session: Session, work: Work[Added], args: argparse.Namespace) -> int:
    again = f"modelctl add {shlex.quote(args.path)}" + (f" --name {shlex.quote(args.name)}" if args.name else "")
    again += " --move" if args.move else " --link" if args.link else ""
    error = Cancelled(
        f"interrupted: job {work.job} was stopped, and {args.name or os.path.basename(args.path)} was not added",
        hint=f"to go on, run it again: {again}",
    )
    return session.fail(error, exit_code=exits.INTERRUPTED)


def _print(session: Session, added: Added) -> None:
    if session.events:
        session.out.record({"type": "result", "value": added})
    elif session.json:
        session.out.document(added)
    elif session.quiet:
        session.out.line(added.name)
    else:
        known = ", its bytes were there already" if added.reused else ""
        files = f", {len(added.files)} files" if added.files else ""
        session.out.line(f"{added.name}  {figures.size(added.size_bytes)}  {added.format}{files}{known}")
        session.out.line(printable(added.path))
