"""`path NAME`: where a model's verified bytes are. The fast path answers the plain call; this handles everything else.

A model of several files is a directory that has them under their own names, also when they are shards: `--file` gives
an engine the first shard.
"""

from __future__ import annotations

import argparse

from modelclient.ctl.output import command
from modelclient.ctl.session import Session
from modelwire.errors import Corrupt, NotFound, WireError
from modelwire.values import Resolved
from modelwire.vocabulary import GIVEN_OUT


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="the model")
    parser.add_argument(
        "--file", metavar="F", help="print the path of one file of the model, given by its path in the model"
    )


def run(session: Session, args: argparse.Namespace) -> None:
    resolved = session.client().resolve(args.name, args.file)
    if resolved.state not in GIVEN_OUT:
        raise _withheld(resolved)
    if session.raw:
        session.show(resolved, quiet=())
    else:
        session.out.path(resolved.path)


def _withheld(resolved: Resolved) -> WireError:
    """A caller takes a printed path for complete, verified bytes. For anything less there is no path."""
    details = {"name": resolved.name, "state": resolved.state}
    if resolved.state in ("available", "downloading"):
        return NotFound(
            f"the bytes of {resolved.name} are not here: its state is {resolved.state}",
            hint=f"See how far it is with `{command('show', [resolved.name])}`.",
            details=details,
        )
    return Corrupt(
        f"{resolved.name} is not given out: its state is {resolved.state}",
        hint=f"See why with `{command('show', [resolved.name])}`.",
        details=details,
    )
