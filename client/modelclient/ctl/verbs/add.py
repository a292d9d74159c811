"""`add PATH`: a file into the store."""

from __future__ import annotations

import argparse
import os
import shlex

from modelclient.ctl import bringing
from modelclient.ctl.session import Session
from modelwire.errors import Cancelled, InvalidRequest
from modelwire.values import Added


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", help="the file, the directory, or any part of a set of GGUF shards")
    bringing.configure(parser, made_of="the file's name")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--move", action="store_true", default=False, help="take the source away when the model is there")
    how.add_argument("--link", action="store_true", default=False, help="share the bytes: the source becomes read-only")


def run(session: Session, args: argparse.Namespace) -> int:
    if not args.path:
        raise InvalidRequest("the path is empty", hint="name a file or a directory; . is the one you are in")
    path = bringing.written(os.path.abspath(args.path), "path")
    client = session.client()
    return bringing.bring_in(
        session,
        lambda: client.add(
            path,
            name=args.name,
            sha256=args.sha256,
            replace=args.replace,
            license=args.license,
            move=args.move,
            link=args.link,
            priority=args.priority,
            on_disconnect="continue" if args.detach else "cancel",
        ),
        detach=args.detach,
        stopped=lambda job: _stopped(job, args),
        known=_known,
    )


def _stopped(job: str | None, args: argparse.Namespace) -> Cancelled:
    words = ["modelctl", "add", args.path, *bringing.options_of(args)]
    words += ["--move"] if args.move else ["--link"] if args.link else []
    return Cancelled(
        f"interrupted: job {job} was stopped, and {args.name or os.path.basename(args.path)} was not added",
        hint=f"to go on, run it again: {shlex.join(words)}",
    )


def _known(added: Added) -> str:
    return ", its bytes were there already" if added.reused else ""
