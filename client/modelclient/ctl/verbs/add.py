"""`add PATH`: adds a file, a directory or a set of shards to the store."""

from __future__ import annotations

import argparse
import os

from modelclient.ctl import submit
from modelclient.ctl.output import command
from modelclient.ctl.session import Session
from modelwire.errors import Cancelled, InvalidRequest
from modelwire.values import Added


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", help="the file, the directory, or any part of a set of GGUF shards")
    submit.configure(parser, made_of="the file's name")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--move", action="store_true", help="remove the source when the model is in the store")
    how.add_argument("--link", action="store_true", help="share the bytes with the source, which becomes read-only")


def run(session: Session, args: argparse.Namespace) -> None:
    if not args.path:
        raise InvalidRequest("the path is empty", hint="Name a file or a directory; . is the current one.")
    path = submit.sendable(os.path.abspath(args.path), "path")
    options = submit.options(args)
    client = session.client()
    submit.note_readers(session, path)
    submit.submit(
        session,
        lambda: client.add(path, move=args.move, link=args.link, **options),
        detach=args.detach,
        stopped=lambda words: _stopped(words, args),
        known=_known,
    )


def _stopped(what: str, args: argparse.Namespace) -> Cancelled:
    words = [*submit.words(args), *(["--move"] if args.move else ["--link"] if args.link else [])]
    return Cancelled(
        f"interrupted: {what}, and {args.name or os.path.basename(args.path)} was not added",
        hint=f"To go on, run `{command('add', [args.path], words)}` again.",
    )


def _known(added: Added) -> str:
    return ", its bytes were there already" if added.reused else ""
