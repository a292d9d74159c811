"""`pull REF`: fetches what a reference names into the store."""

from __future__ import annotations

import argparse

from modelclient import given_files
from modelclient.ctl import submit
from modelclient.ctl.arguments import rate
from modelclient.ctl.output import command, option
from modelclient.ctl.session import Session
from modelclient.local_files import path_of_reference, working_directory
from modelwire.errors import Cancelled, InvalidRequest
from modelwire.limits import CREDENTIALS as LONGEST
from modelwire.values import Pulled


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ref", metavar="REF", help="hf:org/repo/file.gguf, ollama:name, oci://…, https://…, or a path")
    submit.configure(parser, made_of="the reference", license_from=" (default: the one that the source names)")
    parser.add_argument(
        "--include", metavar="GLOB", action="append", default=[], help="fetch only these files; repeatable"
    )
    parser.add_argument(
        "--all", dest="include", action="append_const", const="*", help="fetch all quantisations of a GGUF repository"
    )
    parser.add_argument(
        "--exclude", metavar="GLOB", action="append", default=[], help="leave out these files; repeatable"
    )
    parser.add_argument("--offline", action="store_true", help="open no connection; use only what this machine has")
    parser.add_argument(
        "--credentials-file",
        metavar="FILE",
        help="a file with a token for hf:, or with user:password for other places; - for standard input",
    )
    parser.add_argument("--max-rate", metavar="RATE", type=rate, help="fetch at most this much, such as 20MB/s")


def run(session: Session, args: argparse.Namespace) -> None:
    ref = submit.sendable(args.ref, "reference")
    credentials = None if args.credentials_file is None else _credentials(args.credentials_file)
    options = submit.options(args)
    client = session.client()
    directory = working_directory()
    if (path := path_of_reference(ref, directory)) is not None:
        submit.note_readers(session, path)
    submit.submit(
        session,
        lambda: client.pull(
            ref,
            include=tuple(args.include),
            exclude=tuple(args.exclude),
            offline=args.offline,
            max_rate=args.max_rate,
            directory=directory,
            credentials=credentials,
            **options,
        ),
        detach=args.detach,
        stopped=lambda words: _stopped(words, args),
        known=_known,
    )


def _credentials(file: str) -> str:
    """The first line. A word of the command would be seen in the list of processes, and in the shell's history."""
    data = given_files.read(file, "file of credentials", LONGEST + 2)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise InvalidRequest(
            f"the credentials in {file} cannot be read: it is not text", hint="Write a token, or user:password."
        ) from None
    line = text.strip()
    if not line or len(line) > LONGEST or not line.isprintable():
        raise InvalidRequest(
            f"{file} must have one line of at most {LONGEST} characters: a token, or user:password",
            hint="Write nothing else into it.",
        )
    return line


def _stopped(what: str, args: argparse.Namespace) -> Cancelled:
    words = submit.words(args)
    for name in ("include", "exclude"):
        for glob in getattr(args, name):
            words += option(name, glob)
    if args.credentials_file is not None:
        words += option("credentials-file", args.credentials_file)
    words += ["--offline"] if args.offline else []
    words += ["--max-rate", str(args.max_rate)] if args.max_rate else []
    return Cancelled(
        f"interrupted: {what}; what has arrived is kept",
        hint=f"To go on from there, run `{command('pull', [args.ref], words)}` again.",
    )


def _known(pulled: Pulled) -> str:
    return ", current" if pulled.current else ", its bytes were there already" if pulled.reused else ""
