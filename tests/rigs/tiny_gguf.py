"""A llama of random weights, as small as llama.cpp takes it, written with the format's own library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy

EMBEDDING, HEADS, FEED_FORWARD, CONTEXT = 64, 2, 128, 256


def write_tiny_llama(path: Path, *, shards: int = 1) -> list[Path]:
    """The file, or the files of the set of shards that `path` names."""
    tensors = _tensors()
    per_shard = -(-len(tensors) // shards) if shards > 1 else 0
    writer = gguf.GGUFWriter(path, "llama", split_max_tensors=per_shard)
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(EMBEDDING)
    writer.add_block_count(1)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(EMBEDDING // HEADS)
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


def _tensors() -> dict[str, Any]:
    random = numpy.random.default_rng(7)
    vocabulary = len(_vocabulary()[0])
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (vocabulary, EMBEDDING),
        "output_norm.weight": (EMBEDDING,),
        "output.weight": (vocabulary, EMBEDDING),
        "blk.0.attn_norm.weight": (EMBEDDING,),
        **{f"blk.0.attn_{part}.weight": (EMBEDDING, EMBEDDING) for part in ("q", "k", "v", "output")},
        "blk.0.ffn_norm.weight": (EMBEDDING,),
        "blk.0.ffn_gate.weight": (FEED_FORWARD, EMBEDDING),
        "blk.0.ffn_up.weight": (FEED_FORWARD, EMBEDDING),
        "blk.0.ffn_down.weight": (EMBEDDING, FEED_FORWARD),
    }
    return {name: random.standard_normal(shape).astype(numpy.float32) * 0.1 for name, shape in shapes.items()}
