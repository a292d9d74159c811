"""`pull REF`: what a reference means into the store."""

from __future__ import annotations

import argparse
import os
import shlex

from modelclient.ctl import bringing, rates
from modelclient.ctl.session import Session
from modelwire.errors import Cancelled
from modelwire.values import Pulled


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ref", metavar="REF", help="hf:org/repo/file.gguf, ollama:name, oci://…, https://…, or a path")
    bringing.configure(parser, made_of="the reference", license_from=" (default: what it says)")
    parser.add_argument("--include", metavar="GLOB", action="append", default=[], help="only these files; repeatable")
    parser.add_argument("--exclude", metavar="GLOB", action="append", default=[], help="not these files; repeatable")
    parser.add_argument(
        "--offline", action="store_true", default=False, help="open no connection: what is here, or not"
    )
    parser.add_argument("--max-rate", metavar="RATE", type=_rate, default=None, help="bytes a second, such as 20MB")


def run(session: Session, args: argparse.Namespace) -> int:
    ref = bringing.written(args.ref, "reference")
    client = session.client()
    return bringing.bring_in(
        session,
        lambda: client.pull(
            ref,
            name=args.name,
            sha256=args.sha256,
            replace=args.replace,
            license=args.license,
            include=tuple(args.include),
            exclude=tuple(args.exclude),
            offline=args.offline,
            max_rate=args.max_rate,
            directory=_directory(),
            priority=args.priority,
            on_disconnect="continue" if args.detach else "cancel",
        ),
        detach=args.detach,
        stopped=lambda job: _stopped(job, args),
        known=_known,
    )


def _rate(text: str) -> int | None:
    try:
        return rates.parse(text) or None
    except ValueError as fault:
        raise argparse.ArgumentTypeError(str(fault)) from None


def _directory() -> str | None:
    """Where relative paths start; none when that place is gone or cannot be written in UTF-8."""
    try:
        directory = os.getcwd()
        directory.encode()
    except (OSError, UnicodeEncodeError):
        return None
    return directory


def _stopped(job: str | None, args: argparse.Namespace) -> Cancelled:
    words = ["modelctl", "pull", args.ref, *bringing.options_of(args)]
    for option in ("include", "exclude"):
        for glob in getattr(args, option):
            words += [f"--{option}", glob]
    words += ["--offline"] if args.offline else []
    words += ["--max-rate", str(args.max_rate)] if args.max_rate else []
    return Cancelled(
        f"interrupted: job {job} was stopped; what has arrived is kept",
        hint=f"to go on from there, run it again: {shlex.join(words)}",
    )


def _known(pulled: Pulled) -> str:
    return ", current" if pulled.current else ", its bytes were there already" if pulled.reused else ""
