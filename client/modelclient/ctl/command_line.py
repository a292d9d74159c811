"""The command line: the table of verbs, and the options that may stand before or after each of them."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

from modelclient.ctl.arguments import seconds
from modelwire.limits import REPLY_SECONDS
from modelwire.version import __version__

VERBS: tuple[tuple[str, str, str], ...] = (
    ("add", "", "add a file, a directory or a set of shards to the store"),
    ("pull", "", "fetch what a reference names into the store"),
    ("provision", "", "bring in the models that a file lists, and tell an engine where they are"),
    ("register", "", "make a model known by an id: a file, or a model whose bytes are not here"),
    ("update", "", "carry out a command that brings a new version of a model"),
    ("updates", "", "list the update commands of this machine, and what became of them"),
    ("list", "ls", "list the models"),
    ("show", "inspect", "show everything about one model"),
    ("fit", "", "say whether this machine has what a model needs"),
    ("path", "resolve", "print the path of a model, and nothing else"),
    ("run", "", "run a command that uses a model, and keep the model meanwhile"),
    ("cp", "", "give a model a second name"),
    ("mv", "", "rename a model"),
    ("rm", "", "remove names; the bytes stay until a sweep, or go with --now"),
    ("pin", "", "keep a model for good: only `rm --force` removes it"),
    ("unpin", "", "let a model be removed again"),
    ("verify", "", "hash the bytes of models again"),
    ("repair", "", "fetch again what is damaged or missing of models, and nothing else"),
    ("quarantine", "", "list the bad bytes that are kept, or remove them"),
    ("usage", "", "show the space that the models take"),
    ("sweep", "gc", "remove what nothing holds"),
    ("scrub", "", "read all bytes again, slowly and beside all other work, to find rot"),
    ("store", "", "move the whole store to another directory while it serves"),
    ("template", "", "print the document of a well-known model, to be filled in"),
    ("jobs", "ps", "list the jobs that run, wait or have ended"),
    ("job", "", "show everything about one job"),
    ("attach", "", "follow a job until it ends"),
    ("cancel", "", "end a job"),
    ("pause", "", "pause a job"),
    ("resume", "", "resume a paused job"),
    ("status", "", "show how the daemon is"),
    ("watch", "", "show events and progress as they happen"),
    ("log", "", "show past events"),
    ("set", "", "change settings of the running daemon, or of a job"),
    ("start", "", "start a daemon if none runs"),
    ("stop", "", "stop the daemon in good order"),
    ("version", "", "print the versions of this command and of the daemon"),
)
"""Name, short form, what it does. A verb is one line here and the module of its name in `modelclient.ctl.verbs`."""

DEFAULTS: dict[str, Any] = {
    "json": False,
    "events": False,
    "quiet": False,
    "no_progress": False,
    "color": "auto",
    "socket": None,
    "no_start": False,
    "timeout": REPLY_SECONDS,
}

MEANT = {
    "list": ("models", "tags"),
    "show": ("info", "details", "describe"),
    "fit": ("fits", "check-fit", "requirements"),
    "provision": ("ensure", "ensure-present", "handoff"),
    "path": ("which", "where", "get-path"),
    "add": ("import", "create", "put"),
    "pull": ("get", "fetch", "download", "install"),
    "cp": ("copy", "clone", "tag"),
    "mv": ("move", "rename"),
    "rm": ("remove", "delete", "del", "erase", "uninstall", "rmi", "unlink"),
    "verify": ("check", "validate", "fsck"),
    "repair": ("fix", "heal", "restore"),
    "usage": ("du", "df", "size", "space"),
    "sweep": ("prune", "clean", "cleanup", "collect", "vacuum"),
    "jobs": ("queue", "tasks"),
    "attach": ("follow", "wait"),
    "cancel": ("kill", "abort"),
    "resume": ("continue", "unpause"),
    "status": ("stats", "health"),
    "watch": ("events", "monitor"),
    "log": ("logs", "history"),
    "set": ("config", "configure"),
    "start": ("serve", "daemon", "up"),
    "stop": ("quit", "exit", "shutdown", "down"),
}
"""Words of other tools: what is spelled like one of them (`remove` is like `resolve`) does not mean the same."""

_AMISS = re.compile(r"arguments are required|unrecognized arguments|expected (at least )?one argument")
_ODD = re.compile(r"-[^-0-9]")
_NO_VERB = re.compile(r"^argument VERB: invalid choice: '(.*?)' \(choose")


class UsageError(Exception):
    """The command line cannot be carried out."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Parser(argparse.ArgumentParser):
    """Reports what is wrong in one line, and where to look in a second one."""

    def error(self, message: str) -> NoReturn:
        found = _NO_VERB.search(message)
        if found is None:
            raise UsageError(message, self.hint(message))
        near = _verb_like(found[1])
        hint = "See `modelctl --help` for all verbs."
        raise UsageError(f"there is no verb {found[1]!r}", f"Did you mean {near}? {hint}" if near else hint)

    def hint(self, _message: str) -> str:
        return f"See `{self.prog} --help`."


