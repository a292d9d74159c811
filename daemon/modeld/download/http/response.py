"""http.client's response, made as strict as HTTP where the library is not: about lengths, and about interim answers."""

from __future__ import annotations

import http.client
import re
from typing import Final

MOST_INTERIM: Final = 32
"""Early hints come once or twice; a server that sends more than this never sends the answer."""

_LENGTH = re.compile(r"[0-9]{1,18}")


class BadFraming(http.client.HTTPException):
    """The length of the answer is not defined. The text is the server's header, cut."""


class Response(http.client.HTTPResponse):
    def begin(self) -> None:
        super().begin()
        coding = ", ".join(self.headers.get_all("Transfer-Encoding", [])).strip().lower()
        if coding not in ("", "chunked", "identity"):
            raise BadFraming(f"Transfer-Encoding: {coding}"[:80])
        if self.chunked:
            return
        # The library accepts `+5` and `1_000`, takes the first of several numbers, and ignores anything else: then the
        # end of a broken connection would be the end of the file.
        lengths = {each.strip() for each in ",".join(self.headers.get_all("Content-Length", [])).split(",")} - {""}
        if len(lengths) > 1 or not all(_LENGTH.fullmatch(each) for each in lengths):
            raise BadFraming(f"Content-Length: {', '.join(sorted(lengths))}"[:80])
        if lengths and self.length is None:
            self.length = int(lengths.pop())

    def _read_status(self) -> tuple[str, int, str]:
        """The final status: the library skips 100 alone, but any interim answer may come (RFC 9110, 15.2)."""
        for _ in range(MOST_INTERIM):
            status: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
            if not 101 < status[1] < 200:
                return status
            http.client.parse_headers(self.fp)
        raise http.client.BadStatusLine("interim answers without end")
