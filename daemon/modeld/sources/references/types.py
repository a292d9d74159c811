"""What a reference means, once it has been read: one frozen value for each kind.

`text` is the canonical spelling: it can be parsed again, is stored and shown, and holds no secret. `key` is equal for
references that ask for the same bytes. What was secret in the spelling (user and password, a signed query) is in
`secrets`, which is neither printed nor compared, and lives no longer than the request.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, Final
from urllib.parse import quote, unquote, urlsplit

from modeld.store.digest import Digest
from modeld.store.names import ModelName

OLLAMA_HOST: Final = "registry.ollama.ai"
OLLAMA_NAMESPACE: Final = "library"
DEFAULT_TAG: Final = "latest"
DEFAULT_REVISION: Final = "main"

_FINGERPRINT_KEY: Final = os.urandom(32)
"""New in each process: a fingerprint that reaches the disk says nothing about the secret."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """Falsy when there are none."""

    userinfo: str | None = field(default=None, repr=False)
    """`user:password`, percent-encoded as it was written."""

    query: str | None = field(default=None, repr=False)
    """The whole query, when some of it is secret."""

    def __bool__(self) -> bool:
        return self.userinfo is not None or self.query is not None

    @property
    def credentials(self) -> tuple[str, str] | None:
        if self.userinfo is None:
            return None
        user, _, password = self.userinfo.partition(":")
        return unquote(user), unquote(password)

    @property
    def bearer(self) -> str | None:
        """A token that was written where a user and password stand: `https://user:token@…` or `https://token@…`."""
        pair = self.credentials
        return None if pair is None else pair[1] or pair[0] or None


NO_SECRETS: Final = Secrets()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Written(ABC):
    network: ClassVar[bool] = True
    secrets: Secrets = field(default=NO_SECRETS, repr=False, compare=False)

    @property
    @abstractmethod
    def text(self) -> str:
        """As it is shown and stored: without secrets, and to be parsed again."""

    @property
    def key(self) -> str:
        if self.secrets.query is None:
            return self.text
        # A query may name the file as well as prove who asks: two of them may mean two files.
        mark = hashlib.blake2b(self.secrets.query.encode(), digest_size=8, key=_FINGERPRINT_KEY).hexdigest()
        return f"{self.text}#{mark}"

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalReference(_Written):
    """A file or directory of this machine. `path` is absolute."""

    network: ClassVar[bool] = False
    path: str

    @property
    def text(self) -> str:
        return f"local:{self.path}"

    @property
    def name_hint(self) -> str:
        return self.path


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredReference(_Written):
    """A model that is already here."""

    network: ClassVar[bool] = False
    name: ModelName

    @property
    def text(self) -> str:
        return self.name.text


@dataclass(frozen=True, slots=True, kw_only=True)
class WebReference(_Written):
    """One file by its address. `address` has no secrets; `full` is what is asked for."""

    address: str

    @property
    def text(self) -> str:
        return self.address

    @property
    def full(self) -> str:
        scheme, _, rest = self.address.partition("://")
        userinfo = "" if self.secrets.userinfo is None else f"{self.secrets.userinfo}@"
        if self.secrets.query is not None:
            rest = f"{rest.partition('?')[0]}?{self.secrets.query}"
        return f"{scheme}://{userinfo}{rest}"

    @property
    def name_hint(self) -> str:
        parts = urlsplit(self.address)
        return unquote(parts.path.rstrip("/").rpartition("/")[2]) or parts.hostname or ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubReference(_Written):
    """Of a repository on a Hugging Face hub: one file, the files below a folder (`path` ends with `/`), the files of
    one quantisation, or all. `include` and `exclude` are globs, of a request rather than of the spelling."""

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
            # Without an organisation the first part of the path would be taken for the repository.
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


_IN_PATH: Final = "!$&'()*+,;=:~"
"""Of a path in a reference, what stands for itself: not `@`, which ends it, and not `%`, `?` and `#`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReference(_Written):
    """What a registry of the OCI distribution protocol holds under a tag or digest."""

    host: str
    repo: str
    tag: str = DEFAULT_TAG
    digest: Digest | None = None

    @property
    def wanted(self) -> str:
        """What stands after `manifests/`."""
        return self.tag if self.digest is None else self.digest.text

    @property
    def version(self) -> str:
        return f":{self.tag}" if self.digest is None else f"@{self.digest.text}"

    @property
    def name_hint(self) -> str:
        return self.repo


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


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Reference(_Written):
    """One object, or all below a prefix (`path` ends with `/`, or is empty)."""

    bucket: str
    path: str

    @property
    def text(self) -> str:
        return f"s3://{self.bucket}/{self.path}"

    @property
    def folder(self) -> str | None:
        return self.path if self.path.endswith("/") or not self.path else None

    @property
    def name_hint(self) -> str:
        return self.path.rstrip("/") or self.bucket


Reference = (
    LocalReference | StoredReference | WebReference | HubReference | OciReference | OllamaReference | S3Reference
)