def _verb_like(word: str) -> str | None:
    """The verb that the user meant, by its spelling or by the word that another tool has for it."""
    from difflib import get_close_matches

    known = {spelled: name for name, spellings in MEANT.items() for spelled in spellings}
    known |= {spelled: name for name, short, _ in VERBS for spelled in (name, short) if spelled}
    word = word.lower()
    # A looser comparison takes `run` for `prune`, `edit` for `exit` and `help` for `health`.
    near = get_close_matches(word, known, n=1, cutoff=0.8) or [like for like in known if sorted(like) == sorted(word)]
    return known[near[0]] if near else None


class VerbParser(Parser):
    """Asks its verb for its arguments when that verb is called, and only then imports it."""

    configured = False
    given: Sequence[str] = ()

    def hint(self, message: str) -> str:
        """A name may begin with `-`, and is then taken for an option that there is not."""
        hint = super().hint(message)
        odd = next((word for word in self.given if _ODD.match(word) and word not in self._option_string_actions), None)
        if odd is None or "--" in self.given or not _AMISS.search(message):
            return hint
        return f"If {odd} is a name, write `--` before it, or `=` between an option and it. {hint}"

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self.given = args
        if not self.configured:
            self.configured = True
            _add_common(self)
            configure = getattr(import_module(f"modelclient.ctl.verbs.{self.get_default('module')}"), "configure", None)
            if configure is not None:
                configure(self)
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            # The parser above this one would refuse them too, and point to a help that does not have the verb.
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = _parser()
    namespace = argparse.Namespace(**DEFAULTS)
    found = parser.parse_args(_with_reversed_order(arguments), namespace)
    if found.json and found.events:
        raise UsageError(
            "--json and --events exclude each other", "Give --json for one document, or --events for the raw stream."
        )
    if not found.verb:
        parser.print_help(sys.stderr)
        raise UsageError(
            "no verb was given", "See what is there with `modelctl list`, or all verbs with `modelctl --help`."
        )
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
    parser = Parser(
        prog="modelctl",
        description="Talks to modeld, the daemon that owns this machine's store of model weights.",
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
            allow_abbrev=False,
        )
        verb.set_defaults(module=name)
    parser.set_defaults(verb=None)
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    # Two ends of one command line write into one namespace: a default of the verb's side must not undo the other side.
    every = parser.add_argument_group("options of every verb", argument_default=argparse.SUPPRESS)
    every.add_argument("--json", action="store_true", help="print one JSON document")
    every.add_argument("--events", action="store_true", help="print everything that the daemon sends, as NDJSON")
    every.add_argument("-q", "--quiet", action="store_true", help="print names, ids or paths only")
    every.add_argument("--no-progress", action="store_true", help="show no progress on standard error")
    every.add_argument("--color", choices=("auto", "always", "never"), help="colours (default: auto; NO_COLOR counts)")
    every.add_argument("--socket", metavar="PATH", help="the daemon's endpoint")
    every.add_argument("--no-start", action="store_true", help="never start a daemon")
    every.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=seconds(0.001, 1e6),
        help=f"how long to wait for each answer (default: {REPLY_SECONDS:g})",
    )
