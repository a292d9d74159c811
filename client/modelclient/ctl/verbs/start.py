"""`start`: a daemon, when none runs."""

from __future__ import annotations

import argparse

from modelclient import dialing
from modelclient.ctl import exits
from modelclient.ctl.session import Session


def configure(parser: argparse.ArgumentParser) -> None:
    """Nothing of its own."""


def run(session: Session, _: argparse.Namespace) -> int:
    # Looked at without an answer being waited for: a daemon that is stuck is there all the same.
    probe = dialing.dial(dialing.find(session.socket))
    if probe is not None:
        probe.close()
    status = session.client().status()
    started = probe is None
    if session.json or session.events:
        said = {"socket": status.socket, "pid": status.pid, "started": started, "store": status.store}
        (session.out.document if session.json else session.out.record)(said)
    elif session.quiet:
        session.out.line(status.socket)
    else:
        word = "started" if started else "runs already"
        session.out.line(f"{word}: {status.server}, pid {status.pid}, at {status.socket}")
    return exits.FINE
