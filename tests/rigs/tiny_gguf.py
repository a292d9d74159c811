"""A llama of random weights, as small as llama.cpp takes it, written with the format's own library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy

EMBEDDING, HEADS, FEED_FORWARD, CONTEXT = 64, 2, 128, 256


def write_tiny_llama(
    path: Path,
    *,
    shards: int = 1,
    layers: int = 1,
    kv_heads: int = HEADS,
    context: int = CONTEXT,
    window: int | None = None,
) -> list[Path]:
    """The file, or the files of the set of shards that `path` names. With a `window` it is a gemma3, of whose layers
    only each sixth attends to all tokens."""
    tensors = _tensors(layers, kv_heads, windows=window is not None)
    per_shard = -(-len(tensors) // shards) if shards > 1 else 0
    writer = gguf.GGUFWriter(path, "llama" if window is None else "gemma3", split_max_tensors=per_shard)
    writer.add_name("tiny")
    writer.add_context_length(context)
    writer.add_embedding_length(EMBEDDING)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(EMBEDDING // HEADS)
    if window is not None:
        writer.add_sliding_window(window)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    tokens, kinds = _vocabulary()
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types(kinds)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(path.parent.glob(f"{path.stem}*.gguf"))


def _vocabulary() -> tuple[list[str], list[int]]:
    """The three that every tokenizer needs, and each byte: enough to write any text."""
    kind = gguf.TokenType
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    return tokens, [int(kind.UNKNOWN), int(kind.CONTROL), int(kind.CONTROL), *[int(kind.BYTE)] * 256]


def _tensors(layers: int, kv_heads: int, *, windows: bool) -> dict[str, Any]:
    random = numpy.random.default_rng(7)
    vocabulary, head = len(_vocabulary()[0]), EMBEDDING // HEADS
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (vocabulary, EMBEDDING),
        "output_norm.weight": (EMBEDDING,),
        "output.weight": (vocabulary, EMBEDDING),
    }
    for number in range(layers):
        block = {
            "attn_norm": (EMBEDDING,),
            "attn_q": (EMBEDDING, EMBEDDING),
            "attn_k": (head * kv_heads, EMBEDDING),
            "attn_v": (head * kv_heads, EMBEDDING),
            "attn_output": (EMBEDDING, EMBEDDING),
            "ffn_norm": (EMBEDDING,),
            "ffn_gate": (FEED_FORWARD, EMBEDDING),
            "ffn_up": (FEED_FORWARD, EMBEDDING),
            "ffn_down": (EMBEDDING, FEED_FORWARD),
        }
        if windows:
            block |= {"attn_q_norm": (head,), "attn_k_norm": (head,)}
            block |= {"post_attention_norm": (EMBEDDING,), "post_ffw_norm": (EMBEDDING,)}
        shapes.update({f"blk.{number}.{name}.weight": shape for name, shape in block.items()})
    return {name: random.standard_normal(shape).astype(numpy.float32) * 0.1 for name, shape in shapes.items()}
