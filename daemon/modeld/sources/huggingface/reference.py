"""References to repositories of a Hugging Face hub: `hf:…`, and the addresses of its pages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import parse_qs, quote, unquote

from modeld.download.urls import Url, parse_url
from modeld.sources.reference import NO_SECRETS, NotAReference, Reference, Secrets, Written, suggest
from modeld.store import parts
from modeld.store.names import ModelName

PUBLIC_ENDPOINT: Final = "https://huggingface.co"
SITES: Final = ("huggingface.co", "www.huggingface.co", "hf.co")
DEFAULT_REVISION: Final = "main"

_OWNER = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}"
_HEAD = re.compile(rf"(?P<repo>{_OWNER}/{_OWNER})(?P<rest>.*)|(?P<bare>{_OWNER})(?P<after>[@:].*)?", re.DOTALL)
_QUANTIZATION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_REVISION = re.compile(r"(?![-/.])[^\x00-\x20\x7f~^:?*\[\\@#]{1,255}(?<![/.])")
COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_NAMED_REFS = re.compile(r"refs/(?:pr|convert|heads|tags)/[^/]+")
_FILE_PAGES: Final = frozenset({"blob", "resolve", "raw", "edit", "blame"})
_OTHER_KINDS: Final = {"datasets": "a dataset", "spaces": "a space", "api": "an interface for programs"}
_SITE: Final = frozenset({"docs", "blog", "models", "papers", "collections", "settings", "join", "login", "pricing"})


@dataclass(frozen=True, slots=True, kw_only=True)
class HubReference(Reference):
    """Files of a repository on a Hugging Face hub: one file, the files below a folder (`path` ends with `/`), those of
    one quantisation, or all. `include` and `exclude` are globs from the request, not from the text."""

    repo: str
    path: str | None = None
    revision: str | None = None
    quantization: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        repo = f"hf:{self.repo}" + ("" if self.quantization is None else f":{self.quantization}")
        if self.path is None:
            return repo + ("" if self.revision is None else f"@{quote(self.revision, safe='/')}")
        path = "/".join(quote(part, safe=_IN_PATH) for part in self.path.split("/"))
        if "/" not in self.repo:
            # Without an organisation, the first part of the path would be parsed as the repository.
            return f"{repo}@{quote(self.revision or DEFAULT_REVISION, safe='')}/{path}"
        return f"{repo}/{path}" + ("" if self.revision is None else f"@{quote(self.revision, safe='/')}")

    @property
    def key(self) -> str:
        globs = [*(f"+{glob}" for glob in self.include), *(f"-{glob}" for glob in self.exclude)]
        return " ".join([self.text, *globs])

    @property
    def folder(self) -> str | None:
        return self.path if self.path is not None and self.path.endswith("/") else None

    @property
    def name_hint(self) -> str:
        return (self.path or self.repo).rstrip("/")

    @property
    def suggested_name(self) -> ModelName:
        if self.path is not None:
            return suggest(self.name_hint)
        return suggest(re.sub(r"(?<=.)[-_.]gguf\Z", "", self.repo, flags=re.IGNORECASE), self.quantization)

    @property
    def is_single(self) -> bool:
        return self.path is not None and self.folder is None and parts.gguf_shards(self.path) is None

    @property
    def is_immutable(self) -> bool:
        return self.revision is not None and COMMIT.fullmatch(self.revision) is not None

    def pinned(self, revision: str) -> HubReference:
        return replace(self, revision=revision) if COMMIT.fullmatch(revision) else self

    def spellings(self, paths: Sequence[str]) -> tuple[str, ...]:
        """`main` is what no revision means; the files of a repository are those that its references of files name."""
        repo, revision = f"hf:{self.repo}", self.revision or DEFAULT_REVISION
        named = [repo, *(f"{repo}/{path}" for path in (self.path, *paths) if path is not None)]
        named += [] if self.quantization is None else [f"{repo}:{self.quantization}"]
        return (self.text, *(f"{text}{version}" for text in named for version in ("", f"@{revision}")))

    @property
    def signatures(self) -> tuple[HubReference, ...]:
        """At the top of the repository: the paths of its files, which a signature lists, begin there."""
        beside = [f"{self.path}.sig"] if self.is_single else []
        revision = self.revision or (None if "/" in self.repo else DEFAULT_REVISION)
        plain = replace(self, quantization=None, include=(), exclude=(), revision=revision)
        return tuple(replace(plain, path=path) for path in [*beside, "model.sig"])

    @property
    def is_whole(self) -> bool:
        return self.path is None and self.quantization is None and not self.include and not self.exclude

    def userinfo_of(self, credentials: str) -> str:
        """The hub takes one token."""
        return quote(credentials, safe="")

    def choosing(self, include: tuple[str, ...], exclude: tuple[str, ...]) -> HubReference:
        return replace(self, include=include, exclude=exclude)


_IN_PATH: Final = "!$&'()*+,;=:~"
"""Characters of a path that need no encoding in a reference: not `@`, which ends it, and not `%`, `?` and `#`."""


def read(written: Written) -> HubReference | None:
    if written.scheme in ("hf", "huggingface"):
        return _spelled(written.rest)
    url = written.url
    if url is None:
        return None
    own = written.environ.get("HF_ENDPOINT")
    hosts = {f"https://{site}" for site in SITES}
    if url.origin in hosts or (own and url.origin == parse_url(own, plain_hosts=written.plain_hosts).origin):
        return _page(url)
    return None


def _spelled(rest: str) -> HubReference:
    rest = rest.removeprefix("//")
    kind = rest.partition("/")[0]
    if kind in ("datasets", "spaces"):
        raise NotAReference(f"it names {_OTHER_KINDS[kind]}, not a model", rule="kind")
    found = _HEAD.fullmatch(rest)
    if found is None:
        raise NotAReference("hf: must be followed by organisation/repository", rule="repo")
    tail = found["rest"] if found["repo"] else found["after"] or ""
    repo = found["repo"] or found["bare"]
    quantization = path = revision = None
    if tail.startswith(":"):
        quantization, at, given = tail[1:].partition("@")
        revision = given if at else None
    elif tail.startswith("@"):
        revision, path = _revision_first(tail[1:])
        revision, colon, after = revision.partition(":")
        quantization = after if colon else None
    elif tail.startswith("/"):
        path, at, given = tail[1:].rpartition("@")
        path, revision = (path, given) if at else (given, None)
    elif tail:
        raise NotAReference("the repository must be followed by `/` and a path, `:` or `@`", rule="repo")
    return _made(
        repo=repo,
        path=None if path is None else unquote(path, errors="surrogateescape"),
        revision=None if revision is None else unquote(revision, errors="surrogateescape"),
        quantization=quantization,
    )


def _page(url: Url) -> HubReference:
    """Parses the address of a page of the hub, or of a file on it."""
    target, _, query = url.target.partition("?")
    segments = [unquote(segment, errors="surrogateescape") for segment in target.split("/") if segment]
    secrets = Secrets(url.userinfo)
    if not segments or segments[0] in _SITE:
        raise NotAReference("the page is not that of a model", rule="page")
    if segments[0] in _OTHER_KINDS:
        raise NotAReference(f"it is the address of {_OTHER_KINDS[segments[0]]}, not of a model", rule="kind")
    # The oldest repositories have no organisation.
    length = 1 if len(segments) == 1 or segments[1] in (*_FILE_PAGES, "tree") else 2
    repo, rest = "/".join(segments[:length]), segments[length:]
    repo, colon, quantization = repo.partition(":")
    repo = repo.removesuffix(".git")
    if not rest:
        named = parse_qs(query).get("show_file_info") if query else None
        return _made(
            repo=repo,
            path=named[0] if named else None,
            quantization=quantization if colon else None,
            secrets=secrets,
            revision=DEFAULT_REVISION if named and "/" not in repo else None,
        )
    kind, rest = rest[0], rest[1:]
    if colon or (kind not in _FILE_PAGES and kind != "tree"):
        raise NotAReference("the page shows neither a model nor a file of one", rule="page")
    revision, rest = _split_revision(rest)
    if kind in _FILE_PAGES and not rest:
        raise NotAReference("it has no file after the revision", rule="page")
    path = "/".join(rest) + ("/" if kind == "tree" else "") if rest else None
    return _made(repo=repo, path=path, revision=revision or None, secrets=secrets)


def _made(
    *,
    repo: str,
    path: str | None = None,
    revision: str | None = None,
    quantization: str | None = None,
    secrets: Secrets = NO_SECRETS,
) -> HubReference:
    if not re.fullmatch(rf"{_OWNER}(?:/{_OWNER})?", repo) or ".." in repo or "--" in repo:
        raise NotAReference("it has no valid name of a repository", rule="repo")
    if revision is not None and (not _REVISION.fullmatch(revision) or ".." in revision or "//" in revision):
        raise NotAReference("@ must be followed by a branch, a tag or a commit", rule="revision")
    if quantization is not None and not _QUANTIZATION.fullmatch(quantization):
        raise NotAReference(": must be followed by a quantisation such as Q4_K_M", rule="quantization")
    if quantization is not None:
        quantization = quantization.upper()  # the files are found by it without regard to case
    if quantization is not None and path is not None:
        raise NotAReference("it names both a quantisation and a file", rule="quantization")
    if path is not None:
        reason = parts.path_fault(path.removesuffix("/"))
        if reason is not None:
            raise NotAReference(f"its path cannot be that of a file: {reason}", rule="path")
        if "/" not in repo and revision is None:
            revision = DEFAULT_REVISION
    return HubReference(repo=repo, path=path, revision=revision, quantization=quantization, secrets=secrets)


def _revision_first(text: str) -> tuple[str, str | None]:
    """Splits `revision/path` after `hf:org/repo@`; slashes within the revision are `%2F`, except in refs/…/…"""
    named = _NAMED_REFS.match(text)
    revision = named[0] if named else text.partition("/")[0]
    rest = text[len(revision) :]
    return revision, rest.removeprefix("/") if rest.startswith("/") and len(rest) > 1 else None


def _split_revision(segments: list[str]) -> tuple[str, list[str]]:
    if segments[:1] == ["refs"] and len(segments) >= 3:
        return "/".join(segments[:3]), segments[3:]
    return (segments[0], segments[1:]) if segments else ("", [])
