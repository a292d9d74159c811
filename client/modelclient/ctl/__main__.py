"""`modelctl` starts here, and `python -m modelclient.ctl`: the fast path first, then the full command."""

from __future__ import annotations

import os
import sys


def main() -> int:
    _stand_in_for_closed_streams()
    from modelclient.ctl import fast_path

    arguments = sys.argv[1:]
    path = fast_path.answer(arguments)
    if path is not None:
        try:
            os.write(1, os.fsencode(path) + b"\n")
        except OSError:
            pass  # the full command reports what is wrong with its output
        else:
            return 0
    from modelclient.ctl.command import main as command

    return command(arguments)


def _stand_in_for_closed_streams() -> None:
    """Where standard streams are closed, the next socket or file would get their numbers, and what is printed.

    What stands in for the output can only be read, so that writing fails as it does on a closed one.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_WRONLY if number == 2 else os.O_RDONLY)
            setattr(sys, name, os.fdopen(opened, mode, errors="backslashreplace", closefd=False))


if __name__ == "__main__":
    sys.exit(main())
