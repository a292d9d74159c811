"""A real daemon that scrubs soon after its start and as often as its configuration says: run as a program, this is that
daemon. Nothing of it is replaced but four times of waiting."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from rigs.real_daemon import TESTS, RealDaemon


class EagerDaemon(RealDaemon):
    def __init__(self, room: str, environ: Mapping[str, str] | None = None) -> None:
        super().__init__(room, {**(environ or {}), "PYTHONPATH": TESTS})
        self.program = (os.path.abspath(__file__),)


def _main() -> int:
    from modeld.__main__ import main
    from modeld.app import serve
    from modeld.config import settings
    from modeld.store.maintain import scrub
    from modelwire.units import Duration

    vars(serve).update(_FIRST_SCRUB_SECONDS=0.1, _PLAN_SCRUB_SECONDS=0.2)
    vars(scrub).update(_PLACE_SECONDS=0.2)
    vars(settings).update(SHORTEST_SCRUB=Duration(0))
    return main()


if __name__ == "__main__":
    sys.exit(_main())
