"""The files of a model of several files: valid paths, the role of each file, and sets of shards.

The rules are those of the strictest platform, and they hold for directories that are added as well as for manifests
that another tool has written: a path of a manifest becomes a path in a tree.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final

MAX_FILES: Final = 4_000
"""The largest models in use have some hundreds; this many take about 800 KiB of a manifest's 1 MiB."""

MAX_ENTRIES: Final = 10_000
"""Of a list of files that a source gives, and of a directory that is added, before those of the model are chosen."""

MAX_PATH: Final = 1_024
"""Bytes. The store's own path comes before it, and the kernel takes 4095 in all."""

_MAX_COMPONENT: Final = 255

_SHARD = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<total>\d{5})\.(?P<kind>gguf|safetensors|bin)", re.DOTALL)


def path_fault(path: str) -> str | None:
    """Why this cannot be the path of a file in a model; None when it can."""
    if not path:
        return "it is empty"
    if path.startswith("/"):
        return "it is absolute"
    if "\\" in path:
        return "it contains a backslash, which separates directories on Windows"
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in path):
        return "it contains a control character, or bytes that are no UTF-8"
    if len(path.encode()) > MAX_PATH:
        return f"it has {len(path.encode())} bytes, {MAX_PATH} are allowed"
    for component in path.split("/"):
        if component in ("", ".", ".."):
            return f"it has the component {component!r}"
        if len(component.encode()) > _MAX_COMPONENT:
            return f"one of its components has more than {_MAX_COMPONENT} bytes"
    return None


def printable(path: str) -> str:
    """Bytes of a path that are no UTF-8 can stand neither in JSON nor in the catalogue."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def collision(paths: Iterable[str]) -> tuple[str, str] | None:
    """Two paths that are one where case or the composition of letters does not count, or a file and a directory."""
    spellings: dict[str, str] = {}
    files: set[str] = set()
    directories: set[str] = set()
    for path in paths:
        components = path.split("/")
        for depth in range(1, len(components) + 1):
            spelled = "/".join(components[:depth])
            key = unicodedata.normalize("NFC", spelled.casefold())
            known = spellings.setdefault(key, spelled)
            is_file = depth == len(components)
            if known != spelled or key in files or (is_file and key in directories):
                return known, path
            (files if is_file else directories).add(key)
    return None


def paths_fault(paths: Sequence[str]) -> str | None:
    """Why these cannot be the files of one model; None when they can."""
    for path in paths:
        reason = path_fault(path)
        if reason is not None:
            return f"the path {path[:200]!a} cannot be in a model: {reason}"
    twins = collision(paths)
    if twins is not None:
        return f"{twins[0]!r} and {twins[1]!r} are the same path where case does not count"
    return None


# -- shards


def shard_set(filename: str) -> list[str] | None:
    """The names of all parts of the set that this file belongs to; None when the file is no shard."""
    found = _SHARD.fullmatch(filename)
    if found is None:
        return None
    number, total = int(found["number"]), int(found["total"])
    if total < 2 or not 1 <= number <= total:
        return None
    return [
        f"{found['stem']}-{part:05d}-of-{total:05d}.{found['kind']}" for part in range(1, min(total, MAX_FILES) + 1)
    ]


def gguf_shards(filename: str) -> list[str] | None:
    """As `shard_set`, for the kind of which one file stands for all: the others need what lies beside them."""
    return shard_set(filename) if filename.endswith(".gguf") else None


def missing_shard(paths: Iterable[str]) -> tuple[str, str] | None:
    """The first part that some set of shards lacks, and a part of that set that is there."""
    present = set(paths)
    checked: set[str] = set()
    for path in sorted(present):
        directory, _, filename = path.rpartition("/")
        prefix = f"{directory}/" if directory else ""
        if path in checked:
            continue
        names = [prefix + name for name in shard_set(filename) or ()]
        checked.update(names)
        for name in names:
            if name not in present:
                return name, path
    return None


# -- roles

_TOKENIZER = re.compile(
    r"(tokenizer|vocab|merges|special_tokens|added_tokens|spiece|sentencepiece|chat_template)|\.tiktoken$"
)
_LICENSE = re.compile(r"^(licen[sc]e|copying|notice|use_policy)")
_NOT_WEIGHTS = re.compile(r"^(training_args|optimizer|scheduler|rng_state)")
_WEIGHTS: Final = frozenset(
    [
        *("gguf", "ggml", "safetensors", "onnx", "onnx_data", "bin", "pt", "pth", "ckpt", "tflite", "engine", "npz"),
        *("h5", "keras", "pb", "msgpack", "mlmodel"),
    ]
)
OF_WEIGHTS: Final = frozenset({"weights", "mmproj"})
"""The roles of files of weights."""

_CONFIG: Final = frozenset(["json", "yaml", "yml", "toml", "jinja", "ini", "cfg"])
_DOC: Final = frozenset(["md", "rst", "txt", "pdf", "html"])


def role_of(path: str) -> str:
    """What a file is for, by its name alone: weights, config, tokenizer, mmproj, license, doc or other."""
    name = os.path.basename(path).lower()
    stem, _, extension = name.rpartition(".")
    if _TOKENIZER.search(name) and extension not in ("gguf", "safetensors"):
        return "tokenizer"
    if extension in _WEIGHTS:
        if "mmproj" in stem and extension == "gguf":
            return "mmproj"
        return "other" if _NOT_WEIGHTS.match(name) else "weights"
    if _LICENSE.match(name):
        return "license"
    if extension in _CONFIG or name == "modelfile":
        return "config"
    return "doc" if extension in _DOC or name.startswith("readme") else "other"


def first_weights(files: Sequence[tuple[str, str, int]]) -> int:
    """The index of the file that stands for the model: the first weights, else the largest file.

    `files` has path, role and size of each."""
    weights = [index for index, (_path, role, _size) in enumerate(files) if role == "weights"]
    if weights:
        return min(weights, key=lambda index: files[index][0])
    return max(range(len(files)), key=lambda index: (files[index][2], files[index][0]))
