"""The base class of references, and the error for a text that is not one.

`text` is the canonical spelling: it parses back to the reference, is stored and shown, and holds no secret. `key` is
equal for references to the same bytes. `secrets` holds what was secret in the text (user and password, a signed query);
it is neither printed nor compared, and is dropped with the request.
"""

from __future__ import annotations

import hashlib
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar, Final
from urllib.parse import quote, urlsplit

from modeld.download.urls import Url, parse_url, user_and_password
from modeld.store.names import ModelName
from modelwire.errors import InvalidName

_FINGERPRINT_KEY: Final = os.urandom(32)
"""New in each process: a fingerprint on the disk reveals nothing about the secret."""


def fingerprint(secret: str) -> str:
    return hashlib.blake2b(secret.encode(), digest_size=8, key=_FINGERPRINT_KEY).hexdigest()


@dataclass(frozen=True, slots=True)
class Secrets:
    """Falsy when there are none."""

    userinfo: str | None = field(default=None, repr=False)
    """`user:password`, percent-encoded as in the text."""

    query: str | None = field(default=None, repr=False)
    """The whole query, when a part of it is secret."""

    def __bool__(self) -> bool:
        return self.userinfo is not None or self.query is not None

    @property
    def bearer(self) -> str | None:
        """A token in the place of user and password: `https://user:token@…` or `https://token@…`."""
        pair = user_and_password(self.userinfo)
        return None if pair is None else pair[1] or pair[0] or None


NO_SECRETS: Final = Secrets()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference(ABC):
    """The properties of a reference that a pull needs. Each kind of place has a subclass."""

    network: ClassVar[bool] = True
    """False for a reference to something on this machine, which has no source."""

    secrets: Secrets = field(default=NO_SECRETS, repr=False, compare=False)

    @property
    @abstractmethod
    def text(self) -> str:
        """The canonical spelling, without secrets."""

    @property
    @abstractmethod
    def name_hint(self) -> str:
        """The file name or path at the end of the reference, from which a model's name is made."""

    @property
    def key(self) -> str:
        if self.secrets.query is None:
            return self.text
        # A query may name the file as well as authenticate the client: two queries may mean two files.
        return f"{self.text}#{fingerprint(self.secrets.query)}"

    @property
    def fixed_name(self) -> ModelName | None:
        """The name of the model, when the reference is that name: a request cannot give it another."""
        return None

    @property
    def suggested_name(self) -> ModelName:
        """The model's name when the request gives none: always valid, and made from the reference alone."""
        return suggest(self.name_hint)

    @property
    def is_single(self) -> bool:
        """Whether it can only mean one file, known without asking its source."""
        return False

    @property
    def is_immutable(self) -> bool:
        """Whether it means the same for ever, so that no source has to be asked once it is known."""
        return False

    def pinned(self, revision: str) -> Reference:  # noqa: ARG002
        """The same reference at a revision that a description of it had. Kinds without revisions return it as it is."""
        return self

    def spellings(self, paths: Sequence[str]) -> tuple[str, ...]:  # noqa: ARG002
        """The texts by which a rule can mean this reference, whatever its version, or one of these files of its model.
        Kinds add to the canonical one each that means the same place."""
        return (self.text,)

    @property
    def signatures(self) -> tuple[Reference, ...]:
        """The references of files beside this one that may hold the signature of its model, the nearest first. None
        for kinds whose description of a model has all that is beside it."""
        return ()

    @property
    def is_whole(self) -> bool:
        """Whether it means all files of a place: neither some that it names, nor those of some types."""
        return False

    def userinfo_of(self, credentials: str) -> str | None:
        """What a request gives as credentials, as `Secrets.userinfo` has it; None when it is not of the right form."""
        user, colon, password = credentials.partition(":")
        return f"{quote(user, safe='')}:{quote(password, safe='')}" if user and colon else None

    def choosing(self, include: tuple[str, ...], exclude: tuple[str, ...]) -> Reference:  # noqa: ARG002
        """The same reference with globs for its files. Kinds override this when their source describes only the chosen
        files; of the others, a pull chooses from the description."""
        return self

    def __str__(self) -> str:
        return self.text


def suggest(hint: str, tag: str | None = None) -> ModelName:
    """A valid model name for any file name or path, with the tag if a name can have it."""
    name = ModelName.suggest(hint)
    if tag is None:
        return name
    try:
        return ModelName.parse(f"{name.base}:{tag}")
    except InvalidName:
        return ModelName.suggest(f"{name.base}-{tag}")


class NotAReference(Exception):
    """A kind raises this for a wrong text of its kind. `reason` completes "… is not a reference to a model: "; it must
    not quote anything unchecked."""

    def __init__(self, reason: str, *, rule: str, hint: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.rule = rule
        self.hint = hint


@dataclass(frozen=True, kw_only=True)
class Written:
    """The text of a possible reference, split for the parsers of all kinds."""

    raw: str = field(repr=False)
    """The text as the client sent it."""

    text: str = field(repr=False)
    """Without surrounding white space, and with `https://` added in front of a known site."""

    scheme: str
    """In lower case; empty when there is none."""

    rest: str = field(repr=False)
    """The text after the scheme and its colon."""

    directory: str | None
    """Where relative paths start: the directory of the client, not of the daemon."""

    environ: Mapping[str, str] = field(repr=False)
    plain_hosts: Collection[str]

    @cached_property
    def url(self) -> Url | None:
        """The address, if the scheme is http or https. Several kinds parse addresses of their own sites."""
        if self.scheme not in ("https", "http"):
            return None
        if not re.match(r"https?://[^/]", self.text, re.IGNORECASE):
            raise NotAReference("the address has no host", rule="address")
        try:
            _ = urlsplit(self.text).port
        except ValueError:
            raise NotAReference("its host or port cannot be parsed", rule="address") from None
        url = parse_url(self.text, plain_hosts=self.plain_hosts)
        # `https://host./` is the same place, and must mean it to the rules and the credentials that name it.
        return replace(url, host=url.host.removesuffix("."))
