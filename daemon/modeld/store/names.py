"""Model names: which texts are valid, which file a name has, and which spellings are the same name. And ids: the other
texts by which a model is known.

A name becomes a file name on every platform, so the rules are those of the strictest one. They hold for names in
requests and for files that another tool put into `manifests`. Each rule has its own message. An id is a text that is no
valid name, such as a reference: so none of the two can be taken for the other.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from modelwire.errors import InvalidName

MAX_PART_BYTES: Final = 128
MAX_STEM_BYTES: Final = 250
"""A file name has at most 255 bytes on the filesystems that matter, and `.json` or `.lock` takes five of them."""

DEFAULT_TAG: Final = "latest"

LONGEST_ID: Final = 4101
"""Bytes: `local:` and the longest path that Linux takes."""

MOST_IDS: Final = 16
"""Of one model, which has one in general: the reference that brought it. The index keeps them in memory."""

_OWN_DIGITS: Final = 8
"""Hex digits, of the user and of an id, in the name that belongs to them alone."""

_OWN_BASE: Final = 100
"""Characters of the usual name before them; a name has at most 128."""

_FOREIGN = re.compile(r"[^A-Za-z0-9._-]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_PLACE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|[/~.\\]")
_DEVICES: Final = frozenset(
    ["con", "prn", "aux", "nul"] + [f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10)]
)
_HINT: Final = (
    "Use 1 to 128 ASCII letters, digits, '.', '_' or '-', and ':' before a tag, for example llama-3.2-1b or llama:8b."
)

_WEIGHTS = re.compile(
    r"\.(gguf|ggml|safetensors|onnx|bin|pt|pth|ckpt|tflite|engine|mlmodel|npz|h5|keras|pb)$", re.IGNORECASE
)
_SHARD = re.compile(r"-\d{5}-of-\d{5}$")


@dataclass(frozen=True, slots=True)
class ModelName:
    """A valid name. Equality is by spelling; `key` is equal for spellings that are the same name."""

    base: str
    tag: str | None = None

    @property
    def text(self) -> str:
        return self.base if self.tag is None else f"{self.base}:{self.tag}"

    @property
    def stem(self) -> str:
        """The file name without its suffix: `:` is no file name character on Windows."""
        return self.base if self.tag is None else f"{self.base}+{self.tag}"

    @property
    def key(self) -> str:
        """Two names with one key are one name, on every platform."""
        return self.text.lower()

    @property
    def with_default_tag(self) -> ModelName | None:
        """The name that a bare name stands for when no model has exactly the bare name."""
        if self.tag is not None or len(self.base) + 1 + len(DEFAULT_TAG) > MAX_STEM_BYTES:
            return None
        return ModelName(self.base, DEFAULT_TAG)

    @property
    def without_default_tag(self) -> ModelName | None:
        """The bare name that can stand for this one; None when this has another tag or none."""
        return ModelName(self.base) if self.tag is not None and self.tag.lower() == DEFAULT_TAG else None

    def for_id(self, id_: str, uid: int) -> ModelName:
        """The name that belongs to an id of this user alone, for when another model has this one."""
        own = hashlib.sha256(f"{uid} {id_}".encode("utf-8", "surrogateescape")).hexdigest()[:_OWN_DIGITS]
        return ModelName(f"{self.base[:_OWN_BASE]}-{own}", self.tag)

    @classmethod
    def parse(cls, text: str) -> ModelName:
        """The name in a request. `InvalidName` names the rule that it breaks."""
        base, colon, tag = text.partition(":")
        return cls._checked(text, base, tag if colon else None)

    @classmethod
    def from_stem(cls, stem: str) -> ModelName:
        """The name of a file in `manifests`, under the same rules."""
        base, plus, tag = stem.partition("+")
        return cls._checked(stem, base, tag if plus else None)

    @classmethod
    def suggest(cls, filename: str) -> ModelName:
        """Makes a name from a file name or path: `Ministral 3B Q4.gguf` gives `Ministral-3B-Q4`."""
        return cls(_made_valid(filename))

    @classmethod
    def _checked(cls, whole: str, base: str, tag: str | None) -> ModelName:
        _check_part(whole, base, "name")
        if tag is not None:
            _check_part(whole, tag, "tag")
            if len(base) + 1 + len(tag) > MAX_STEM_BYTES:
                raise _invalid(
                    whole,
                    "too_long_together",
                    f"name and tag together have more than {MAX_STEM_BYTES - 1} characters, "
                    "which is too long for a file name",
                )
        return cls(base, tag)


def is_id(text: str) -> bool:
    """Whether a model can have this id beside its name."""
    if not text.strip() or len(text) > LONGEST_ID or _CONTROL.search(text) or len(text.encode()) > LONGEST_ID:
        return False
    try:
        ModelName.parse(text)
    except InvalidName:
        return True
    return False


def is_place(id_: str) -> bool:
    """Whether the id says where bytes are from: a reference with its scheme, or a path."""
    return _PLACE.match(id_) is not None


def ids_in(field: Any) -> tuple[str, ...]:
    """The ids in a field that another tool may have written: what is none of them does not count."""
    if not isinstance(field, list):
        return ()
    return tuple(islice(dict.fromkeys(each for each in field if isinstance(each, str) and is_id(each)), MOST_IDS))


def _check_part(whole: str, part: str, what: str) -> None:
    if not part:
        raise _invalid(whole, "empty", f"the {what} is empty")
    if "\0" in part:
        raise _invalid(whole, "nul", f"the {what} contains a NUL")
    if "/" in part or "\\" in part:
        raise _invalid(whole, "separator", f"the {what} contains a path separator")
    foreign = _FOREIGN.search(part)
    if foreign is not None:
        raise _invalid(whole, "character", f"the {what} contains {foreign.group()!a}")
    if len(part) > MAX_PART_BYTES:
        raise _invalid(whole, "too_long", f"the {what} has {len(part)} bytes, {MAX_PART_BYTES} are allowed")
    if ".." in part:
        raise _invalid(whole, "dots", f"the {what} contains '..'")
    if part.startswith("."):
        raise _invalid(whole, "leading_dot", f"the {what} starts with a dot")
    if _is_device(part):
        device = part.partition(".")[0]
        raise _invalid(whole, "device", f"'{device}' is the name of a device on Windows")


def _is_device(part: str) -> bool:
    return part.partition(".")[0].lower() in _DEVICES


def _invalid(whole: str, rule: str, reason: str) -> InvalidName:
    shown = ascii(whole) if len(whole) <= 160 else ascii(whole[:160]) + "…"
    return InvalidName(
        f"{shown} is not a valid model name: {reason}", hint=_HINT, details={"rule": rule, "reason": reason}
    )


def _made_valid(filename: str) -> str:
    text = re.split(r"[/\\]", filename.rstrip("/\\"))[-1]
    if _WEIGHTS.search(text):
        text = _SHARD.sub("", _WEIGHTS.sub("", text))
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")
    text = re.sub(r"[^A-Za-z0-9._-]+", "-", plain)
    text = re.sub(r"\.{2,}", ".", text)
    text = text.lstrip(".-_")[:MAX_PART_BYTES].rstrip(".-_")
    if not text:
        return "model"
    return f"model-{text}"[:MAX_PART_BYTES] if _is_device(text) else text
