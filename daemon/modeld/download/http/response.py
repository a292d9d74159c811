"""The library's answer, made to hold to what HTTP says where the library is easier: about lengths, and about what
comes before the answer."""

from __future__ import annotations

import http.client
import re
from typing import Final

MOST_INTERIM: Final = 32
"""Early hints come once or twice; who sends more of them never comes to the answer."""

_LENGTH = re.compile(r"[0-9]{1,18}")


class BadFraming(http.client.HTTPException):
    """How long the answer is cannot be told. The text is what the server said, cut."""


class Response(http.client.HTTPResponse):
    def begin(self) -> None:
        super().begin()
        coding = ", ".join(self.headers.get_all("Transfer-Encoding", [])).strip().lower()
        if coding not in ("", "chunked", "identity"):
            raise BadFraming(f"Transfer-Encoding: {coding}"[:80])
        if self.chunked:
            return
        # The library takes `+5` and `1_000` for numbers, the first of several, and what is no number for no length:
        # then the end of a broken connection would be the end of the file.
        told = {each.strip() for each in ",".join(self.headers.get_all("Content-Length", [])).split(",")} - {""}
        if len(told) > 1 or not all(_LENGTH.fullmatch(each) for each in told):
            raise BadFraming(f"Content-Length: {', '.join(sorted(told))}"[:80])
        if told and self.length is None:
            self.length = int(told.pop())

    def _read_status(self) -> tuple[str, int, str]:
        """Of the last one: the library passes over 100 alone, and any of them may come unasked (RFC 9110, 15.2)."""
        for _ in range(MOST_INTERIM):
            status: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
            if not 101 < status[1] < 200:
                return status
            http.client.parse_headers(self.fp)
        raise http.client.BadStatusLine("interim answers without end")
