"""The provision file: one YAML document for each model that a machine needs.

    model_ref: hf:org/repo/model.gguf
    expected_digest:
      algo: sha256
      value: "<64 lowercase hex digits>"
    strict_verification: true

A file with one fault gives nothing: a machine is provisioned with all that its file says, or left as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Final

import msgspec

from modelclient import given_files
from modelclient.provisioning.plain_yaml import Event, Place, events, located, refused
from modelwire.errors import InvalidDigest, InvalidRequest

MAX_FILE_BYTES: Final = 1 << 20
"""The most documents, of 200 bytes each, take a fifth of this; what is larger is another kind of file."""

MAX_DOCUMENTS: Final = 1000
"""No machine has that many models: a file with more is a mistake, found before the first download."""

MAX_REFERENCE: Final = 4096
"""Characters: the longest path that Linux takes, and more than any signed address has."""

_KEYS: Final = ("model_ref", "expected_digest", "strict_verification")
_DIGEST_KEYS: Final = ("algo", "value")
_TRUE: Final = ("true", "yes", "on")
"""Of the words that YAML 1.1 takes for a boolean."""

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_WORDS: Final = {
    "mapping": "a mapping",
    "list": "a list",
    "text": "a text",
    "number": "a number",
    "boolean": "a boolean",
    "date": "a date",
    "null": "empty",
    "special": "a special word of YAML",
}


class ProvisionModel(msgspec.Struct, frozen=True, kw_only=True):
    """What one document asks for."""

    model_ref: str
    expected_digest: str | None = None
    """`sha256:<64 lowercase hex digits>`."""

    strict_verification: bool = True
    line: int
    """Where the document begins in the file."""


def read(path: str) -> tuple[ProvisionModel, ...]:
    """Reads a provision file; a pipe is read to its end. Blocks.

    Raises InvalidRequest and InvalidDigest with the line and the key; NotFound, PermissionDenied or Internal when the
    file cannot be read; Unsupported when PyYAML is not installed.
    """
    return parse(given_files.read(path, "provision file", MAX_FILE_BYTES + 1), path)


def parse(data: bytes, path: str) -> tuple[ProvisionModel, ...]:
    """As `read`, of bytes. `path` is for the messages alone."""
    if len(data) > MAX_FILE_BYTES:
        raise refused(path, None, f"it is larger than {MAX_FILE_BYTES} bytes", "Check that it is a provision file.")
    found: list[ProvisionModel] = []
    stream = events(data, path)
    for start in stream:
        if len(found) == MAX_DOCUMENTS:
            what = f"there are more than {MAX_DOCUMENTS} documents in the file"
            raise refused(path, start.place, what, "Divide it into several files.")
        found.append(_Document(stream, path, start).model())
    if not found:
        raise refused(path, None, "it has no document", "Write at least `model_ref: REFERENCE`.")
    return tuple(found)


class _Document:
    def __init__(self, stream: Iterator[Event], path: str, start: Event) -> None:
        self._stream = stream
        self._path = path
        self._start = start

    def model(self) -> ProvisionModel:
        root = next(self._stream)
        if root.kind == "null":
            hint = "Write `model_ref: REFERENCE` into it, or remove the `---` that begins it."
            raise refused(self._path, self._start.place, "this document is empty", hint)
        if root.kind != "mapping":
            what = f"a document is a mapping of keys to values, and this one is {_WORDS[root.kind]}"
            raise refused(self._path, root.place, what, "Write one document for each model, with `---` between them.")
        reference: str | None = None
        digest: str | None = None
        strict = True
        for key, value in self._pairs(_KEYS):
            if key == "model_ref":
                reference = self._reference(value)
            elif key == "expected_digest":
                digest = self._digest(value)
            else:
                strict = self._boolean(key, value)
        if reference is None:
            raise self._missing("model_ref", "this document", root.place, "Add `model_ref: REFERENCE`.")
        return ProvisionModel(
            model_ref=reference, expected_digest=digest, strict_verification=strict, line=root.place.line
        )

    def _pairs(self, known: tuple[str, ...], within: str = "") -> Iterator[tuple[str, Event]]:
        """The keys of a mapping that has begun, each with the event that begins its value."""
        seen: dict[str, Place] = {}
        while (event := next(self._stream)).kind != "end":
            name, key = event.text[:80], f"{within}{event.text[:80]}"
            if event.kind in ("mapping", "list", "null"):
                what = f"a key is a text, and this one is {_WORDS[event.kind]}"
                raise refused(self._path, event.place, what, _known(known))
            if event.text not in known:
                near = get_close_matches(name, known, n=1)
                hint = f"Did you mean {near[0]}?" if near else _known(known)
                raise refused(self._path, event.place, f"the key {_quoted(key)} is not known", hint, key)
            if event.text in seen:
                first, second = seen[event.text].line, event.place.line
                lines = f"in line {first} and in line {second}" if first != second else f"in line {first}"
                fault = refused(self._path, event.place, f"{key} is given twice, {lines}", "Give each key once.", key)
                fault.details["first_line"] = first
                raise fault
            seen[event.text] = event.place
            yield key, next(self._stream)

    def _reference(self, value: Event) -> str:
        key = "model_ref"
        self._check_text(key, value, "Put quotes around the reference.")
        if not value.text.strip():
            raise refused(self._path, value.place, f"{key} is empty", "Give a path, a name or an address.", key)
        if len(value.text) > MAX_REFERENCE:
            what = f"{key} is longer than {MAX_REFERENCE} characters"
            raise refused(self._path, value.place, what, "Give a path, a name or an address.", key)
        if found := _CONTROL.search(value.text):
            what = f"{key} contains the character {found[0]!a}"
            raise refused(self._path, value.place, what, "Write the reference in one line, without escapes.", key)
        return value.text

    def _boolean(self, key: str, value: Event) -> bool:
        if value.kind != "boolean":
            given = f"the text {_quoted(value.text)}" if value.kind == "text" else _WORDS[value.kind]
            what = f"{key} is true or false, and this is {given}"
            raise refused(self._path, value.place, what, "Write `true` or `false`, without quotes.", key)
        return value.text.lower() in _TRUE

    def _digest(self, value: Event) -> str:
        key = "expected_digest"
        if value.kind != "mapping":
            hint = "Write `{algo: sha256, value: …}`, or leave the key out."
            raise refused(self._path, value.place, f"{key} is a mapping, and this is {_WORDS[value.kind]}", hint, key)
        given: dict[str, Event] = {}
        for name, each in self._pairs(_DIGEST_KEYS, f"{key}."):
            self._check_text(name, each, "Put quotes around it.")
            given[name.removeprefix(f"{key}.")] = each
        for name in _DIGEST_KEYS:
            if name not in given:
                raise self._missing(f"{key}.{name}", key, value.place, "Write both, `algo: sha256` and `value: …`.")
        self._check_algo(given["algo"])
        self._check_hex(given["value"])
        return f"sha256:{given['value'].text}"

    def _check_algo(self, algo: Event) -> None:
        if algo.text != "sha256":
            hint = "Write it in lowercase." if algo.text.lower() == "sha256" else "Give the SHA-256 of the file."
            what = f"the digest algorithm {_quoted(algo.text)} is not known; only sha256 is"
            raise self._bad_digest("expected_digest.algo", algo.place, "algorithm", what, hint)

    def _check_hex(self, value: Event) -> None:
        text, key = value.text, "expected_digest.value"
        if len(text) != 64:
            what = f"a SHA-256 digest has 64 hex digits, and this one has {len(text)} characters: {_quoted(text)}"
            hint = "Leave out `sha256:` before it." if text.startswith("sha256:") else "Give the full digest."
            raise self._bad_digest(key, value.place, "length", what, hint)
        stranger = next((each for each in text if each not in "0123456789abcdef"), None)
        if stranger is not None:
            what = f"a SHA-256 digest is written with 0-9 and a-f only, and this one contains {stranger!a}"
            hint = "Write it in lowercase." if stranger in "ABCDEF" else "Compare it with the digest of the file."
            raise self._bad_digest(key, value.place, "alphabet", what, hint)

    def _check_text(self, key: str, value: Event, hint: str) -> None:
        """YAML takes a digest of decimal digits for a number: it is refused, because it would lose its leading zeros in
        another program that reads the file."""
        if value.kind == "null":
            raise refused(self._path, value.place, f"{key} is empty", "Give it a value.", key)
        if value.kind != "text":
            what = f"{key} is a text, and YAML takes this for {_WORDS[value.kind]}"
            if value.kind in ("mapping", "list"):
                what, hint = f"{key} is a text, and this is {_WORDS[value.kind]}", "Write a single text."
            raise refused(self._path, value.place, what, hint, key)

    def _missing(self, key: str, within: str, place: Place, hint: str) -> InvalidRequest:
        name = key.rpartition(".")[2]
        return refused(self._path, place, f"{within} has no {name}", hint, key)

    def _bad_digest(self, key: str, place: Place, rule: str, what: str, hint: str) -> InvalidDigest:
        details = {"rule": rule, "path": self._path, **place._asdict(), "key": key}
        return InvalidDigest(f"{located(self._path, place)}: {key}: {what}", hint=hint, details=details)


def _known(known: tuple[str, ...]) -> str:
    return f"The keys are {', '.join(known)}."


def _quoted(text: str) -> str:
    return repr(f"{text[:80]}…" if len(text) > 80 else text)
