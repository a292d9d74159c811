"""`make bench`, or `make bench BENCH="answers command"` for some of them."""

from __future__ import annotations

import argparse
import importlib
import sys

SUITES = {
    "answers": "what a running daemon answers, beside redis and a bare echo",
    "fanout": "events to a hundred watchers, beside redis pub/sub",
    "command": "the start-up of modelctl, beside the interpreter and other commands",
    "scale": "a store of 100,000 blobs, and a daemon with nothing to do",
    "adding": "adding files, beside openssl and other stores",
    "ring": "the buffers between reading, writing and hashing: how many, and how big",
    "verifying": "verifying blobs, in full and quickly, beside openssl and beside reading them",
    "scrubbing": "a scrub of 20 GB beside clients, and one beside a plain read of the disk",
    "moving": "the move of a store beside a plain copy, and how long clients wait meanwhile",
    "headers": "reading headers: a big vocabulary beside the format's own library, and damaged ones",
    "downloads": "fetching a file over HTTP, beside curl and aria2",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("suite", nargs="*", help=", ".join(f"{name}: {what}" for name, what in SUITES.items()))
    wanted = parser.parse_args().suite or list(SUITES)
    unknown = [name for name in wanted if name not in SUITES]
    if unknown:
        parser.error(f"no such suite: {', '.join(unknown)}; there are {', '.join(SUITES)}")
    for name in wanted:
        print(f"\n== {name}: {SUITES[name]}", flush=True)
        importlib.import_module(f"bench.{name}").main([])
    return 0


if __name__ == "__main__":
    sys.exit(main())
