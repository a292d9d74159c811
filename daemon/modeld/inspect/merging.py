"""The facts of a model whose weights lie in several files: a set of shards, or the files of an index."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from modelwire.values import ModelFacts

MAX_INDEX: Final = 16 << 20
"""Bytes of an index. The largest known has 91,000 weights, in 9 MiB."""

_INDEX: Final = ".safetensors.index.json"


class _Index(msgspec.Struct):
    weight_map: dict[str, str]


def index_beside(path: str, paths: Collection[str]) -> str | None:
    """The one index of safetensors files in the directory of this one."""
    directory = posixpath.dirname(path)
    found = [each for each in paths if each.endswith(_INDEX) and posixpath.dirname(each) == directory]
    return found[0] if len(found) == 1 and path.endswith(".safetensors") else None


def files_of_index(index: str, content: bytes) -> list[str] | None:
    """The paths of the files that an index at the path `index` distributes the weights over; None when it is none."""
    try:
        names = set(msgspec.json.decode(content, type=_Index).weight_map.values())
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    directory = posixpath.dirname(index)
    return sorted(posixpath.join(directory, name) for name in names) or None


def merged(parts: Sequence[ModelFacts], missing: str | None = None) -> ModelFacts:
    """The facts of the first part, with sums over all. `missing` is a part that the model lacks."""
    first = parts[0]
    if missing is not None or any(part.opaque for part in parts):
        why = next((part.opaque for part in parts if part.opaque), None) or f"a part is missing: {missing}"
        return msgspec.structs.replace(first, opaque=why)
    if len(parts) == 1:
        return first
    types = Counter[str]()
    for part in parts:
        types.update(part.tensor_types)
    quantization = first.quantization
    if first.format == "safetensors" and types:
        quantization = types.most_common(1)[0][0]
    return msgspec.structs.replace(
        first,
        parameters=sum(part.parameters or 0 for part in parts),
        tensors=sum(part.tensors or 0 for part in parts),
        tensor_bytes=sum(part.tensor_bytes or 0 for part in parts),
        tensor_types=dict(sorted(types.items())),
        quantization=quantization,
        shard=None,
    )
