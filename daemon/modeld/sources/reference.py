"""What a reference is, whatever kind of place it names, and how a text that is none is refused.

`text` is the canonical spelling: it can be parsed again, is stored and shown, and holds no secret. `key` is equal for
references that ask for the same bytes. What was secret in the spelling (user and password, a signed query) is in
`secrets`, which is neither printed nor compared, and lives no longer than the request.
"""

from __future__ import annotations

import hashlib
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Final
from urllib.parse import urlsplit

from modeld.download.urls import Url, parse_url, user_and_password
from modeld.store.names import ModelName
from modelwire.errors import InvalidName

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
    def bearer(self) -> str | None:
        """A token that was written where a user and password stand: `https://user:token@…` or `https://token@…`."""
        pair = user_and_password(self.userinfo)
        return None if pair is None else pair[1] or pair[0] or None


NO_SECRETS: Final = Secrets()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference(ABC):
    """Each kind of place has one subclass; what a pull asks about a reference, it asks here."""

    network: ClassVar[bool] = True
    """False for what is on this machine: such a reference has no source."""

    secrets: Secrets = field(default=NO_SECRETS, repr=False, compare=False)

    @property
    @abstractmethod
    def text(self) -> str:
        """As it is shown and stored: without secrets, and to be parsed again."""

    @property
    @abstractmethod
    def name_hint(self) -> str:
        """The file name or path that the spelling ends with: the start of a model's name."""

    @property
    def key(self) -> str:
        if self.secrets.query is None:
            return self.text
        # A query may name the file as well as prove who asks: two of them may mean two files.
        mark = hashlib.blake2b(self.secrets.query.encode(), digest_size=8, key=_FINGERPRINT_KEY).hexdigest()
        return f"{self.text}#{mark}"

    @property
    def fixed_name(self) -> ModelName | None:
        """The name of the model, when the reference is that name: then a request can give it no other."""
        return None

    @property
    def suggested_name(self) -> ModelName:
        """What to call the model when the request does not say: always valid, and made of the reference alone."""
        return suggest(self.name_hint)

    @property
    def is_single(self) -> bool:
        """Whether it can only mean one file, whatever its source says."""
        return False

    @property
    def written_place(self) -> tuple[str, str]:
        """Registry and repository, as far as the spelling alone says them."""
        return "", ""

    def choosing(self, include: tuple[str, ...], exclude: tuple[str, ...]) -> Reference:  # noqa: ARG002
        """The same with globs for its files. A kind overrides this whose source describes no more than is chosen;
        from the descriptions of the others a pull chooses itself."""
        return self

    def __str__(self) -> str:
        return self.text


def suggest(hint: str, tag: str | None = None) -> ModelName:
    """A valid name for any file name or path, with the tag where a name can have it."""
    name = ModelName.suggest(hint)
    if tag is None:
        return name
    try:
        return ModelName.parse(f"{name.base}:{tag}")
    except InvalidName:
        return ModelName.suggest(f"{name.base}-{tag}")


class NotAReference(Exception):
    """Raised by a kind for a text that is written in its way and wrong. `reason` completes "… is not a reference to
    a model: "; it must not quote what it has not checked."""

    def __init__(self, reason: str, *, rule: str, hint: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.rule = rule
        self.hint = hint


@dataclass(frozen=True, kw_only=True)
class Written:
    """A text that may be a reference, split as every kind needs it."""

    raw: str = field(repr=False)
    """As it came."""

    text: str = field(repr=False)
    """Without white space around it, and with the `https://` that people leave out in front of a known site."""

    scheme: str
    """In small letters; empty when there is none."""

    rest: str = field(repr=False)
    """What follows the scheme and its colon."""

    directory: str | None
    """Where relative paths start: the directory of the client, not of the daemon."""

    environ: Mapping[str, str] = field(repr=False)
    plain_hosts: Collection[str]

    @cached_property
    def url(self) -> Url | None:
        """The address, when it is one of http or https. Pages of many sites are read by the kind that knows them."""
        if self.scheme not in ("https", "http"):
            return None
        if not re.match(r"https?://[^/]", self.text, re.IGNORECASE):
            raise NotAReference("the address has no host", rule="address")
        try:
            _ = urlsplit(self.text).port
        except ValueError:
            raise NotAReference("its host or port cannot be read", rule="address") from None
        return parse_url(self.text, plain_hosts=self.plain_hosts)
