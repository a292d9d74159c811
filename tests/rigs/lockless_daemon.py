"""A real daemon whose locks and turns keep nobody out: run as a program, this is that daemon.

What is published must not hang on them. They are for saving work, and for telling people who is in the way.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rigs.real_daemon import TESTS, RealDaemon


class LocklessDaemon(RealDaemon):
    def __init__(self, room: str) -> None:
        super().__init__(room, {"PYTHONPATH": TESTS})
        self.program = (os.path.abspath(__file__),)


def _main() -> int:
    from modeld.__main__ import main
    from modeld.platform import locks
    from modeld.store.publish import name_locks, publisher

    @asynccontextmanager
    async def nobody(*_: object, **__: object) -> AsyncIterator[None]:
        yield

    vars(vars(locks)["fcntl"])["flock"] = lambda *_: None
    setattr(name_locks.NameLocks, "held", nobody)  # noqa: B010
    setattr(publisher.Publisher, "turn", nobody)  # noqa: B010
    return main()


if __name__ == "__main__":
    sys.exit(_main())
