"""The one way in which a configuration is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from modelwire import exits


class ConfigError(Exception):
    """One line that says which value of which file, variable or flag is wrong, and why; `hint` says what to do.

    `problems` holds every line when there are several: a check of the file shows them all at once.
    """

    exit_code: ClassVar[int] = exits.USAGE

    def __init__(self, message: str, *, hint: str | None = None, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.problems = tuple(problems) or (message,)
