"""`store`: what is done to the whole store. Each of these verbs has a module of its own."""

from __future__ import annotations

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(metavar="WHAT", required=True, prog=parser.prog)
    move = verbs.add_parser(
        "move",
        help="move the store to another directory; its models are served meanwhile",
        description="Moves the whole store to another directory, and serves its models meanwhile. The path of the store"
        " stays as it is: it leads to the new directory afterwards.",
        allow_abbrev=False,
    )
    move.set_defaults(module="store_move")
