"""The settings, decoded once into one frozen tree.

A flag overrides an environment variable, and a variable overrides the file. Every other room takes the values that it
needs as arguments and reads neither the file nor a setting's variable.

Importing this package loads tomllib and nothing heavier, so `modeld --check-config` and a failing start answer at once.
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
    ScrubSettings,
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
    "ScrubSettings",
    "Settings",
    "StoreSettings",
    "TransferSettings",
    "dump",
    "load",
    "log_directory",
    "state_directory",
]
