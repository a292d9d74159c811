"""The facts of a model whose weights lie in several files: a set of shards, or the files of an index."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec

from modeld.inspect.gguf_types import PLAIN_TYPES
from modelwire.values import ModelFacts

MAX_INDEX: Final = 10 << 20
"""Bytes of an index. The largest known has 91,000 weights, in 9 MiB."""

_MAX_WEIGHTS: Final = 200_000
"""That it distributes."""

_INDEX: Final = ".safetensors.index.json"


class _Index(msgspec.Struct):
    weight_map: dict[str, str]


def quantization_of(file_type: str | None, types: Mapping[str, int]) -> str | None:
    """What the header says of the whole file; the type of most of its bytes where it says nothing, or says what the
    tensors show to be wrong: a quantized file has tensors of other types too, but not most of a plain one's bytes."""
    most = max(types, key=lambda name: types[name], default=None)
    if file_type is None or most is None:
        return file_type or most
    if file_type in PLAIN_TYPES:
        return file_type if file_type in types and most in PLAIN_TYPES else most
    return most if types.keys() <= PLAIN_TYPES else file_type


def index_beside(path: str, paths: Collection[str]) -> str | None:
    """The one index of safetensors files in the directory of this one."""
    directory = posixpath.dirname(path)
    found = [each for each in paths if each.endswith(_INDEX) and posixpath.dirname(each) == directory]
    return found[0] if len(found) == 1 and path.endswith(".safetensors") else None


def files_of_index(index: str, content: bytes, paths: Collection[str]) -> list[str] | None:
    """The paths of the files that an index at the path `index` distributes the weights over, with one at most that is
    none of the model's `paths`. None when it is no index."""
    if content.count(b":") > _MAX_WEIGHTS:
        return None
    try:
        names = set(msgspec.json.decode(content, type=_Index).weight_map.values())
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    directory = posixpath.dirname(index)
    found = {posixpath.join(directory, name) for name in names}
    here = found.intersection(paths)
    return sorted(here) + sorted(found - here)[:1] or None


def merged(parts: Sequence[ModelFacts], missing: str | None = None) -> ModelFacts:
    """The facts of the first part, with sums over all. `missing` is a part that the model lacks: then the sums are not
    known."""
    first = parts[0]
    why = next((part.opaque for part in parts if part.opaque), None)
    if missing is not None:
        why = f"a part is missing: {missing[:200]}"
    if why is not None:
        return ModelFacts(format=first.format, opaque=why) if len(parts) > 1 or missing is not None else first
    if len(parts) == 1:
        return first
    types = Counter[str]()
    for part in parts:
        types.update(part.tensor_types)
    weights = sum(part.weights or 0 for part in parts)
    return msgspec.structs.replace(
        first,
        parameters=weights if first.parameters == first.weights else first.parameters,
        weights=weights,
        quantization=quantization_of(first.file_type, types),
        tensors=sum(part.tensors or 0 for part in parts),
        tensor_bytes=types.total(),
        tensor_types=dict(sorted(types.items())),
        shard=None,
    )
