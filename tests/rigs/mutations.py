"""Whole headers of both formats, and the damage that bad disks, bad programs and attackers do to them."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

from rigs.gguf_headers import gguf_file
from rigs.tiny_gguf import write_tiny_llama

_NUMBERS = (0, 1, 2, 8, 9, 10, 255, 2**16, 2**31, 2**32 - 1, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1)


def whole_headers(directory: Path) -> list[bytes]:
    """Small files that have all that headers have."""
    (llama,) = write_tiny_llama(directory / "tiny.gguf")
    kinds = {"a.text": "words", "a.yes": True, "a.half": 0.5, "a.list": ["x", "y"], "a.deep": [[1, 2], [3]]}
    tensors = {"t0": (0, 32, 128), "t1": (12, 256, 144), "t2": (30, 64, 128)}
    model = {"general.architecture": "a", "a.block_count": 3, "a.attention.head_count": [1, 2, 1]}
    parts = {
        "__metadata__": {"format": "pt", "note": "\u00e9" * 20},
        **{f"t{at}": {"dtype": "F16", "shape": [2, 4], "data_offsets": [at * 16, at * 16 + 16]} for at in range(6)},
    }
    document = json.dumps(parts).encode()
    return [
        llama.read_bytes()[:12_000],
        gguf_file(kinds | model, tensors),
        gguf_file(kinds),
        len(document).to_bytes(8, "little") + document + bytes(96),
    ]


def mutated(chance: random.Random, whole: Sequence[bytes]) -> bytes:
    """One of these, with damage at one to four places; its beginning mostly stays, or nothing would be read."""
    content = bytearray(chance.choice(whole))
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(0 if chance.random() < 0.05 else 8, max(9, len(content)))
        match chance.randrange(7):
            case 0:
                content[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                content[at : at + 1] = bytes(byte ^ 1 << chance.randrange(8) for byte in content[at : at + 1])
            case 2:
                content[at : at + 8] = chance.choice(_NUMBERS).to_bytes(8, chance.choice(("little", "big")))
            case 3:
                content[at : at + 4] = (chance.choice(_NUMBERS) % 2**32).to_bytes(4, "little")
            case 4:
                del content[at : at + chance.randint(1, 64)]
            case 5:
                content[at:at] = content[at : at + chance.randint(1, 64)] * chance.randint(1, 3)
            case _:
                del content[at:]
    return bytes(content)
