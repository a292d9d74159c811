"""A real daemon that kills itself at one step of a publication: run as a program, this is that daemon."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from rigs.real_daemon import TESTS, RealDaemon

STEP: Final = "DYING_DAEMON_STEP"


class DyingDaemon(RealDaemon):
    """Set `dies_at` before a start: `recorded` is after the note that announces a publication, `written` after the
    manifest and before the note that it is there, `None` never."""

    def __init__(self, room: str, environ: Mapping[str, str] | None = None) -> None:
        super().__init__(room, {**(environ or {}), "PYTHONPATH": TESTS})
        self.program = (os.path.abspath(__file__),)

    def dies_at(self, step: str | None) -> DyingDaemon:
        self.environ.pop(STEP, None)
        if step is not None:
            self.environ[STEP] = step
        return self

    def died(self) -> bool:
        return self.wait() == -signal.SIGKILL


def _dying(work: Callable[..., Any]) -> Callable[..., Any]:
    async def then_die(*arguments: Any, **named: Any) -> None:
        await work(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    return then_die


def _main() -> int:
    from modeld.__main__ import main
    from modeld.jobs.publication import PublicationNotes
    from modeld.store.publish.name_changes import NameChanges

    match os.environ.get(STEP):
        case "recorded":
            setattr(PublicationNotes, "about_to_publish", _dying(PublicationNotes.about_to_publish))  # noqa: B010
        case "written":
            setattr(NameChanges, "write", _dying(NameChanges.write))  # noqa: B010
    return main()


if __name__ == "__main__":
    sys.exit(_main())
