"""`update COMMAND.json`: carries out an update command on this machine."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any, Final

from modelclient import given_files
from modelclient.ctl import submit
from modelclient.ctl.follow import follow, supervise
from modelclient.ctl.jobview import NOT_DONE
from modelclient.ctl.output import command
from modelclient.ctl.session import Session
from modelclient.ctl.table import line
from modelclient.ctl.verbs.fit import WORDS as WHAT
from modelclient.ctl.verbs.fit import amount
from modelwire import exits
from modelwire.errors import Cancelled
from modelwire.knowledge.command import LONGEST, UpdateCommand
from modelwire.values import Updated

WORDS: Final = {
    "applied": "applied",
    "not_targeted": "not for this machine",
    "does_not_fit": "does not fit this machine",
    "rolled_back": "rolled back",
    "failed": "failed",
}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("command", metavar="COMMAND.json", help="the command; - reads it from the standard input")
    parser.add_argument("--detach", action="store_true", help="print the job's id and leave it running")


def run(session: Session, args: argparse.Namespace) -> int:
    given, shown = _read(args.command), list[Updated]()

    def show(updated: Updated) -> None:
        shown.append(updated)
        _show(session, updated)

    supervise(
        session,
        partial(session.client().update, given),
        lambda work: submit.leave(session, work, show) if args.detach else show(follow(session, work)),
        lambda work, _: submit.interruption(session, work, lambda words: _stopped(words, args.command)),
    )
    return exits.FAILED if any(updated.outcome in NOT_DONE for updated in shown) else exits.FINE


def _read(path: str) -> dict[str, Any]:
    fields = ", ".join(UpdateCommand.__struct_fields__)
    return given_files.read_object(
        path, "command", LONGEST, of_one="Give one command.", otherwise=f"A command has the fields {fields}."
    )


def _show(session: Session, updated: Updated) -> None:
    session.show(updated, quiet=[updated.version], text=line(updated.name, updated.version, WORDS[updated.outcome]))
    if session.raw:
        return
    for lacking in updated.lines:
        session.note(
            f"{WHAT.get(lacking.what, lacking.what)}: {amount(lacking.needed)} needed, {amount(lacking.here)} here"
        )
        if lacking.hint is not None:
            session.note(f"hint: {lacking.hint}")
    if updated.repeated:
        session.note(f"that was the outcome at {updated.at}; to try again, send a command with another id")
    elif updated.outcome == "applied" and updated.loaded is None:
        session.note("no engine was asked to load it")
    if updated.error is not None:
        session.note(f"{updated.error.message}; {updated.name} stands for {updated.rollback}")
        if updated.error.hint is not None:
            session.note(f"hint: {updated.error.hint}")


def _stopped(what: str, path: str) -> Cancelled:
    return Cancelled(
        f"interrupted: {what}", hint=f"Give the command another id, then run `{command('update', [path], [])}` again."
    )
