"""`unpin NAME`: lets a pinned model be removed again."""

from __future__ import annotations

import argparse

from modelclient.ctl.session import Session
from modelclient.ctl.verbs.pin import configure as configure
from modelclient.ctl.verbs.pin import set_pin


def run(session: Session, args: argparse.Namespace) -> None:
    set_pin(session, args.name, pinned=False)
