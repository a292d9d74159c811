"""The error for every fault of a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from modelwire import exits


class ConfigError(Exception):
    """`message` is one line: which value of which file, variable or flag is wrong, and why. `hint` says what to do.

    `problems` holds one such line for each fault; `modeld --check-config` prints them all.
    """

    exit_code: ClassVar[int] = exits.USAGE

    def __init__(self, message: str, *, hint: str | None = None, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.problems = tuple(problems) or (message,)
