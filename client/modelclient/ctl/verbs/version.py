"""`version`: the versions of this command, and of the daemon when one runs. Never starts one."""

from __future__ import annotations

import argparse

from modelclient.ctl.output import printable
from modelclient.ctl.session import Session
from modelwire.limits import PROTOCOL_MAX, PROTOCOL_MIN
from modelwire.version import __version__


def run(session: Session, _: argparse.Namespace) -> None:
    mine = f"modelctl/{__version__}"
    if not session.raw:
        # Before the daemon is asked: one of another protocol is a reason to look here, and ends in an error.
        session.out.line(__version__ if session.quiet else mine.replace("/", " "))
        if session.quiet:
            return
    client = session.running()
    server = client.hello.server if client else None
    session.show(
        {"client": mine, "server": server, "protocol": {"min": PROTOCOL_MIN, "max": PROTOCOL_MAX}},
        quiet=(),
        text=f"{printable(server).replace('/', ' ', 1)}\n" if server else "no daemon runs\n",
    )
