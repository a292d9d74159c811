"""What the files of a model say about themselves."""

from __future__ import annotations

from msgspec import field

from modelwire.values.value import Value
from modelwire.vocabulary import CACHE_TYPE_DEFAULT


class CacheLayers(Value, frozen=True, kw_only=True):
    """Layers for which an engine keeps the same numbers of each token: `keys` and `values` in each layer.

    With a `window` it keeps those of so many tokens, else those of all.
    """

    layers: int
    keys: int
    values: int
    window: int | None = None


class Shard(Value, frozen=True, kw_only=True):
    """The place of a file in its set, by its header. `number` begins with 1."""

    number: int
    count: int
    tensors: int | None = None
    """Of the whole set."""


class TensorView(Value, frozen=True, kw_only=True):
    name: str
    type: str
    shape: tuple[int, ...] = ()
    size_bytes: int = 0


class EstimatedVram(Value, omit_defaults=False, frozen=True, kw_only=True):
    """The video memory that a model takes, in MB: by a rule of thumb for its parameters and quantization, and by its
    header, with the cache of a `context` of so many tokens. What is not known is null."""

    formula: int | None = None
    header: int | None = None
    context: int | None = None
    cache_type: str = CACHE_TYPE_DEFAULT


class ModelFacts(Value, frozen=True, kw_only=True):
    """The facts of the headers. What no header says is absent. `opaque` is why the header could not be read.

    Of a model in several parts the counts are sums over the parts.
    """

    format: str
    opaque: str | None = None
    kind: str | None = None
    """`model`, or what the file says it is instead: `adapter`, `mmproj`, …"""

    architecture: str | None = None
    name: str | None = None
    version: str | None = None
    license: str | None = None
    parameters: int | None = None
    weights: int | None = None
    """The numbers in the tensors, which a header may contradict. Packed weights count as what they are packed in."""

    quantization: str | None = None
    file_type: str | None = None
    """The quantization by the word of the header."""

    tensors: int | None = None
    tensor_bytes: int | None = None
    tensor_types: dict[str, int] = field(default_factory=dict)
    """The bytes of the tensors of each type."""

    context_length: int | None = None
    embedding_length: int | None = None
    layers: int | None = None
    heads: int | None = None
    tokenizer: str | None = None
    vocabulary: int | None = None
    chat_template: bool = False
    shard: Shard | None = None
    big_endian: bool = False
    cache: tuple[CacheLayers, ...] = ()
    state_bytes: int | None = None
    """What an engine keeps of a sequence, whatever its length: the states of recurrent layers."""

    metadata: dict[str, str] = field(default_factory=dict)
    """Of a safetensors file, its own texts."""
