"""YAML with the place of each word, and without what a file of plain keys and values has no use for.

Anchors, aliases and tags are refused where they stand: they let a short file expand to gigabytes, and make a file hard
to read. No tree is built, so a caller that refuses what it does not expect bounds the depth and the memory as well.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from modelwire.errors import InvalidRequest, Unsupported

if TYPE_CHECKING:
    import yaml

INSTALL: Final = "pip install 'modeld[provision]'"

Kind = Literal["document", "mapping", "list", "end", "text", "number", "boolean", "date", "null", "special"]

_KINDS: Final[dict[str, Kind]] = {
    "str": "text",
    "int": "number",
    "float": "number",
    "bool": "boolean",
    "timestamp": "date",
    "null": "null",
}
"""What YAML 1.1 takes a word for. `<<` and `=` are special: they stand for no value of their own."""

_UNFIT: Final = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""The characters that YAML does not allow anywhere in a text."""


class Place(NamedTuple):
    """Both count from 1."""

    line: int
    column: int


class Event(NamedTuple):
    """`end` is that of a mapping or list. `text` is the word as it is after quotes and escapes."""

    kind: Kind
    place: Place
    text: str = ""


def refused(path: str, place: Place | None, what: str, hint: str, key: str | None = None) -> InvalidRequest:
    details: dict[str, object] = {"path": path}
    if place is not None:
        details |= place._asdict()
    if key is not None:
        details["key"] = key
    return InvalidRequest(f"{located(path, place)}: {what}", hint=hint, details=details)


def located(path: str, place: Place | None) -> str:
    return path if place is None else f"{path}: line {place.line}, column {place.column}"


def events(data: bytes, path: str) -> Iterator[Event]:
    """Reads no further than the caller asks. `path` is for the messages alone.

    Raises InvalidRequest for what is not YAML or not allowed here, and Unsupported when PyYAML is not installed.
    """
    try:
        import yaml
    except ImportError:
        raise Unsupported(
            "provision files need PyYAML, which is not installed",
            hint=f"Install it with `{INSTALL}`.",
            details={"extra": "provision"},
        ) from None
    # The parser in Python is there in every installation of PyYAML, so the same file has the same outcome everywhere.
    # It takes one to three seconds for a mebibyte whose lists and mappings are not nested.
    loader = yaml.SafeLoader(_decoded(data, path))
    try:
        while loader.check_event():
            if (event := _event(loader, path)) is not None:
                yield event
    except yaml.MarkedYAMLError as error:
        raise _malformed(path, error) from None
    except (ValueError, OverflowError):
        # The scanner converts the numbers of escapes and of %YAML lines without looking at them.
        what = "this is not YAML: a number in an escape or in a %YAML line is too large"
        raise refused(path, _place(loader.get_mark()), what, "Correct the number.") from None


def _event(loader: Any, path: str) -> Event | None:
    """The next one; None for those that say nothing."""
    import yaml

    event = loader.get_event()
    place = _place(event.start_mark)
    match event:
        case yaml.DocumentStartEvent():
            return Event("document", place)
        case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
            return Event("end", place)
        case yaml.AliasEvent():
            raise _needless(path, place, f"the alias *{_short(event.anchor)}", "Write the value out")
        case yaml.ScalarEvent() | yaml.CollectionStartEvent() if event.anchor is not None:
            raise _needless(path, place, f"the anchor &{_short(event.anchor)}", "Remove it")
        case yaml.ScalarEvent() | yaml.CollectionStartEvent() if event.tag is not None:
            raise _needless(path, place, f"the tag {_short(event.tag)!r}", "Remove it")
        case yaml.ScalarEvent():
            tag = loader.resolve(yaml.ScalarNode, event.value, event.implicit)
            return Event(_KINDS.get(tag.removeprefix("tag:yaml.org,2002:"), "special"), place, event.value)
        case yaml.MappingStartEvent():
            return Event("mapping", place)
        case yaml.SequenceStartEvent():
            return Event("list", place)
    return None


def _decoded(data: bytes, path: str) -> str:
    data = data.removeprefix(BOM_UTF8)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        place = _place_of(data[: error.start].decode())
        raise refused(path, place, "this is not UTF-8", "Save the file as UTF-8.") from None
    if found := _UNFIT.search(text):
        what = f"the character {found[0]!a} is not allowed in YAML"
        raise refused(path, _place_of(text[: found.start()]), what, "Remove it, or write it as an escape in quotes.")
    return text


def _place_of(before: str) -> Place:
    """Of what follows this text."""
    before = before.replace("\r\n", "\n").replace("\r", "\n")
    return Place(before.count("\n") + 1, len(before) - before.rfind("\n"))


def _place(mark: Any) -> Place:
    """Of a mark of PyYAML, which counts from 0."""
    return Place(mark.line + 1, mark.column + 1)


def _short(text: str | None) -> str:
    return (text or "")[:80]


def _needless(path: str, place: Place, what: str, instead: str) -> InvalidRequest:
    return refused(path, place, f"{what} is not allowed here", f"{instead}: nothing in a provision file needs one.")


def _malformed(path: str, error: yaml.MarkedYAMLError) -> InvalidRequest:
    mark, begin = error.problem_mark or error.context_mark, error.context_mark
    context = f" {error.context}" if error.context else ""
    if context and mark and begin and begin.line != mark.line:
        context += f" that begins in line {begin.line + 1}"
    return refused(
        path,
        _place(mark) if mark else None,
        f"this is not YAML:{context}{',' if context else ''} {error.problem}",
        "Correct the file. A text that contains one of `: # { } [ ] , & * ! | > @ %` may need quotes.",
    )
