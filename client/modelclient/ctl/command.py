"""The full command: options, verb, and the one place where an error becomes two lines and an exit code."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from modelclient.ctl.command_line import UsageError, parse
from modelclient.ctl.error_report import report
from modelclient.ctl.output import complain
from modelwire import exits
from modelwire.errors import InvalidRequest, ModeldError


def main(arguments: Sequence[str]) -> int:
    try:
        args = parse(arguments)
    except UsageError as error:
        return report(InvalidRequest(error.message, hint=error.hint), as_json="--json" in arguments)
    except SystemExit as asked:  # --help, --version
        return int(asked.code or 0)
    try:
        return _carry_out(args)
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except BrokenPipeError:
        # The reader of the output has left. Standard output is closed here, or the interpreter complains at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.BROKEN_PIPE
    except OSError as error:
        complain(f"modelctl: the output cannot be written: {error.strerror or error}")
        complain("hint: Make room, or send it elsewhere.")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.FAILED


def _carry_out(args: argparse.Namespace) -> int:
    from modelclient.ctl.session import Session  # it imports the client, which `--help` does not need

    session = Session(args)
    try:
        return import_module(f"modelclient.ctl.verbs.{args.module}").run(session, args) or exits.FINE
    except ModeldError as error:
        return session.fail(error)
    finally:
        session.close()
