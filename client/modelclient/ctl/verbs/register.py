"""`register MANIFEST`: makes a model known before its bytes are here.

`register ID PATH`: takes an existing file into the store under an id, without a copy.
"""

from __future__ import annotations

import argparse
import os
from functools import partial
from typing import Any

from modelclient import given_files
from modelclient.ctl import submit
from modelclient.ctl.output import command, option
from modelclient.ctl.session import Session
from modelclient.ctl.table import line
from modelwire.errors import Cancelled, InvalidRequest
from modelwire.limits import DOCUMENT
from modelwire.values import Added


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what", metavar="MANIFEST|ID", help="a file with the JSON document of a model, or with PATH the id of that file"
    )
    parser.add_argument("path", metavar="PATH", nargs="?", help="a file that is shared with the store under this id")
    parser.add_argument("--name", help="the name of the model (default: its id, or made of the file's name)")
    parser.add_argument("--sha256", metavar="HEX", help="with PATH: the digest that the file must have")


def run(session: Session, args: argparse.Namespace) -> None:
    if args.path is not None:
        _register_file(session, args)
        return
    if args.sha256 is not None:
        raise InvalidRequest(
            "--sha256 is for a file: a document has the digest in `sha256`",
            hint="To register a file, run `modelctl register ID PATH --sha256 HEX`.",
        )
    done = session.client().register(_read(args.what), name=args.name)
    state = "registered" if done.changed else "registered already"
    session.show(done, quiet=[done.name], text=line(done.name, state))


def _register_file(session: Session, args: argparse.Namespace) -> None:
    if not args.path:
        raise InvalidRequest("the path is empty", hint="Name a file.")
    path, known_as = submit.sendable(os.path.abspath(args.path), "path"), submit.sendable(args.what, "id")
    client = session.client()
    submit.note_readers(session, path)
    submit.submit(
        session,
        lambda: client.register_file(known_as, path, sha256=args.sha256, name=args.name),
        detach=False,
        stopped=lambda words: _stopped(words, args),
        known=partial(_known, known_as),
    )


def _stopped(what: str, args: argparse.Namespace) -> Cancelled:
    words = [each for name in ("name", "sha256") if (value := getattr(args, name)) for each in option(name, value)]
    return Cancelled(
        f"interrupted: {what}, and {args.what} was not registered",
        hint=f"To go on, run `{command('register', [args.what, args.path], words)}` again.",
    )


def _known(id_: str, added: Added) -> str:
    known = f", known as {id_}" if id_ != added.name else ""
    return f"{known}, its bytes were there already" if added.reused else known


def _read(path: str) -> dict[str, Any]:
    return given_files.read_object(
        path,
        "manifest",
        DOCUMENT,
        of_one="Give the document of one model.",
        otherwise="`modelctl template ID` prints such a document; to register a file, run `modelctl register ID PATH`.",
    )
