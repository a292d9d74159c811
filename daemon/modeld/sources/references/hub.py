"""References to repositories of a Hugging Face hub: `hf:…`, and the addresses of its pages."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final
from urllib.parse import parse_qs, unquote

from modeld.download.urls import Url
from modeld.sources.references.faults import bad_reference
from modeld.sources.references.types import DEFAULT_REVISION, NO_SECRETS, HubReference, Secrets
from modeld.store import parts

PUBLIC_HUBS: Final = frozenset({"https://huggingface.co", "https://www.huggingface.co", "https://hf.co"})

_OWNER = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}"
_HEAD = re.compile(rf"(?P<repo>{_OWNER}/{_OWNER})(?P<rest>.*)|(?P<bare>{_OWNER})(?P<after>[@:].*)?", re.DOTALL)
_QUANTIZATION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_REVISION = re.compile(r"(?![-/.])[^\x00-\x20\x7f~^:?*\[\\@#]{1,255}(?<![/.])")
_NAMED_REFS = re.compile(r"refs/(?:pr|convert|heads|tags)/[^/]+")
_FILE_PAGES: Final = frozenset({"blob", "resolve", "raw", "edit", "blame"})
_OTHER_KINDS: Final = {"datasets": "a dataset", "spaces": "a space", "api": "an interface for programs"}
_SITE: Final = frozenset({"docs", "blog", "models", "papers", "collections", "settings", "join", "login", "pricing"})


def hub(text: str, rest: str) -> HubReference:
    """`rest` is what follows `hf:`."""
    rest = rest.removeprefix("//")
    kind = rest.partition("/")[0]
    if kind in ("datasets", "spaces"):
        raise bad_reference(text, f"it names {_OTHER_KINDS[kind]}, not a model", rule="kind")
    found = _HEAD.fullmatch(rest)
    if found is None:
        raise bad_reference(text, "after hf: come organisation/repository", rule="repo")
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
        raise bad_reference(text, "after the repository comes `/` and a path, `:` or `@`", rule="repo")
    return made(
        text,
        repo=repo,
        path=None if path is None else unquote(path, errors="surrogateescape"),
        revision=None if revision is None else unquote(revision, errors="surrogateescape"),
        quantization=quantization,
    )


def page(text: str, url: Url) -> HubReference:
    """From the address of a page of the hub, or of a file on it."""
    target, _, query = url.target.partition("?")
    segments = [unquote(segment, errors="surrogateescape") for segment in target.split("/") if segment]
    secrets = Secrets(url.userinfo) if url.userinfo else NO_SECRETS
    if not segments or segments[0] in _SITE:
        raise bad_reference(text, "that page is not the page of a model", rule="page")
    if segments[0] in _OTHER_KINDS:
        raise bad_reference(text, f"it is the address of {_OTHER_KINDS[segments[0]]}, not of a model", rule="kind")
    # The oldest repositories have no organisation.
    length = 1 if len(segments) == 1 or segments[1] in (*_FILE_PAGES, "tree") else 2
    repo, rest = "/".join(segments[:length]), segments[length:]
    repo, colon, quantization = repo.partition(":")
    repo = repo.removesuffix(".git")
    if not rest:
        named = parse_qs(query).get("show_file_info") if query else None
        return made(
            text,
            repo=repo,
            path=named[0] if named else None,
            quantization=quantization if colon else None,
            secrets=secrets,
            revision=DEFAULT_REVISION if named and "/" not in repo else None,
        )
    kind, rest = rest[0], rest[1:]
    if colon or (kind not in _FILE_PAGES and kind != "tree"):
        raise bad_reference(text, "that page shows neither a model nor a file of it", rule="page")
    revision, rest = _split_revision(rest)
    if kind in _FILE_PAGES and not rest:
        raise bad_reference(text, "it has no file after the revision", rule="page")
    path = "/".join(rest) + ("/" if kind == "tree" else "") if rest else None
    return made(text, repo=repo, path=path, revision=revision or None, secrets=secrets)


def is_hub(url: Url, hubs: Collection[str]) -> bool:
    return url.origin in PUBLIC_HUBS or url.origin in hubs


def made(
    text: str,
    *,
    repo: str,
    path: str | None = None,
    revision: str | None = None,
    quantization: str | None = None,
    secrets: Secrets = NO_SECRETS,
) -> HubReference:
    if not re.fullmatch(rf"{_OWNER}(?:/{_OWNER})?", repo) or ".." in repo or "--" in repo:
        raise bad_reference(text, "that is not the name of a repository", rule="repo")
    if revision is not None and (not _REVISION.fullmatch(revision) or ".." in revision or "//" in revision):
        raise bad_reference(text, "after @ comes a branch, a tag or a commit", rule="revision")
    if quantization is not None and not _QUANTIZATION.fullmatch(quantization):
        raise bad_reference(text, "after : comes a quantisation such as Q4_K_M", rule="quantization")
    if quantization is not None and path is not None:
        raise bad_reference(text, "it names both a quantisation and a file", rule="quantization")
    if path is not None:
        reason = parts.path_fault(path.removesuffix("/"))
        if reason is not None:
            raise bad_reference(text, f"its path cannot be that of a file: {reason}", rule="path")
        if "/" not in repo and revision is None:
            revision = DEFAULT_REVISION
    return HubReference(repo=repo, path=path, revision=revision, quantization=quantization, secrets=secrets)


def _revision_first(text: str) -> tuple[str, str | None]:
    """`revision/path` as it follows `hf:org/repo@`; slashes within the revision are `%2F`, except those of refs/…/…"""
    named = _NAMED_REFS.match(text)
    revision = named[0] if named else text.partition("/")[0]
    rest = text[len(revision) :]
    return revision, rest.removeprefix("/") if rest.startswith("/") and len(rest) > 1 else None


def _split_revision(segments: list[str]) -> tuple[str, list[str]]:
    if segments[:1] == ["refs"] and len(segments) >= 3:
        return "/".join(segments[:3]), segments[3:]
    return (segments[0], segments[1:]) if segments else ("", [])
