"""The errors that answers and broken connections mean: each one sentence with the cause, and what to do next."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from email.message import Message
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final

from modeld.download.cancel_scope import Overdue
from modeld.download.http.response import BadFraming, Endless
from modelwire.errors import SourceNotFound, SourceUnauthorized, SourceUnavailable, TimedOut, WireError

TRANSPORT_FAULTS: Final = (OSError, http.client.HTTPException, ssl.SSLError)
"""What http.client and the socket below it raise."""


class Headers(Mapping[str, str]):
    """The headers of an answer, looked up in any case; a header that came several times is one list, as in HTTP."""

    def __init__(self, message: Message) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in message.items():
            self._values.setdefault(name.lower(), []).append(value)

    def __getitem__(self, name: str) -> str:
        return ", ".join(self._values[name.lower()])

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


_RESET = re.compile(r"(?:^|[;,\s])t=(\d{1,7})")
_REMAINING = re.compile(r"(?:^|[;,\s])r=(\d{1,9})")


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds that the source demands: Retry-After (seconds or a date), else the reset of a rate limit that is used up.

    Both spellings of rate limits: `RateLimit: "api";r=0;t=55`, and RateLimit-Remaining with RateLimit-Reset.
    """
    text = (headers.get("Retry-After") or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    if text:
        try:
            moment = parsedate_to_datetime(text).timestamp()
        except (ValueError, TypeError, OverflowError):
            return None
        return max(0.0, moment - (time.time() if now is None else now))
    limit = headers.get("RateLimit") or ""
    remaining, reset = _REMAINING.search(limit), _RESET.search(limit)
    if remaining is not None and int(remaining[1]) == 0 and reset is not None:
        return float(reset[1])
    resets = (headers.get("RateLimit-Reset") or "").strip()
    if (headers.get("RateLimit-Remaining") or "").strip() == "0" and resets.isascii() and resets.isdigit():
        return float(resets[:7])
    return None


def status_fault(status: int, headers: Mapping[str, str], shown: str) -> WireError:
    """The error of an answer that is neither the bytes nor a redirect. `shown` is an address without secrets."""
    said = f"{shown} answers {status}{_phrase(status)}"
    details = {"source": shown, "status": status}
    wait = retry_after(headers)
    wait_ms = None if wait is None else round(wait * 1000)
    if status == 401:
        return SourceUnauthorized(
            f"{said}: it demands credentials",
            hint="Give a token or a password for this host; the present one may have expired.",
            details=details,
        )
    if status in (403, 451):
        return SourceUnauthorized(
            f"{said}: it does not give this file to this user",
            hint="Accept the model's terms on its page, or use a token that may read it.",
            details=details,
        )
    if status in (404, 410):
        return SourceNotFound(
            f"{said}: there is no such file", hint="Check the name, the path and the revision.", details=details
        )
    if status == 407:
        return SourceUnavailable(
            f"{said}: the proxy demands a user and a password",
            hint="Set https_proxy to http://user:password@host:port.",
            retryable=False,
            details=details,
        )
    if status == 408:
        return TimedOut(f"{said}: it waited too long for the request", details=details)
    if status == 416:
        return SourceUnavailable(
            f"{said}: the file has fewer bytes than were announced",
            hint="Pull the reference again: the file may have been replaced.",
            details=details,
        )
    if status == 429:
        return SourceUnavailable(
            f"{said}: it demands fewer requests{_in_seconds(wait)}",
            hint="Wait, or sign in: the limits of known users are often higher.",
            retry_after_ms=wait_ms,
            details=details,
        )
    if status >= 500:
        return SourceUnavailable(
            f"{said}: the fault is at the source{_in_seconds(wait)}",
            hint="Try again later, or configure a mirror.",
            retry_after_ms=wait_ms,
            details=details,
        )
    return SourceUnavailable(
        f"{said}, which is not a valid answer to a request for a file",
        hint="Check the address.",
        retryable=False,
        details=details,
    )


def transport_fault(error: Exception, shown: str, doing: str, *, seconds: float | None = None) -> WireError:
    """The error of a request that got no complete answer. `doing` completes "while …"."""
    details = {"source": shown}
    if isinstance(error, BadFraming):
        return SourceUnavailable(
            f"{shown} announces the length of its answer in a way that HTTP does not allow ({str(error)!a})",
            hint="Use another source: the server or a proxy is broken.",
            retryable=False,
            details=details,
        )
    if isinstance(error, Endless):
        return SourceUnavailable(
            f"{shown} sends {error} without end",
            hint="Use another source: the server or a proxy is broken.",
            retryable=False,
            details=details,
        )
    if isinstance(error, Overdue):
        return TimedOut(
            f"{shown} was not done within {error.seconds:g} s, the time that it has, while {doing}",
            hint="Try again later, or configure a mirror.",
            details=details,
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        return SourceUnavailable(
            f"the certificate of {shown} is not valid here: {error.verify_message}",
            hint="Set SSL_CERT_FILE to the authority that signs it (a company's proxy?), or check the clock.",
            retryable=False,
            details=details,
        )
    if isinstance(error, socket.gaierror):
        return SourceUnavailable(
            f"the host of {shown} is not known: {error.strerror}",
            hint="Check the spelling of the host, and whether this machine is online.",
            details=details,
        )
    if isinstance(error, TimeoutError):
        within = "" if seconds is None else f" within {seconds:g} s"
        return TimedOut(f"{shown} sent nothing{within} while {doing}", hint="Try again later.", details=details)
    if isinstance(error, ssl.SSLError):
        return SourceUnavailable(
            f"no encrypted connection to {shown} while {doing}: {error.reason or 'it broke off'}",
            hint="Check whether the server speaks https at that port.",
            details=details,
        )
    if isinstance(error, ConnectionRefusedError):
        return SourceUnavailable(
            f"{shown} refuses connections: nothing listens there", hint="Check host and port.", details=details
        )
    if isinstance(error, OSError) and not isinstance(error, http.client.HTTPException):
        why = error.strerror or type(error).__name__
        return SourceUnavailable(f"the connection to {shown} failed while {doing}: {why}", details=details)
    return SourceUnavailable(
        f"{shown} broke off or does not speak HTTP ({type(error).__name__}) while {doing}", details=details
    )


def _phrase(status: int) -> str:
    try:
        return f" ({HTTPStatus(status).phrase})"
    except ValueError:
        return ""


def _in_seconds(wait: float | None) -> str:
    return "" if wait is None else f", the next in {wait:.0f} s"
