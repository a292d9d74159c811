"""A daemon that root runs: a fault in it, or a file that it opens for another user, has root's rights."""

from __future__ import annotations

from modeld.config import ConfigError, Settings
from modeld.platform import accounts, peers

_ADVICE = "Run it as a user of its own, as the unit modeld.service does."


def warning(uid: peers.UserId) -> str | None:
    """For the log at the start, and for every status."""
    return None if uid != accounts.ROOT else f"the daemon runs as root, so a fault in it has root's rights. {_ADVICE}"


def refuse_others(settings: Settings, uid: peers.UserId) -> None:
    """Raises ConfigError when other users would be served with root's rights, unless the configuration allows it."""
    if uid == accounts.ROOT and settings.access.opens_to_others and not settings.daemon.allow_root:
        raise ConfigError(
            "the daemon runs as root, and [access] gives other users a role",
            hint=f"{_ADVICE} To serve them as root all the same, set allow_root = true in [daemon].",
        )
