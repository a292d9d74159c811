"""References to models in a registry: `ollama:`, with the pages of its site, and `oci://`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import unquote

from modeld.sources.reference import NotAReference, Reference, Secrets, Written, suggest
from modeld.store.digest import Digest
from modeld.store.names import ModelName
from modelwire.errors import InvalidDigest

OLLAMA_HOST: Final = "registry.ollama.ai"
OLLAMA_SITE: Final = "ollama.com"
OLLAMA_NAMESPACE: Final = "library"
DEFAULT_TAG: Final = "latest"

DOCKER_HOST: Final = "registry-1.docker.io"

REGISTRIES: Final[Mapping[str, str]] = {
    "docker.io": DOCKER_HOST,
    "index.docker.io": DOCKER_HOST,
    OLLAMA_SITE: OLLAMA_HOST,
}
"""The host that is asked, by a host that references have."""

_OLLAMA_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_REPO = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_HOST = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
    r"|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?"
)
MAX_REPO: Final = 255
_OLLAMA_ADDRESSES: Final = frozenset({f"https://{host}" for host in (OLLAMA_SITE, f"www.{OLLAMA_SITE}", OLLAMA_HOST)})


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReference(Reference):
    """A model in a registry of the OCI distribution protocol, by tag or digest."""

    host: str
    repo: str
    tag: str = DEFAULT_TAG
    digest: Digest | None = None

    @property
    def wanted(self) -> str:
        """The tag or digest to ask for, after `manifests/`."""
        return self.tag if self.digest is None else self.digest.text

    @property
    def version(self) -> str:
        return f":{self.tag}" if self.digest is None else f"@{self.digest.text}"

    @property
    def is_immutable(self) -> bool:
        return self.digest is not None

    def pinned(self, revision: str) -> ImageReference:
        with suppress(InvalidDigest):
            return replace(self, digest=Digest.parse(revision))
        return self

    def spellings(self, paths: Sequence[str]) -> tuple[str, ...]:  # noqa: ARG002 - its files have no references
        """By each host that leads to the same registry, with and without the namespace that a name may leave out, as
        `oci://` and as `ollama:`; each with its version and without."""
        host = self.host.removesuffix(":443")
        asked = REGISTRIES.get(host, host)
        hosts = {self.host, host, asked, *(name for name, real in REGISTRIES.items() if real == asked)}
        repos = {self.repo}
        if asked in (OLLAMA_HOST, DOCKER_HOST):
            short = self.repo.removeprefix(f"{OLLAMA_NAMESPACE}/")
            repos |= {short} if "/" in short else {short, f"{OLLAMA_NAMESPACE}/{short}"}
        named = {f"{scheme}{host}/{repo}" for scheme in ("oci://", "ollama:") for host in hosts for repo in repos}
        if asked == OLLAMA_HOST:
            named |= {f"ollama:{repo}" for repo in repos}
        return (self.text, *(f"{name}{version}" for name in sorted(named) for version in ("", self.version)))

    @property
    def name_hint(self) -> str:
        return self.repo

    @property
    def suggested_name(self) -> ModelName:
        return suggest(self.repo, None if self.digest is not None or self.tag == DEFAULT_TAG else self.tag)


@dataclass(frozen=True, slots=True, kw_only=True)
class OciReference(ImageReference):
    @property
    def text(self) -> str:
        return f"oci://{self.host}/{self.repo}{self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OllamaReference(ImageReference):
    @property
    def text(self) -> str:
        name = self.repo
        if self.host != OLLAMA_HOST:
            name = f"{self.host}/{name}"
        elif name.startswith(f"{OLLAMA_NAMESPACE}/"):
            name = name.removeprefix(f"{OLLAMA_NAMESPACE}/")
        return f"ollama:{name}{self.version}"


def read_ollama(written: Written) -> OllamaReference | None:
    if written.scheme == "ollama":
        return _ollama(written.rest.removeprefix("//"))
    url = written.url
    if url is not None and url.origin in _OLLAMA_ADDRESSES:
        path = unquote(url.target.partition("?")[0]).strip("/")
        name = path.removeprefix(f"{OLLAMA_NAMESPACE}/")
        if path and name.count("/") <= 1 and not name.startswith(("search", "blog", "download", "v2/")):
            return _ollama(name)
    return None


def _ollama(text: str) -> OllamaReference:
    name, tag, digest = _version(text)
    given = name.split("/")
    if not 1 <= len(given) <= 3 or not all(given):
        raise NotAReference("it is not name, namespace/name or host/namespace/name", rule="ollama")
    host = given[0].lower() if len(given) == 3 else OLLAMA_HOST
    repo = given[-2:] if len(given) > 1 else [OLLAMA_NAMESPACE, given[0]]
    if not _HOST.fullmatch(host) or not all(_OLLAMA_PART.fullmatch(part) and ".." not in part for part in repo):
        raise NotAReference("it has characters that a name in a registry cannot have", rule="ollama")
    return OllamaReference(host=host, repo="/".join(repo), tag=tag, digest=digest)


def read_oci(written: Written) -> OciReference | None:
    if written.scheme != "oci":
        return None
    rest = written.rest
    if not rest.startswith("//"):
        raise NotAReference("oci: must be followed by two slashes and a host", rule="oci")
    authority, slash, path = rest[2:].partition("/")
    userinfo, _, host = authority.rpartition("@")
    host = host.lower()
    if not slash or not _HOST.fullmatch(host):
        raise NotAReference("oci:// must be followed by a host and a repository", rule="host")
    if not ("." in host or ":" in host or host == "localhost"):
        raise NotAReference(
            f"{host!r} is not the host of a registry",
            rule="host",
            hint=f"For a repository of Docker Hub, write oci://docker.io/{host}/….",
        )
    name, tag, digest = _version(path)
    if not _REPO.fullmatch(name) or len(name) > MAX_REPO:
        raise NotAReference(
            "its repository is not lower-case letters and digits, with `.`, `_`, `-` or `/` between", rule="oci"
        )
    return OciReference(host=host, repo=name, tag=tag, digest=digest, secrets=Secrets(userinfo or None))


def _version(text: str) -> tuple[str, str, Digest | None]:
    """Name, tag and digest of `name[:tag][@sha256:…]`. A digest overrides the tag."""
    name, at, digest = text.partition("@")
    pinned = None
    if at:
        try:
            pinned = Digest.parse(digest if ":" in digest else f"?:{digest}")
        except InvalidDigest:
            raise NotAReference(
                "@ must be followed by sha256: and 64 hex digits, in lower case", rule="digest"
            ) from None
    directory, slash, last = name.rpartition("/")
    last, colon, tag = last.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise NotAReference("its tag has characters other than letters, digits, `.`, `_` and `-`", rule="tag")
    return directory + slash + last, DEFAULT_TAG if pinned is not None or not tag else tag, pinned
