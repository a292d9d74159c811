"""`start`: starts a daemon if none runs."""

from __future__ import annotations

import argparse

from modelclient.connect_or_start import connect
from modelclient.ctl.session import Session
from modelclient.ctl.table import line


def run(session: Session, _: argparse.Namespace) -> None:
    # Connects without waiting for an answer: a daemon that is stuck runs all the same.
    probe = connect(session.socket)[1]
    if probe is not None:
        probe.close()
    status = session.client().status()
    started = probe is None
    word = "started" if started else "runs already"
    session.show(
        {"socket": status.socket, "pid": status.pid, "started": started, "store": status.store},
        quiet=[status.socket],
        text=line(f"{word}: {status.server}, pid {status.pid}, at {status.socket}"),
    )
