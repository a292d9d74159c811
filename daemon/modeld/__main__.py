"""The `modeld` command: parses the flags and answers what needs no daemon. `modeld.app` runs the daemon."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from modeld.config import ConfigError, Settings, dump, load
from modeld.config.load import CHECK_HINT
from modelwire import exits
from modelwire.version import __version__


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="modeld",
        description="The daemon that owns this machine's store of model weights.",
        epilog="A flag overrides a MODELD_* variable, and a variable overrides the configuration file.",
    )
    made.add_argument("--version", action="version", version=f"modeld {__version__}")
    made.add_argument("--config", metavar="FILE", help="configuration file to read")
    made.add_argument("--socket", metavar="PATH", help="path of the socket to listen on")
    made.add_argument("--models-home", metavar="DIR", help="root of the store")
    made.add_argument("--state-dir", metavar="DIR", help="directory of the activity log")
    made.add_argument(
        "--log-level", choices=["debug", "info", "warning", "error"], help="lowest level that the daemon logs"
    )
    made.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="change a setting, for example limits.write_stall=5s; can be given several times",
    )
    instead = made.add_mutually_exclusive_group()
    instead.add_argument("--check-config", action="store_true", help="check the configuration and exit")
    instead.add_argument("--print-config", action="store_true", help="print every setting and its value, and exit")
    made.add_argument("--auto-started", action="store_true", help=argparse.SUPPRESS)
    made.add_argument("--ready-fd", type=int, metavar="FD", help=argparse.SUPPRESS)
    return made


def overrides(flags: argparse.Namespace) -> dict[str, Any]:
    """The flags as settings, under the names that the configuration file uses."""
    found: dict[str, Any] = {}
    for pair in flags.set:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--set {pair!r} is not KEY=VALUE", hint="Write, say, --set limits.write_stall=5s.")
        found[key.strip()] = value
    named = {
        "socket": flags.socket,
        "models_home": flags.models_home,
        "state_dir": flags.state_dir,
        "log.level": flags.log_level,
    }
    found.update({key: value for key, value in named.items() if value is not None})
    return found


def _check_places(settings: Settings) -> None:
    """Checks the directories that the configuration names. Those that it leaves out depend on each start."""
    from modeld.config.places import state_directory
    from modeld.store import resolve_root

    if settings.models_home:
        resolve_root(settings.models_home, os.environ, sys.platform)
    if settings.state_dir:
        state_directory(settings, os.environ)


def _unverifiable(settings: Settings) -> tuple[str, ...]:
    """Warnings of keys and roots by which no signature can be verified. Raises ConfigError."""
    from modeld.app.trust import trust_rules

    return trust_rules(settings.trust).faults()


def main(arguments: Sequence[str] | None = None) -> int:
    flags = parser().parse_args(arguments)
    from modeld.app.readiness import Readiness

    readiness = Readiness(flags.ready_fd)
    unverifiable: tuple[str, ...] = ()
    try:
        loaded = load(os.environ, overrides=overrides(flags), path=flags.config)
        if flags.check_config:
            _check_places(loaded.settings)
            unverifiable = _unverifiable(loaded.settings)
    except ConfigError as error:
        if flags.check_config:
            sys.stderr.write("".join(f"modeld: {problem}\n" for problem in error.problems))
            sys.stderr.write(f"  {error.hint}\n" if error.hint not in (None, CHECK_HINT) else "")
            return exits.USAGE
        return readiness.failed(error.message, hint=error.hint, code="invalid_request", exit_code=exits.USAGE)
    if flags.print_config:
        sys.stdout.write(dump(loaded.settings))
        return 0
    if flags.check_config:
        from modeld.app.compose import rights

        _, access, lending = rights(loaded)
        warnings = (*loaded.warnings, *access.warnings, *lending.warnings, *unverifiable)
        for warning in warnings:
            sys.stderr.write(f"modeld: warning: {warning}\n")
        verdict = "valid, with the warnings above" if warnings else "good"
        sys.stdout.write(f"{loaded.path or 'no configuration file, only defaults'}: {verdict}\n")
        return 0
    # structlog loads rich where it is installed, to draw tracebacks, which the daemon never does: 4.5 MiB and 50 ms.
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]
    from modeld.app.run import run

    return run(loaded, readiness, auto_started=flags.auto_started)


if __name__ == "__main__":
    sys.exit(main())
