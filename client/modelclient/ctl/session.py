"""What a verb works with: the options, the outputs, and a connection that is made when it is first needed."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from modelclient import locate
from modelclient.client import Client
from modelclient.ctl.error_report import as_value, complain_of, report
from modelclient.ctl.output import Output, command, complain, printable
from modelclient.ctl.table import line
from modelclient.dialing import wrong_store
from modelwire.errors import InvalidRequest, ModeldError, NoDaemon, NotFound


class Session:
    """One call of the command. Close it at the end."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.json: bool = args.json
        self.events: bool = args.events
        self.quiet: bool = args.quiet
        self.socket: str | None = args.socket
        self.may_start: bool = not args.no_start
        self.timeout: float = args.timeout
        self.progress: bool = not (args.no_progress or args.quiet or args.json or args.events)
        self.out = Output()
        self._color: str = args.color
        self._verb: str = args.verb
        self._client: Client | None = None

    def client(self, *, start: bool = True, any_store: bool = False) -> Client:
        """The daemon; one is started when none runs, unless the verb or the user does not want that. With `any_store`
        a daemon of another store than MODELS_HOME names leads to a warning instead of an error."""
        if self._client is None:
            client = Client(self.socket, start=start and self.may_start, timeout=self.timeout, any_store=any_store)
            self._client = client
            if any_store and (root := locate.other_store(client.hello.store)) is not None:
                complain_of(wrong_store(client.endpoint, client.hello.store, root))
        return self._client

    def running(self) -> Client | None:
        """The daemon if one answers, for verbs that can do without."""
        try:
            return self.client(start=False, any_store=True)
        except NoDaemon:
            return None

    @property
    def live(self) -> bool:
        """Whether standard error is a screen on which a line can be drawn over."""
        return self.progress and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def colored(self, text: str, code: str) -> str:
        """Text for standard output in a colour, where colours are used."""
        if self._color == "always":
            wanted = True
        else:
            wanted = self._color == "auto" and not os.environ.get("NO_COLOR") and sys.stdout.isatty()
        return f"\x1b[{code}m{text}\x1b[0m" if wanted else text

    def stream(self, value: Any) -> None:
        """One of the things that come one by one: a record, or an element of the one document."""
        if self.json:
            self.out.element(value)
        else:
            self.out.record(value)

    @property
    def raw(self) -> bool:
        """Whether a program reads standard output."""
        return self.json or self.events

    def show(self, value: Any, *, quiet: Sequence[str], text: str = "") -> None:
        """The value for a program, in names only, or as text for people."""
        if self.json:
            self.out.document(value)
        elif self.events:
            self.out.record(value)
        else:
            self.out.text("".join(map(line, quiet)) if self.quiet else text)

    def show_result(self, value: Any, *, quiet: Sequence[str], text: str) -> None:
        """The same of finished work, whose stream of events ends with it."""
        self.show({"type": "result", "value": value} if self.events else value, quiet=quiet, text=text)

    def show_list(self, items: Sequence[Any], *, quiet: Sequence[str], text: str, none: str) -> None:
        """The items as one document, one record each, names only, or a table; `none` is noted when there are none."""
        if self.events:
            for item in items:
                self.out.record(item)
        elif items or self.json or self.quiet:
            self.show(items, quiet=quiet, text=text)
        else:
            self.note(none)

    def note(self, text: str) -> None:
        """A word beside the data, for people."""
        if not self.quiet:
            complain(f"modelctl: {printable(text)}")

    def fail(self, error: ModeldError) -> int:
        """Reports an error, and returns its exit code."""
        if isinstance(error, NotFound | InvalidRequest) and (file := error.details.get("name")) and _is_file_here(file):
            verb = "pull" if self._verb == "pull" else "add"
            error.hint = f"For the file of that name here, write `{command(verb, [f'./{file}'])}`."
        if self.out.elements:
            self.out.element({"error": as_value(error, self._verb)})
            return report(error, verb=self._verb)
        self.out.elements = None
        return report(error, as_json=self.json, as_event=self.events, verb=self._verb)

    def close(self) -> None:
        self.out.end_array()
        if self._client is not None:
            self._client.close()


def _is_file_here(name: object) -> bool:
    """Whether a name that is no model's is that of a file in the working directory."""
    return isinstance(name, str) and os.path.basename(name) == name and os.path.exists(name)
