"""What an engine keeps of each token of a sequence, layer by layer, as llama.cpp computes it from the header.

Grouped-query heads make the cache smaller than the heads would have it; a sliding window bounds the tokens of a layer;
latent attention keeps one compressed row for keys and values; recurrent layers keep a state instead of a cache.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from modeld.inspect.gguf_keys import MAX_LAYERS, Keys
from modeld.inspect.windows import windowed
from modelwire.values import CacheLayers

_NO_CACHE: Final = ("bert", "nomic-bert", "jina-bert", "neo-bert", "modern-bert", "dream", "llada", "rnd1", "t5encoder")
"""Beginnings of the names of architectures that read their whole input at once: an engine keeps nothing."""

_FULL_EACH: Final = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4}
"""Of so many layers the last has attention, and the others a state, where the header does not say."""

_CHUNKS: Final = {"llama4": 8192}
"""Windows that no header states."""

_STATE_BYTES: Final = 4
"""Of a number of a recurrent state: F32."""


def cache_layers(keys: Keys) -> tuple[CacheLayers, ...]:
    """Empty when the header does not say enough."""
    layers = keys.of_model("block_count")
    architecture = keys.architecture or ""
    if layers is None or not 0 < layers <= MAX_LAYERS or architecture.startswith(_NO_CACHE):
        return ()
    heads = keys.per_layer("attention.head_count", layers)
    kv_heads = keys.per_layer("attention.head_count_kv", layers) or heads
    if heads is None or not any(heads) or kv_heads is None or not any(kv_heads):
        return ()
    width = (keys.of_model("embedding_length") or 0) // max(heads)
    key_width = _or(keys.of_model("attention.key_length"), width)
    value_width = 0 if _is_latent(keys) else _or(keys.of_model("attention.value_length"), width)
    window_widths = (
        _or(keys.of_model("attention.key_length_swa"), key_width),
        _or(keys.of_model("attention.value_length_swa"), value_width),
    )
    window = _or(keys.of_model("attention.sliding_window"), _CHUNKS.get(architecture, 0)) or None
    in_windows = _in_windows(keys, layers) if window else [False] * layers
    without = (keys.of_model("attention.shared_kv_layers") or 0) + (keys.of_model("nextn_predict_layers") or 0)
    own = max(layers - without, 0)
    each_full = _each_full(keys)
    groups = Counter[tuple[int, int, int | None]]()
    for number, (count, in_window) in enumerate(zip(kv_heads[:own], in_windows, strict=False), 1):
        if each_full and number % each_full:
            continue
        of_key, of_value = window_widths if in_window else (key_width, value_width)
        if count:
            groups[count * of_key, count * of_value, window if in_window else None] += 1
    return tuple(
        CacheLayers(layers=number, keys=of_keys, values=of_values, window=tokens)
        for (of_keys, of_values, tokens), number in groups.items()
    )


def state_bytes(keys: Keys) -> int | None:
    """Of the states of the recurrent layers; None when the header has none."""
    layers = keys.of_model("block_count")
    conv, inner = keys.of_model("ssm.conv_kernel"), keys.of_model("ssm.inner_size")
    state, groups = keys.of_model("ssm.state_size"), keys.of_model("ssm.group_count") or 0
    if layers is None or layers > MAX_LAYERS or not conv or inner is None or state is None:
        return None
    kv_heads = keys.per_layer("attention.head_count_kv", layers) or [0] * layers
    forward = keys.per_layer("feed_forward_length", layers) or [0] * layers
    # Where layers of one kind have no feed-forward part, those without both are the recurrent ones.
    mixed = 0 in forward and any(forward)
    recurrent = sum(not heads and not (mixed and wide) for heads, wide in zip(kv_heads, forward, strict=True))
    each_full = _each_full(keys)
    if each_full:
        recurrent = layers - layers // each_full
    # Where no layer is without attention, each one has both.
    recurrent = recurrent or layers
    return recurrent * _STATE_BYTES * ((conv - 1) * (inner + 2 * groups * state) + state * inner)


def _each_full(keys: Keys) -> int | None:
    """Of so many layers only the last has attention."""
    return keys.of_model("full_attention_interval") or _FULL_EACH.get(keys.architecture or "")


def _or(number: int | None, other: int) -> int:
    return other if number is None else number


def _is_latent(keys: Keys) -> bool:
    """The rows of keys hold the values too."""
    return keys.of_model("attention.kv_lora_rank") is not None and keys.of_model("attention.key_length_mla") is not None


def _in_windows(keys: Keys, layers: int) -> list[bool]:
    """Whether each layer attends to a window. Without a word on it none does: an estimate is rather too high."""
    key = "attention.sliding_window_pattern"
    if keys.items(f"{keys.architecture}.{key}") is not None:
        given = keys.per_layer(key, layers)
        return [False] * layers if given is None else [each != 0 for each in given]
    architecture = keys.architecture or ""
    return windowed(architecture, layers, keys.of_model(key)) or [False] * layers
