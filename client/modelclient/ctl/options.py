"""The command line: which verbs there are, and the options that may stand before or after each of them."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NoReturn, TypeVar

from modelclient.ctl.exits import USAGE
from modelwire.version import __version__

VERBS: tuple[tuple[str, str, str], ...] = (
    ("add", "", "a file into the store"),
    ("pull", "", "what a reference means into the store"),
    ("list", "ls", "the models that are there"),
    ("show", "inspect", "everything about one model"),
    ("path", "resolve", "the path of a model, and nothing else"),
    ("cp", "", "a second name for a model"),
    ("mv", "", "another name for a model"),
    ("rm", "", "names away; the bytes wait for a sweep"),
    ("verify", "", "hash the bytes of models again"),
    ("quarantine", "", "bad bytes that are kept"),
    ("usage", "", "what the models take"),
    ("sweep", "gc", "take back what nothing holds"),
    ("jobs", "ps", "work that runs, waits or has ended"),
    ("job", "", "everything about one job"),
    ("attach", "", "follow a job until it ends"),
    ("cancel", "", "end a job"),
    ("pause", "", "let a job rest"),
    ("resume", "", "let a paused job go on"),
    ("status", "", "how the daemon is"),
    ("watch", "", "what happens, as it happens"),
    ("log", "", "what has happened"),
    ("set", "", "another value for a setting of the running daemon, or of a job"),
    ("start", "", "start a daemon when none runs"),
    ("stop", "", "stop the daemon in good order"),
    ("version", "", "the versions of this command and of the daemon"),
)
"""Name, short form, what it does. The module of a verb has its name."""

DEFAULTS: dict[str, Any] = {
    "json": False,
    "events": False,
    "quiet": False,
    "no_progress": False,
    "color": "auto",
    "socket": None,
    "no_start": False,
    "timeout": 30.0,
}


_NO_VERB = re.compile(r"^argument VERB: invalid choice: '(.*?)' \(choose")

Amount = TypeVar("Amount", int, float)


class UsageError(Exception):
    """The command line says what cannot be done."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = USAGE


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line and where to look in a second one."""

    def error(self, message: str) -> NoReturn:
        found = _NO_VERB.search(message)
        if found is None:
            raise UsageError(message, f"see {self.prog} --help")
        from difflib import get_close_matches

        near = get_close_matches(found[1], [word for name, short, _ in VERBS for word in (name, short) if word], n=1)
        hint = f"did you mean {near[0]}? All verbs: modelctl --help" if near else "all verbs: modelctl --help"
        raise UsageError(f"there is no verb {found[1]!r}", hint)


class VerbParser(Parser):
    """Asks its verb for its arguments when that verb is called, and only then imports it."""

    verb: str
    configured = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if not self.configured:
            self.configured = True
            _add_common(self)
            import_module(f"modelclient.ctl.verbs.{self.verb}").configure(self)
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            # The parser above this one would refuse them too, and point to a help that says nothing of the verb.
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = _parser()
    namespace = argparse.Namespace(**DEFAULTS)
    found = parser.parse_args(_with_reversed_order(arguments), namespace)
    if not found.verb:
        parser.print_help(sys.stderr)
        raise UsageError("no verb was given", "start with: modelctl status")
    return found


def _with_reversed_order(arguments: Sequence[str]) -> list[str]:
    """`--sort -size` in one word: on its own the key looks like an option."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] == "--sort" and re.fullmatch(r"-[a-z]{3,}", argument):
            joined[-1] = f"--sort={argument}"
        else:
            joined.append(argument)
    return joined


def _parser() -> Parser:
    # Two ends of one command line write into one namespace: a default of the verb's side must not undo the other side.
    parser = Parser(
        prog="modelctl",
        description="Talks to modeld, the daemon that owns this machine's store of model weights.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"modelctl {__version__}")
    _add_common(parser)
    verbs = parser.add_subparsers(
        dest="verb", metavar="VERB", title="verbs", parser_class=VerbParser, prog="modelctl", required=False
    )
    for name, short, does in VERBS:
        verb = verbs.add_parser(
            name,
            aliases=[short] if short else [],
            help=does,
            description=does[0].upper() + does[1:] + ".",
            argument_default=argparse.SUPPRESS,
            allow_abbrev=False,
        )
        verb.verb = name
        verb.set_defaults(module=name)
    parser.set_defaults(verb=None)
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    every = parser.add_argument_group("options of every verb")
    every.add_argument("--json", action="store_true", help="one JSON document on standard output")
    every.add_argument("--events", action="store_true", help="everything that the daemon says, as NDJSON")
    every.add_argument("-q", "--quiet", action="store_true", help="names, ids or paths only")
    every.add_argument("--no-progress", action="store_true", help="nothing about progress on standard error")
    every.add_argument("--color", choices=("auto", "always", "never"), help="colours (default: auto; NO_COLOR counts)")
    every.add_argument("--socket", metavar="PATH", help="the daemon's endpoint")
    every.add_argument("--no-start", action="store_true", help="never start a daemon")
    every.add_argument(
        "--timeout", metavar="SECONDS", type=seconds(0.001, 1e6), help="patience with each answer (default: 30)"
    )


def number(least: int, most: int | None = None) -> Callable[[str], int]:
    """The type of an argument that counts something."""
    return _bounded(int, "a number", least, most)


def seconds(least: float, most: float) -> Callable[[str], float]:
    return _bounded(float, "a number of seconds", least, most)


def _bounded(convert: Callable[[str], Amount], what: str, least: float, most: float | None) -> Callable[[str], Amount]:
    def read(text: str) -> Amount:
        try:
            found = convert(text)
            if found >= least and (most is None or found <= most):
                return found
        except ValueError:
            pass
        to = f" to {most:.15g}" if most is not None else ""
        raise argparse.ArgumentTypeError(f"{text!r} is not {what} from {least:.15g}{to}")

    return read
