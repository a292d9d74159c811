"""The full command: options, verb, and the one place where a fault becomes two lines and an exit code."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from modelclient.ctl import exits
from modelclient.ctl.options import UsageError, parse
from modelclient.ctl.output import complain
from modelwire.errors import InvalidRequest, ModeldError

if TYPE_CHECKING:
    from modelclient.ctl.session import Session


def main(arguments: Sequence[str]) -> int:
    try:
        args = parse(arguments)
    except UsageError as error:
        return _unusable(error, as_json="--json" in arguments)
    except SystemExit as asked:  # --help, --version
        return int(asked.code or 0)
    try:
        return _carry_out(args)
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except BrokenPipeError:
        # Whoever read this has enough. Standard output is closed here, or the interpreter complains at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.BROKEN_PIPE
    except OSError as error:
        complain(f"modelctl: the output cannot be written: {error.strerror or error}")
        complain("hint: make room, or send it elsewhere")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.FAILED


def _carry_out(args: argparse.Namespace) -> int:
    from modelclient.ctl.session import Session

    session = Session(args)
    try:
        return _run(session, args)
    except ModeldError as error:
        return session.fail(error)
    finally:
        session.close()


def _unusable(error: UsageError, *, as_json: bool) -> int:
    from modelclient.ctl.session import tell

    return tell(InvalidRequest(error.message, hint=error.hint), as_json=as_json)


def _run(session: Session, args: argparse.Namespace) -> int:
    code = import_module(f"modelclient.ctl.verbs.{args.module}").run(session, args)
    return int(code)
