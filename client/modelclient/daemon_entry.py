"""The `modeld` script of an installation that may lack the daemon's packages: then it reports what to install."""

from __future__ import annotations

import sys

from modelwire import exits


def main() -> int:
    from modelclient.autostart import INSTALL, missing_packages

    if missing := missing_packages():
        sys.stderr.write(f"modeld: the daemon cannot run: this installation lacks {', '.join(missing)}\n")
        sys.stderr.write(f"modeld: Install it with `{INSTALL}`.\n")
        return exits.NO_DAEMON
    from modeld.__main__ import main as run

    return int(run() or exits.FINE)


if __name__ == "__main__":
    sys.exit(main())
