"""Files that a hub keeps in xet storage, read by hf-xet, which is preferred where it is installed.

A child process sends the bytes over a pipe and writes no file: so the budget, the journal of the partial, hashing while
bytes move, progress and cancellation are those of every other source, and a killed child leaves nothing behind. Each
range has a child of its own, which reads it in parts that it fetches in parallel.

The user's token stays in the daemon. The hub exchanges it for a token of the content store, which can read one
repository for a limited time. Only that one goes to the child. When it expires in mid-file, the child reports that, and
the next range gets a new one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

import msgspec

from modeld.download.http.answers import status_fault
from modeld.download.http.client import Answer, HttpClient
from modeld.download.http.documents import MAX_SMALL, BadDocument, decoded
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
"""Children at once, over all jobs: one fills a link, and each takes 130 MB, up to 250 MB when bytes come very fast."""

MEMORY: Final = 64 * MIB
"""Of one child, for data in flight. With less, parts that are fetched in parallel wait for each other."""

MAX_STALLS: Final = 4
"""hf-xet gives up a connection after one stall and retries; a child that is silent for this many stalls hangs."""

PROXIES: Final = ("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY")
INSTALL: Final = "pip install 'modeld[xet]'"

_HASH = re.compile(r"[0-9a-f]{64}")
_TRUE: Final = frozenset({"1", "on", "yes", "true"})
_ANY: Final = (200, 400, 401, 403, 404, 410, 429, 451, 500, 502, 503, 504)

Credentials = Callable[[str | None], Mapping[str, str] | None]
"""Returns the headers that authenticate at the hub, from the token of a reference if it has one."""


class _Access(msgspec.Struct, rename="camel"):
    access_token: str
    cas_url: str


class XetStorage:
    """The xet storage of one hub, as a `modeld.download.source.Opener`."""

    name = "hf-xet"

    def __init__(self, http: HttpClient, hub: Url, environ: Mapping[str, str], credentials: Credentials) -> None:
        self._http = http
        self._hub = hub
        self._environ = environ
        self._credentials = credentials

    def reason_against(self) -> str | None:
        """Why files cannot be read from xet storage; None when they can."""
        if self._environ.get("HF_HUB_DISABLE_XET", "").strip().lower() in _TRUE:
            return "HF_HUB_DISABLE_XET is set"
        if self._http.reach is not None:
            return "hf-xet, which connects to whatever address the hub names, is for the daemon's own user"
        return reason_against()

    def file(self, file: FileInfo, xet_hash: str, access: str) -> FileInfo | None:
        """The same file in xet storage. `access` is the hub's address for tokens of the repository."""
        if not _HASH.fullmatch(xet_hash) or file.digest is None or not file.size:
            return None  # without a digest, the bytes could not be checked
        return replace(
            file,
            locator=f"{xet_hash} {access}",
            validator=f'"{xet_hash}"',
            # An origin apart from the hub's: when xet storage fails, plain HTTP must still be tried.
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
            stall_seconds=MAX_STALLS * stall,
        )

    def _access(self, url: Url) -> tuple[_Access, Url]:
        credentials = self._credentials(Secrets(url.userinfo).bearer)
        answer = self._http.request(
            "GET", replace(url, userinfo=None), credentials=credentials, limit=MAX_SMALL, ok=_ANY
        )
        if answer.status == 404 and not answer.headers.get("X-Error-Code"):
            raise _malformed(answer, "does not exist: this hub gives no access to xet storage")
        if answer.status != 200:
            repo = url.target.removeprefix("/api/models/").partition("/xet-read-token/")[0]
            reference = HubReference(repo=repo, revision=url.target.rpartition("/")[2])
            raise hub_fault(answer, reference, self._hub.origin, signed_in=credentials is not None)
        try:
            access = decoded(answer.body, _Access)
            # https, or a host that the configuration allows plain HTTP to: never a path of this machine.
            return access, replace(self._http.parse(access.cas_url), userinfo=None)
        except BadDocument:
            raise _malformed(answer, "does not give access to its xet storage") from None
        except InvalidRequest as fault:
            raise _malformed(answer, f"names a xet storage with an address that is refused: {fault.message}") from None

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
        return SourceUnavailable(f"the access to {shown} has expired; the daemon asks for it again", details=details)
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


def _malformed(answer: Answer, what: str) -> SourceUnavailable:
    return SourceUnavailable(f"{answer.url.shown} {what}", retryable=False, details={"source": answer.url.shown})
