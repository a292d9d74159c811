"""`version`: of this command, and of the daemon when one runs. Never starts one."""

from __future__ import annotations

import argparse

from modelclient.ctl import exits
from modelclient.ctl.output import printable
from modelclient.ctl.session import Session
from modelwire.limits import PROTOCOL_MAX, PROTOCOL_MIN
from modelwire.version import __version__


def configure(parser: argparse.ArgumentParser) -> None:
    """Nothing of its own."""


def run(session: Session, _: argparse.Namespace) -> int:
    mine = f"modelctl/{__version__}"
    if not (session.json or session.events):
        # Before the daemon is asked: one of another protocol is a reason to look here, and ends in an error.
        session.out.line(__version__ if session.quiet else mine.replace("/", " "))
        if session.quiet:
            return exits.FINE
    client = session.running()
    server = client.hello.server if client else None
    if session.json or session.events:
        said = {"client": mine, "server": server, "protocol": {"min": PROTOCOL_MIN, "max": PROTOCOL_MAX}}
        (session.out.document if session.json else session.out.record)(said)
    else:
        session.out.line(printable(server).replace("/", " ", 1) if server else "no daemon runs")
    return exits.FINE
