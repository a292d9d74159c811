"""`store move DIRECTORY`: moves the whole store while it serves; `store move --drop-old` removes the old directory."""

from __future__ import annotations

import argparse
import os
from functools import partial

from modelclient.ctl.follow import stopped, supervise
from modelclient.ctl.output import command, count
from modelclient.ctl.session import Session
from modelclient.ctl.submit import follow_and_show, leave
from modelclient.ctl.table import line
from modelwire.errors import InvalidRequest
from modelwire.units import rounded_size
from modelwire.values import Relocated
from modelwire.vocabulary import OnDisconnect


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "directory", nargs="?", metavar="DIRECTORY", help="where to: a directory that is empty or not there yet"
    )
    parser.add_argument(
        "--drop-old", action="store_true", help="remove the directories that the store was in before it was moved"
    )
    parser.add_argument("--detach", action="store_true", help="print the job's id and leave it running")


def run(session: Session, args: argparse.Namespace) -> None:
    if (not args.directory) != args.drop_old:
        what = "not both" if args.directory else "one of the two"
        raise InvalidRequest(
            f"give a directory to move to, or --drop-old: {what}", hint="See `modelctl store move --help`."
        )
    client = session.client()
    path = None if args.drop_old else os.path.abspath(args.directory)
    show = partial(_dropped if args.drop_old else _moved, session)
    on_disconnect: OnDisconnect = "continue" if args.detach else "cancel"
    words = ["move"] if args.drop_old else ["move", args.directory]
    again = command("store", words, ["--drop-old"] if args.drop_old else [])
    supervise(
        session,
        lambda: client.move_store(path, drop_old=args.drop_old, on_disconnect=on_disconnect),
        lambda work: (leave if args.detach else follow_and_show)(session, work, show),
        lambda _, error: stopped(error, again),
    )


def _moved(session: Session, moved: Relocated) -> None:
    session.show_result(moved, quiet=[moved.path], text=line(moved.path))
    size = f"{count(moved.models, 'model')}, {count(moved.blobs, 'blob')}, {rounded_size(moved.size_bytes)}"
    session.note(f"{size}: {moved.store} leads to {moved.path} now")
    for note in moved.notes:
        session.note(note)
    session.note(f"the old directory is kept in {moved.former}; to remove it: modelctl store move --drop-old")


def _dropped(session: Session, dropped: Relocated) -> None:
    session.show_result(dropped, quiet=[dropped.former], text=line(dropped.former))
    session.note(f"removed, with {count(dropped.blobs, 'blob')} that took {rounded_size(dropped.freed_bytes)}")
    for note in dropped.notes:
        session.note(note)
