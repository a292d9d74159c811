"""The reading part of the distribution protocol of container registries: manifests, blobs, and authentication."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import quote, urlencode

from modeld.download.http.answers import status_fault
from modeld.download.http.client import Answer, HttpClient
from modeld.download.http.documents import MAX_SMALL, BadDocument, any_document
from modeld.download.http.headers import basic
from modeld.download.source import Body, FileInfo
from modeld.download.urls import Url
from modeld.sources.credentials.docker_config import RegistryLogin
from modeld.sources.registries.challenge import Challenge, challenges
from modeld.store.digest import Digest
from modelwire.errors import DigestMismatch, SourceNotFound, SourceUnauthorized, SourceUnavailable, WireError

MAX_MANIFEST: Final = 4 << 20
"""The size that the protocol asks registries to accept at least."""

TOKEN_SECONDS: Final = 60.0
"""How long a token lasts whose answer does not say so: the protocol's own figure."""

LONGEST_TOKEN: Final = 3600.0
MAX_TOKENS: Final = 256
_ANY: Final = (200, 307, 400, 401, 403, 404, 405, 410, 429, 500, 502, 503, 504)
_REPO = re.compile(r"/v2/(?P<repo>.+)/(?:manifests|blobs)/[^/]+")


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest, or another small blob, with a checked digest."""

    content: dict[str, Any]
    digest: Digest
    media_type: str


@dataclass(frozen=True, slots=True)
class _Token:
    authorization: str = field(repr=False)
    until: float


class Registry:
    """One registry at one base address. Thread-safe."""

    def __init__(
        self,
        http: HttpClient,
        base: str,
        login: Callable[[], RegistryLogin | None] = lambda: None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = http
        self._base = http.parse(base)
        self._login = login
        self._clock = clock
        self._lock = threading.Lock()
        self._tokens: dict[tuple[str, str | None], _Token] = {}

    @property
    def origin(self) -> str:
        return self._base.origin

    def manifest(self, repo: str, wanted: str, accept: str, userinfo: str | None = None) -> Document:
        url = self._url(f"/v2/{repo}/manifests/{quote(wanted, safe=':')}", userinfo)
        answer = self._ask(url, {"Accept": accept}, MAX_MANIFEST)
        digest = Digest(hashlib.sha256(answer.body).hexdigest())
        for claimed in (wanted, answer.headers.get("Docker-Content-Digest") or ""):
            if claimed.startswith("sha256:") and claimed != digest.text:
                raise _not_as_named(answer.url.shown, claimed, digest)
        content = _json(answer)
        media_type = content.get("mediaType") or (answer.headers.get("Content-Type") or "").partition(";")[0]
        return Document(content, digest, str(media_type).strip())

    def small_blob(self, repo: str, digest: Digest, userinfo: str | None = None) -> dict[str, Any]:
        answer = self._ask(self._url(f"/v2/{repo}/blobs/{digest.text}", userinfo), {}, MAX_MANIFEST)
        actual = Digest(hashlib.sha256(answer.body).hexdigest())
        if not actual.matches(digest):
            raise _not_as_named(answer.url.shown, digest.text, actual)
        return _json(answer)

    def locator(self, repo: str, digest: Digest, userinfo: str | None = None) -> str:
        url = self._url(f"/v2/{repo}/blobs/{digest.text}", userinfo)
        return f"{url.scheme}://{'' if userinfo is None else f'{userinfo}@'}{url.netloc}{url.target}"

    def open(self, file: FileInfo, start: int, end: int | None, validator: str | None) -> Body:
        url = self._http.parse(file.locator)
        bare = replace(url, userinfo=None)
        try:
            return self._http.open_range(bare, file, start, end, validator, credentials=self._known(url))
        except SourceUnauthorized:
            # Tokens last minutes, downloads hours. The answer to HEAD shows whether the token had expired.
            answer = self._http.request("HEAD", bare, credentials=self._known(url), redirects=False, ok=_ANY)
            if answer.status != 401:
                raise
            credentials = self._authenticate(url, answer)
            return self._http.open_range(bare, file, start, end, validator, credentials=credentials)

    # -- requests

    def _url(self, path: str, userinfo: str | None) -> Url:
        prefix = self._base.target.partition("?")[0].rstrip("/")
        return replace(self._base, target=prefix + path, userinfo=userinfo)

    def _ask(self, url: Url, headers: Mapping[str, str], limit: int) -> Answer:
        bare = replace(url, userinfo=None)
        answer = self._http.request("GET", bare, headers=headers, credentials=self._known(url), ok=_ANY, limit=limit)
        if answer.status == 401 and answer.stayed:
            credentials = self._authenticate(url, answer)
            answer = self._http.request("GET", bare, headers=headers, credentials=credentials, ok=_ANY, limit=limit)
        if answer.status != 200:
            raise _refused(answer, signed_in=self._login_for(url) is not None)
        return answer

    def _known(self, url: Url) -> Mapping[str, str] | None:
        with self._lock:
            token = self._tokens.get(_place(url))
        if token is None or token.until <= self._clock():
            return None
        return {"Authorization": token.authorization}

    def _login_for(self, url: Url) -> RegistryLogin | None:
        if url.credentials is not None:
            return RegistryLogin(*url.credentials)
        return self._login()

    # -- authentication

    def _authenticate(self, url: Url, answer: Answer) -> Mapping[str, str]:
        """Gets the credentials that the challenge of a 401 asks for, and keeps them for the repository."""
        asked = challenges(answer.headers.get("WWW-Authenticate") or "")
        login = self._login_for(url)
        bearer = next((each for each in asked if each.scheme == "bearer" and each.parameters.get("realm")), None)
        if bearer is not None:
            token = self._fetch_token(url, bearer, login)
        elif any(each.scheme == "basic" for each in asked) and login is not None and login.user:
            token = _Token(basic(login.user, login.password), self._clock() + LONGEST_TOKEN)
        else:
            raise _refused(answer, signed_in=login is not None)
        with self._lock:
            while len(self._tokens) >= MAX_TOKENS:
                self._tokens.pop(next(iter(self._tokens)))
            self._tokens[_place(url)] = token
        return {"Authorization": token.authorization}

    def _fetch_token(self, url: Url, asked: Challenge, login: RegistryLogin | None) -> _Token:
        """Asks the realm that the registry names. A realm without encryption is refused like any such address."""
        realm = self._http.parse(asked.parameters["realm"])
        found = _REPO.search(url.target)
        scope = asked.parameters.get("scope") or (f"repository:{found['repo']}:pull" if found else "")
        query = {key: value for key, value in (("service", asked.parameters.get("service")), ("scope", scope)) if value}
        if login is not None and login.identity_token is not None:
            form = {"grant_type": "refresh_token", "refresh_token": login.identity_token, "client_id": "modeld"} | query
            answer = self._http.request(
                "POST",
                realm,
                headers={"Content-Type": "application/x-www-form-urlencoded"},
                body=urlencode(form).encode(),
                redirects=False,
                limit=MAX_SMALL,
                ok=_ANY,
            )
        else:
            known = None if login is None else {"Authorization": basic(login.user, login.password)}
            join = "&" if "?" in realm.target else "?"
            full = replace(realm, target=f"{realm.target}{join}{urlencode(query)}" if query else realm.target)
            answer = self._http.request("GET", full, credentials=known, redirects=False, limit=MAX_SMALL, ok=_ANY)
        if answer.status in (400, 401, 403):
            raise _login_refused(self._base.netloc, realm, signed_in=login is not None)
        if answer.status != 200:
            raise status_fault(answer.status, answer.headers, realm.shown)
        content = _json(answer)
        token = content.get("token") or content.get("access_token")
        if not isinstance(token, str) or not token:
            raise _malformed(realm.shown, "gives no token")
        lasts = content.get("expires_in")
        # min before float arithmetic: an integer may be too large for a float.
        seconds = min(lasts, LONGEST_TOKEN) if isinstance(lasts, int | float) and lasts > 0 else TOKEN_SECONDS
        # A tenth early, so that the token does not expire during a request.
        return _Token(f"Bearer {token}", self._clock() + seconds * 0.9)


def _place(url: Url) -> tuple[str, str | None]:
    found = _REPO.search(url.target)
    return (found["repo"] if found else "", url.userinfo)


def _json(answer: Answer) -> dict[str, Any]:
    try:
        content = any_document(answer.body)
    except BadDocument:
        content = None
    if not isinstance(content, dict):
        raise _malformed(answer.url.shown, "does not answer with a JSON object")
    return content


def _malformed(shown: str, what: str) -> SourceUnavailable:
    return SourceUnavailable(
        f"{shown} {what}",
        hint="Check that it is the address of a registry.",
        retryable=False,
        details={"source": shown},
    )


def _not_as_named(shown: str, expected: str, actual: Digest) -> DigestMismatch:
    return DigestMismatch(
        f"{shown} does not have the digest of its name: {actual.text} came, {expected} was expected",
        hint="The server, or a proxy, changes the bytes. Use another source.",
        details={"expected": expected, "actual": actual.text, "source": shown},
    )


def _refused(answer: Answer, *, signed_in: bool) -> WireError:
    shown = answer.url.shown
    details = {"source": shown, "status": answer.status, "error_code": _code(answer)}
    if answer.status == 401 or (answer.status == 403 and not signed_in):
        return SourceUnauthorized(
            f"{shown} is not public" + (", and the account in use has no right to it" if signed_in else ""),
            hint="Sign in with `docker login` or `skopeo login` as the daemon's user, and check the name: registries"
            " often answer the same for one that does not exist.",
            details=details,
        )
    if answer.status == 403:
        return SourceUnauthorized(
            f"the account in use has no right to {shown}", hint="Ask its owner for the right to pull.", details=details
        )
    if answer.status in (404, 405, 410):
        return SourceNotFound(
            f"{shown} does not exist: the registry has no such repository, tag or digest",
            hint="Check the spelling of the repository and the tag.",
            details=details,
        )
    return status_fault(answer.status, answer.headers, shown)


def _code(answer: Answer) -> str | None:
    try:
        return str(any_document(answer.body)["errors"][0]["code"])[:80]
    except (BadDocument, LookupError, TypeError):
        return None


def _login_refused(registry: str, realm: Url, *, signed_in: bool) -> SourceUnauthorized:
    login = "the user and password stored for it" if signed_in else "a client without a login"
    return SourceUnauthorized(
        f"{realm.shown}, which authenticates for {registry}, does not accept {login}",
        hint="Sign in again with `docker login` or `skopeo login` as the daemon's user.",
        details={"source": realm.shown},
    )
