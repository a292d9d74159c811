"""`modeld --check-config`: the file alone, without what the environment would put over it."""

from __future__ import annotations

from modeld.config.load import Loaded, load


def check(path: str) -> Loaded:
    """The settings of this file, or ConfigError with every problem that it has, one a line in `problems`."""
    return load({}, path=path)
