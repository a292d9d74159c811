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
    client = session.running()
    server = client.hello.server if client else None
    if session.json or session.events:
        spoken = {"min": PROTOCOL_MIN, "max": PROTOCOL_MAX}
        said = {"client": f"modelctl/{__version__}", "server": server, "protocol": spoken}
        (session.out.document if session.json else session.out.record)(said)
        return exits.FINE
    session.out.line(__version__ if session.quiet else f"modelctl {__version__}")
    if not session.quiet:
        session.out.line(printable(server).replace("/", " ", 1) if server else "no daemon runs")
    return exits.FINE
