"""The fast path of `modelctl`: answers `path NAME` when a daemon runs, and leaves everything else to the full command.

People put `$(modelctl path NAME)` into loops and prompts, so it must feel like a shell builtin. The interpreter starts
in 8 ms; `json` adds 5 to that, `socket` 5, msgspec 20. So only their C halves are used here, and nothing is decided:
whatever is not the plain good case, every error and every unusual state, is left to the full command, which asks again.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # typing's own takes longer to import than all of this module
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from modelclient.platform.interface import Channel

VERBS = ("path", "resolve")
PLAIN_STATES = ("ready", "loaded")
"""States in which the path is the whole answer. What becomes of any other the full command decides."""

PATIENCE_SECONDS = 5.0
LONGEST_ANSWER = 64 * 1024
PROTOCOL = 1


def main() -> int:
    _stand_in_for_closed_streams()
    arguments = sys.argv[1:]
    path = _answer(arguments)
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


def _answer(arguments: Sequence[str]) -> str | None:
    """The path to print, or None whenever there is anything to explain."""
    if len(arguments) != 2 or arguments[0] not in VERBS:
        return None
    name = arguments[1]
    # Names are ASCII and need no escapes in JSON; which of them are good the daemon decides.
    if not name or name[0] == "-" or not (name.isascii() and name.isprintable()) or '"' in name or "\\" in name:
        return None
    try:
        from modelclient import locate
        from modelclient.platform import system

        endpoint = locate.find()
        if locate.fault(endpoint) is not None:
            return None
        channel = system.connect(endpoint.path, wait=False, named=endpoint.named, system=endpoint.system)
        try:
            channel.settimeout(PATIENCE_SECONDS)
            # Without waiting for the hello: when it turns out to be another protocol, the answer is not used.
            channel.sendall(b'{"op":"model.resolve","id":"1","name":"%s"}\n' % name.encode())
            hello, answer = map(_decoded, _two_lines(channel))
            return None if locate.other_store(hello["store"]) else _path_in(hello, answer)
        finally:
            channel.close()
    except (OSError, ValueError, ImportError, LookupError, TypeError, StopIteration):
        return None


def _two_lines(channel: Channel) -> tuple[str, str]:
    """The daemon's hello and its reply."""
    held = b""
    while held.count(b"\n") < 2:
        more = channel.recv(LONGEST_ANSWER)
        held += more
        if not more or len(held) > LONGEST_ANSWER:
            raise ValueError("no answer")
    hello, answer, _ = held.decode().split("\n", 2)
    return hello, answer


def _path_in(hello: Any, reply: Any) -> str | None:
    spoken = hello["protocol"]
    if not spoken["min"] <= PROTOCOL <= spoken["max"] or reply["id"] != "1" or reply["type"] != "result":
        return None
    value = reply["value"]
    return str(value["path"]) if value["state"] in PLAIN_STATES else None


def _decoded(text: str) -> Any:
    """The scanner that `json.loads` runs on, without the five milliseconds of importing `json`."""
    from _json import make_scanner

    class Plain:
        strict = True
        object_hook = object_pairs_hook = None
        parse_float = parse_constant = float
        parse_int = int

    scanner: Any = make_scanner
    value, _ = scanner(Plain)(text, 0)
    return value
