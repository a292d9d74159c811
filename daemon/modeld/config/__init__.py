"""What the operator may choose, decoded once into one frozen tree.

File below, environment over it, flags on top. Everything above this room takes the values it needs as arguments, so
that no other room reads a file or a variable to find out how it should behave.

This package costs a tomllib and nothing more to import: `modeld --check-config` and a failing start answer at once.
"""

from modeld.config.dump import dump
from modeld.config.errors import ConfigError
from modeld.config.load import Loaded, load
from modeld.config.places import log_directory, state_directory
from modeld.config.settings import (
    AccessSettings,
    ActivitySettings,
    DaemonSettings,
    JobSettings,
    LimitSettings,
    LogSettings,
    Mirror,
    Settings,
    StoreSettings,
    TransferSettings,
)

__all__ = [
    "AccessSettings",
    "ActivitySettings",
    "ConfigError",
    "DaemonSettings",
    "JobSettings",
    "LimitSettings",
    "Loaded",
    "LogSettings",
    "Mirror",
    "Settings",
    "StoreSettings",
    "TransferSettings",
    "dump",
    "load",
    "log_directory",
    "state_directory",
]
