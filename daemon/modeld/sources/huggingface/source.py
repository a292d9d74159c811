"""Repositories of a Hugging Face hub, by plain HTTP; files in xet storage by hf-xet first, where that is installed.

A description takes two requests: for the commit of the revision, and for the files of that commit. All later requests
name the commit, so a branch that moves meanwhile changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Final, TypeVar
from urllib.parse import quote

import msgspec

from modeld.download.http.client import Answer, HttpClient
from modeld.download.http.documents import BadDocument, decoded
from modeld.download.http.headers import next_page
from modeld.download.source import Body, Description, FileInfo, Opener
from modeld.download.urls import Url
from modeld.sources.credentials.hub_token import hub_token
from modeld.sources.huggingface.faults import hub_fault
from modeld.sources.huggingface.files import HubFile, select
from modeld.sources.huggingface.git_blob import GitBlobBody
from modeld.sources.huggingface.reference import COMMIT, DEFAULT_REVISION, PUBLIC_ENDPOINT, SITES, HubReference, read
from modeld.sources.huggingface.xet import INSTALL, XetStorage
from modeld.sources.kind import NetworkKind
from modeld.sources.reference import Secrets
from modeld.store import parts
from modeld.store.digest import Digest
from modelwire.errors import (
    InvalidDigest,
    InvalidRequest,
    SourceNotFound,
    SourceUnauthorized,
    SourceUnavailable,
    WireError,
)

MAX_PAGES: Final = 1_000
SMALL: Final = 16 << 20
"""Files outside LFS have at most 10 MiB on the hub; they are fetched whole, so that their git SHA-1 can be checked."""

T = TypeVar("T")

_LOCATOR = re.compile(r"(?P<git>[0-9a-f]{40}|-|xet) (?P<address>https?://\S+)")
_ONLY_PLAIN: Final = "xet"
"""In the place of the git blob: the file is in xet storage and is read by plain HTTP."""

_ANY: Final = (200, 400, 401, 403, 404, 410, 416, 429, 451, 500, 502, 503, 504)
_FOUND: Final = (301, 302, 303, 307, 308)


_Size = Annotated[int, msgspec.Meta(ge=0)]
"""With a negative size, a file would count as complete from the start, and never be hashed."""


class _Lfs(msgspec.Struct):
    oid: str = ""
    size: _Size | None = None


class _Entry(msgspec.Struct):
    type: str
    path: str
    size: _Size = 0
    oid: str = ""
    lfs: _Lfs | None = None
    xet_hash: str | None = msgspec.field(default=None, name="xetHash")


class _Info(msgspec.Struct, rename="camel"):
    sha: str
    gated: bool | str = False
    card_data: msgspec.Raw = msgspec.Raw(b"null")
    """Written by the repository's owner, so of any shape and size."""

    tags: msgspec.Raw = msgspec.Raw(b"[]")


class _Card(msgspec.Struct):
    license: str | list[str] | None = None
    license_name: str | None = None


