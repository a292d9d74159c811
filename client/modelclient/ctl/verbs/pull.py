"""`pull REF`: what a reference means into the store."""

from __future__ import annotations

import argparse
import os
import shlex

from modelclient.ctl import exits, figures
from modelclient.ctl.following import follow, interruptible
from modelclient.ctl.output import printable
from modelclient.ctl.session import Session
from modelclient.ctl.verbs.add import leave
from modelclient.exchange import Work
from modelwire.errors import Cancelled, InvalidRequest
from modelwire.values import Pulled

_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ref", metavar="REF", help="hf:org/repo/file.gguf, ollama:name, oci://…, https://…, or a path")
    parser.add_argument("--name", default=None, help="the model's name (default: made of the reference)")
    parser.add_argument("--sha256", metavar="HEX", default=None, help="the digest that the file must have")
    parser.add_argument("--replace", action="store_true", default=False, help="take the place of a model of that name")
    parser.add_argument("--license", metavar="ID", default=None, help="noted in the manifest (default: what it says)")
    parser.add_argument("--include", metavar="GLOB", action="append", default=[], help="only these files; repeatable")
    parser.add_argument("--exclude", metavar="GLOB", action="append", default=[], help="not these files; repeatable")
    parser.add_argument(
        "--offline", action="store_true", default=False, help="open no connection: what is here, or not"
    )
    parser.add_argument("--max-rate", metavar="RATE", type=_rate, default=None, help="bytes a second, such as 20MB")
    parser.add_argument("--priority", type=int, choices=range(1, 6), default=3, help="1 is the highest (default: 3)")
    parser.add_argument("--detach", action="store_true", default=False, help="print the job's id and leave it running")


def run(session: Session, args: argparse.Namespace) -> int:
    client = session.client()
    with interruptible() as interruption:
        work = client.pull(
            _written(args.ref),
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


def _rate(text: str) -> int:
    """`20MB`, `500k`, `20MB/s`: decimal, as networks count."""
    number = text.strip().lower().removesuffix("/s").removesuffix("b")
    unit = number[-1:] if number[-1:] in ("k", "m", "g") else ""
    try:
        rate = int(float(number.removesuffix(unit)) * _UNITS[unit])
    except (ValueError, OverflowError):
        rate = 0
    if not 1000 <= rate < 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is no rate of at least 1kB: write 20MB for 20 megabytes a second")
    return rate


def _written(ref: str) -> str:
    try:
        ref.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(
            f"the reference {printable(ref)} is not UTF-8, and the protocol is", hint="rename the file, or link to it"
        ) from None
    return ref


def _directory() -> str | None:
    """Where relative paths start; none when that place is gone or cannot be written in UTF-8."""
    try:
        directory = os.getcwd()
        directory.encode()
    except (OSError, UnicodeEncodeError):
        return None
    return directory


def _interrupted(session: Session, work: Work[Pulled], args: argparse.Namespace) -> int:
    words = ["modelctl", "pull", args.ref]
    for option in ("name", "sha256", "license"):
        if getattr(args, option) is not None:
            words += [f"--{option}", getattr(args, option)]
    for option in ("include", "exclude"):
        for glob in getattr(args, option):
            words += [f"--{option}", glob]
    words += ["--replace"] if args.replace else []
    error = Cancelled(
        f"interrupted: job {work.job} was stopped; what has arrived is kept",
        hint=f"to go on from there, run it again: {shlex.join(words)}",
    )
    return session.fail(error, exit_code=exits.INTERRUPTED)


def _print(session: Session, pulled: Pulled) -> None:
    if session.events:
        session.out.record({"type": "result", "value": pulled})
    elif session.json:
        session.out.document(pulled)
    elif session.quiet:
        session.out.line(pulled.name)
    else:
        known = ", current" if pulled.current else ", its bytes were there already" if pulled.reused else ""
        files = f", {len(pulled.files)} files" if pulled.files else ""
        session.out.line(f"{pulled.name}  {figures.size(pulled.size_bytes)}  {pulled.format}{files}{known}")
        session.out.line(printable(pulled.path))
