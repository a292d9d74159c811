"""What a verb works with: the options, the outputs, and a connection that is made when it is first wanted."""

from __future__ import annotations

import argparse
import os
import sys

from modelclient.blocking import Client
from modelclient.ctl import exits
from modelclient.ctl.output import Output, complain, printable
from modelwire.errors import ModeldError, NoDaemon


def tell(
    error: ModeldError,
    *,
    as_json: bool,
    as_event: bool = False,
    exit_code: int | None = None,
    verb: str | None = None,
) -> int:
    """Two lines for people, for programs a document or the last record of the stream; and the exit code."""
    complain(f"modelctl: {printable(exits.words(error))}")
    complain(f"hint: {printable(exits.hint(error, verb))}")
    if as_json:
        Output().document({"error": exits.as_json(error, verb)})
    elif as_event:
        Output().record({"type": "error", **exits.as_json(error, verb)})
    return exits.exit_code(error) if exit_code is None else exit_code


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

    def client(self, *, start: bool = True) -> Client:
        """The daemon; one is started when none runs, unless the verb or the user does not want that."""
        if self._client is None:
            self._client = Client(self.socket, start=start and self.may_start, timeout=self.timeout)
        return self._client

    def running(self) -> Client | None:
        """The daemon if one answers, for verbs that can do without."""
        try:
            return self.client(start=False)
        except NoDaemon:
            return None

    @property
    def live(self) -> bool:
        """Whether standard error is a screen on which a line can be drawn over."""
        return self.progress and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def colored(self, text: str, code: str) -> str:
        """Text for standard output in a colour, where colours are wanted."""
        if self._color == "always":
            wanted = True
        else:
            wanted = self._color == "auto" and not os.environ.get("NO_COLOR") and sys.stdout.isatty()
        return f"\x1b[{code}m{text}\x1b[0m" if wanted else text

    def note(self, text: str) -> None:
        """A word beside the data, for people."""
        if not self.quiet:
            complain(f"modelctl: {printable(text)}")

    def fail(self, error: ModeldError, *, exit_code: int | None = None) -> int:
        """What is told of an error, here and in no other place."""
        return tell(error, as_json=self.json, as_event=self.events, exit_code=exit_code, verb=self._verb)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