class HuggingFaceSource:
    """One hub. A mirror gets no token but one of its own."""

    def __init__(
        self,
        http: HttpClient,
        endpoint: str = PUBLIC_ENDPOINT,
        *,
        token: Callable[[], str | None] = lambda: None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """`environ` configures hf-xet: proxies, certificate authorities, and whether to use it."""
        self._http = http
        self._endpoint = endpoint.rstrip("/")
        self._url = http.parse(self._endpoint)
        self._token = token
        self._xet = XetStorage(http, self._url, environ or {}, self._credentials)
        self.name = f"hf {self._url.origin}"

    @classmethod
    def from_environ(cls, http: HttpClient, environ: Mapping[str, str], *, lends: bool = True) -> HuggingFaceSource:
        """The hub of HF_ENDPOINT; with `lends`, with the token of the hub's own client."""
        endpoint = environ.get("HF_ENDPOINT") or PUBLIC_ENDPOINT
        return cls(http, endpoint, token=lambda: hub_token(environ) if lends else None, environ=environ)

    def origin(self, reference: HubReference) -> str:  # noqa: ARG002 - one hub for all
        return self._url.origin

    def describe(self, reference: HubReference) -> Description:
        info = self._info(reference)
        files, note = select(self._tree(reference, info.sha), reference)
        reason = parts.paths_fault([file.path for file in files])
        if reason is not None:
            raise InvalidRequest(
                f"{reference.text} cannot be in the store: {reason}", hint="Name a folder or a file of it."
            )
        if info.gated:
            # The list of files is public, the files are not: refuse before the pull reserves space.
            self._check_access(reference, info.sha, files[0].path)
        described = {file.path: self._file(file, reference, info.sha) for file in files}
        return Description(
            source=reference.text,
            files=tuple(described.values()),
            preferred=self._by_xet(files, described, reference, info.sha),
            registry=self._url.netloc,
            repo=reference.repo,
            revision=info.sha,
            license=_license(info),
            note=note,
        )

    def open(self, file: FileInfo, start: int, end: int | None, validator: str | None) -> Body:
        located = _LOCATOR.fullmatch(file.locator)
        assert located is not None
        url = self._http.parse(located["address"])
        token = _bearer_of(url)
        url = replace(url, userinfo=None)
        try:
            body = self._http.open_range(url, file, start, end, validator, credentials=self._credentials(token))
        except WireError as fault:
            if isinstance(fault, SourceUnauthorized | SourceNotFound):
                self._explain(url, file, token)
            self._advise(fault, located["git"])
            raise
        if located["git"] in ("-", _ONLY_PLAIN) or file.size is None or body.start != 0:
            return body
        return GitBlobBody(body, file.size, located["git"], f"{file.path} from {url.shown}")

    # -- requests to the hub

    def _info(self, reference: HubReference) -> _Info:
        revision = quote(reference.revision or DEFAULT_REVISION, safe="")
        answer = self._ask(f"/api/models/{reference.repo}/revision/{revision}", reference)
        info = _decoded(answer, _Info)
        if not COMMIT.fullmatch(info.sha):
            raise _malformed(answer, "does not report the commit of the revision")
        return info

    def _tree(self, reference: HubReference, commit: str) -> list[HubFile]:
        files, entries = list[HubFile](), 0
        page: str | Url = f"/api/models/{reference.repo}/tree/{commit}?recursive=true"
        for _ in range(MAX_PAGES):
            answer = self._ask(page, reference)
            listed = _decoded(answer, list[_Entry])
            entries += len(listed)
            if entries > parts.MAX_ENTRIES:
                break
            files.extend(_hub_file(entry) for entry in listed if entry.type == "file")
            following = next_page(answer.headers)
            if following is None:
                return files
            page = self._http.parse(following if "://" in following else answer.url.origin + following)
            if page.origin != self._url.origin:
                raise _malformed(answer, f"continues its list of files at another host, {page.origin}")
        raise InvalidRequest(
            f"the list of files of {reference.repo} has {entries} entries and more, {parts.MAX_ENTRIES} are allowed",
            hint="Fetch the files with the hub's own client, then add their directory.",
        )

    def _check_access(self, reference: HubReference, commit: str, path: str) -> None:
        url = self._http.parse(self._address(reference, commit, path))
        token = _bearer_of(url)
        answer = self._head(replace(url, userinfo=None), token)
        if answer.status in (401, 403):
            raise hub_fault(answer, reference, self._endpoint, signed_in=self._credentials(token) is not None)

    def _explain(self, url: Url, file: FileInfo, token: str | None) -> None:
        """Raises the hub's reason to refuse a file. Returns when the hub no longer refuses it, or another host did."""
        answer = self._head(url, token)
        if answer.status in (401, 403, 404):
            repo, _, rest = url.target.lstrip("/").partition("/resolve/")
            reference = HubReference(repo=repo, path=file.path, revision=rest.partition("/")[0])
            raise hub_fault(answer, reference, self._endpoint, signed_in=self._credentials(token) is not None)

    def _head(self, url: Url, token: str | None) -> Answer:
        return self._http.request(
            "HEAD", url, credentials=self._credentials(token), redirects=False, ok=(*_ANY, *_FOUND)
        )

    def _ask(self, page: str | Url, reference: HubReference) -> Answer:
        url = self._http.parse(self._endpoint + page) if isinstance(page, str) else page
        credentials = self._credentials(reference.secrets.bearer)
        answer = self._http.request("GET", url, credentials=credentials, ok=_ANY)
        if answer.status != 200:
            raise hub_fault(answer, reference, self._endpoint, signed_in=credentials is not None)
        return answer

    def _credentials(self, given: str | None) -> Mapping[str, str] | None:
        token = given or self._token()
        return None if token is None else {"Authorization": f"Bearer {token}"}

    # -- descriptions

    def _file(self, file: HubFile, reference: HubReference, commit: str) -> FileInfo:
        checked = file.git_blob is not None and file.size <= SMALL
        kept = file.git_blob if checked else "-" if file.xet_hash is None else _ONLY_PLAIN
        return FileInfo(
            path=file.path,
            locator=f"{kept} {self._address(reference, commit, file.path)}",
            size=file.size,
            digest=file.digest,
            ranges=not checked,
            origin=self._url.origin,
            address=f"{self._url.full.rstrip('/')}/{reference.repo}/resolve/{commit}/{quote(file.path)}",
            role=parts.role_of(file.path),
        )

    def _by_xet(
        self, files: Sequence[HubFile], described: Mapping[str, FileInfo], reference: HubReference, commit: str
    ) -> dict[str, tuple[Opener, FileInfo]]:
        stored = [file for file in files if file.xet_hash is not None]
        if not stored or self._xet.reason_against() is not None:
            return {}
        access = self._located(reference, f"api/models/{reference.repo}/xet-read-token/{commit}")
        found = {file.path: self._xet.file(described[file.path], file.xet_hash or "", access) for file in stored}
        return {path: (self._xet, file) for path, file in found.items() if file is not None}

    def _advise(self, fault: WireError, kept: str) -> None:
        """Adds a hint to install hf-xet: plain HTTP does not serve the biggest files in xet storage."""
        reason = self._xet.reason_against() if kept == _ONLY_PLAIN else None
        if reason is not None and not fault.retryable:
            fault.hint = f"The file is in xet storage, and {reason}: {INSTALL}. {fault.hint or ''}".rstrip()

    def _address(self, reference: HubReference, commit: str, path: str) -> str:
        return self._located(reference, f"{reference.repo}/resolve/{commit}/{quote(path)}")

    def _located(self, reference: HubReference, target: str) -> str:
        scheme, _, rest = self._endpoint.partition("://")
        given = reference.secrets.bearer
        userinfo = "" if given is None else f"{quote(given, safe='')}@"
        return f"{scheme}://{userinfo}{rest}/{target}"


def _bearer_of(url: Url) -> str | None:
    return Secrets(url.userinfo).bearer


def _hub_file(entry: _Entry) -> HubFile:
    if entry.lfs is None:
        return HubFile(entry.path, entry.size, None, entry.oid if COMMIT.fullmatch(entry.oid) else None)
    try:
        digest = Digest.parse(entry.lfs.oid)
    except InvalidDigest:
        digest = None
    size = entry.size if entry.lfs.size is None else entry.lfs.size
    return HubFile(entry.path, size, digest, None, entry.xet_hash)


def _license(info: _Info) -> str | None:
    card = _if_decoded(info.card_data, _Card) or _Card()
    named = card.license
    if isinstance(named, list):
        named = " OR ".join(named)
    if named == "other":
        named = card.license_name or named
    if not named:
        tags = _if_decoded(info.tags, list[str]) or []
        named = next((tag.removeprefix("license:") for tag in tags if tag.startswith("license:")), None)
    return named or None


def _if_decoded(document: msgspec.Raw, kind: type[T]) -> T | None:
    try:
        return decoded(bytes(document), kind)
    except BadDocument:
        return None


def _decoded(answer: Answer, kind: type[T]) -> T:
    try:
        return decoded(answer.body, kind)
    except BadDocument:
        raise _malformed(answer, "does not answer as a hub does") from None


def _malformed(answer: Answer, what: str) -> SourceUnavailable:
    return SourceUnavailable(
        f"{answer.url.shown} {what}",
        hint="Check that HF_ENDPOINT, or the mirror, is the address of a Hugging Face hub.",
        retryable=False,
        details={"source": answer.url.shown},
    )


KIND: Final = NetworkKind(
    name="hf",
    reference=HubReference,
    forms=(
        "hf:org/repo/path/in/repo[@revision]",
        "hf:org/repo[@revision]",
        "hf:org/repo:Q4_K_M[@revision]",
        "https://huggingface.co/…",
    ),
    read=read,
    sites=SITES,
    source=lambda setup: HuggingFaceSource.from_environ(setup.http, setup.environ, lends=setup.lends),
    mirror=lambda setup, _match, url: HuggingFaceSource(setup.http, url, environ=setup.environ),
)
