"""Files that a hub keeps in xet storage, by hf-xet: the preferred way to them where it is installed.

The bytes come over a pipe from a child, and not into a file that the child writes: so the budget, the journal of the
partial, the hash while bytes move, progress and cancelling are those of every other source, and a child that is killed
leaves nothing behind. Each range is one child, which reads it in parts that it fetches in parallel.

The user's token stays here. It buys, at the hub, one for the content store: for one repository, to read, for a while.
Only that goes to the child. When it ends in mid-file the child's error says so, and the next range has a new one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

import msgspec

from modeld.download.http.answers import status_fault
from modeld.download.http.client import Answer, HttpClient
from modeld.download.source import Body, FileInfo
from modeld.download.tuning import MIB
from modeld.download.urls import Url
from modeld.download.xet.body import XetBody
from modeld.download.xet.frames import Fault
from modeld.download.xet.installed import reason_against
from modeld.sources.huggingface.faults import hub_fault
from modeld.sources.huggingface.reference import HubReference
from modeld.sources.reference import Secrets
from modelwire.errors import InvalidRequest, SourceNotFound, SourceUnauthorized, SourceUnavailable, WireError
from modelwire.version import __version__

CHILDREN: Final = 2
"""At once, over all jobs: one fills a link, and each takes 130 MB, up to 250 when the bytes come very fast."""

MEMORY: Final = 64 * MIB
"""For data on its way, in one child. With less, parts that are fetched in parallel wait for each other."""

SILENCES: Final = 4
"""hf-xet gives up a connection after one stall, and tries again; a child that is silent for so many hangs."""

PROXIES: Final = ("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY")
INSTALL: Final = "pip install 'modeld[xet]'"

_HASH = re.compile(r"[0-9a-f]{64}")
_TRUE: Final = frozenset({"1", "on", "yes", "true"})
_ANY: Final = (200, 400, 401, 403, 404, 410, 429, 451, 500, 502, 503, 504)

Credentials = Callable[[str | None], Mapping[str, str] | None]
"""For the hub, from the token of a reference, if that has one."""


class _Access(msgspec.Struct, rename="camel"):
    access_token: str
    cas_url: str


class XetStorage:
    """Of one hub. See `modeld.download.source.Opener`."""

    name = "hf-xet"

    def __init__(self, http: HttpClient, hub: Url, environ: Mapping[str, str], credentials: Credentials) -> None:
        self._http = http
        self._hub = hub
        self._environ = environ
        self._credentials = credentials

    def reason_against(self) -> str | None:
        """Why files are not read this way; None when they are."""
        if self._environ.get("HF_HUB_DISABLE_XET", "").strip().lower() in _TRUE:
            return "HF_HUB_DISABLE_XET is set"
        return reason_against()

    def way(self, file: FileInfo, xet_hash: str, access: str) -> FileInfo | None:
        """To a described file; `access` is where the hub gives tokens for its repository."""
        if not _HASH.fullmatch(xet_hash) or file.digest is None or not file.size:
            return None  # without a digest nobody could tell that these are the same bytes
        return replace(
            file,
            locator=f"{xet_hash} {access}",
            validator=f'"{xet_hash}"',
            # Counted apart from the hub itself: when this way fails, the other is to be tried.
            origin=f"xet+{self._hub.origin}",
            long_requests=CHILDREN,
        )

    def open(self, file: FileInfo, start: int, end: int | None, validator: str | None) -> Body:  # noqa: ARG002 - a xet hash names its bytes for ever
        xet_hash, _, address = file.locator.partition(" ")
        access, store = self._access(self._http.parse(address))
        size = file.size or 0
        shown = f"the xet storage at {store.origin}"
        stall = self._http.stall_seconds

        def explain(fault: Fault, some: bool) -> WireError:
            return _meaning(fault, shown, some=some)

        return XetBody(
            {
                "hash": xet_hash,
                "size": size,
                "start": start,
                "end": size if end is None else end,
                "endpoint": store.full.rstrip("/"),
                "token": access.access_token,
                "agent": f"modeld/{__version__}",
                "proxies": self._proxies(),
                "memory": MEMORY,
                "stall_seconds": stall,
            },
            self._environ,
            shown=shown,
            validator=f'"{xet_hash}"',
            explain=explain,
            stall_seconds=SILENCES * stall,
        )

    def _access(self, url: Url) -> tuple[_Access, Url]:
        credentials = self._credentials(Secrets(url.userinfo).bearer)
        answer = self._http.request("GET", replace(url, userinfo=None), credentials=credentials, ok=_ANY)
        if answer.status == 404 and not answer.headers.get("X-Error-Code"):
            raise _odd(answer, "is no route of this hub: it gives no access to xet storage")
        if answer.status != 200:
            repo = url.target.removeprefix("/api/models/").partition("/xet-read-token/")[0]
            told = HubReference(repo=repo, revision=url.target.rpartition("/")[2])
            raise hub_fault(answer, told, self._hub.origin, signed_in=credentials is not None)
        try:
            access = msgspec.json.decode(answer.body, type=_Access)
            # https, or a host that may be asked without: never a path of this machine.
            return access, replace(self._http.parse(access.cas_url), userinfo=None)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise _odd(answer, "does not give access to its xet storage") from None
        except InvalidRequest as fault:
            raise _odd(answer, f"names a xet storage that is not asked: {fault.message}") from None

    def _proxies(self) -> dict[str, str]:
        found = {name: self._environ[name] for name in PROXIES if self._environ.get(name)}
        if found:
            direct = self._environ.get("no_proxy") or self._environ.get("NO_PROXY")
            found["no_proxy"] = ",".join([*([direct] if direct else []), "localhost", "127.0.0.1", "::1"])
            found.pop("NO_PROXY", None)
        return found


def _meaning(fault: Fault, shown: str, *, some: bool) -> WireError:
    status, details = fault["status"], {"source": shown, "status": fault["status"]}
    if fault["kind"] == "unusable":
        return SourceUnavailable(
            f"hf-xet is installed and cannot be used: {fault['message']}",
            hint=f"Install it again: {INSTALL}.",
            retryable=False,
            details=details,
        )
    if status in (401, 403) and some:
        return SourceUnavailable(f"the access to {shown} has ended; it is asked for again", details=details)
    if status in (401, 403):
        return SourceUnauthorized(
            f"{shown} does not accept the access that the hub gave", hint="Pull again.", details=details
        )
    if status in (404, 410, 416):
        return SourceNotFound(f"{shown} does not have the file that the hub names", details=details)
    if status is not None:
        return status_fault(status, {}, shown)
    return SourceUnavailable(
        f"hf-xet could not read from {shown}: {fault['message']}", hint="Try again later.", details=details
    )


def _odd(answer: Answer, what: str) -> SourceUnavailable:
    return SourceUnavailable(f"{answer.url.shown} {what}", retryable=False, details={"source": answer.url.shown})
