"""What registrations take of the memory."""

from __future__ import annotations

import gc
import os
import tracemalloc
from pathlib import Path

import msgspec

from modeld.store.disk.root import prepare_root
from modeld.store.manifests.registrations import Registrations
from modelwire.knowledge.document import built, document_of

COUNT = 50


def test_they_take_about_the_memory_of_their_bytes(tmp_path: Path) -> None:
    layout = prepare_root(str(tmp_path / "models"))
    os.makedirs(layout.registered)
    document = built("m", "M", "llm", metadata={"many": [{"a": [1, 2]} for _ in range(1000)]})
    for number in range(COUNT):
        written = {"name": f"m{number}", "owner_uid": 7, "model": msgspec.to_builtins(document)}
        Path(layout.registered, f"m{number}.json").write_bytes(msgspec.json.format(msgspec.json.encode(written)))
    size = len(msgspec.json.encode(document))
    registrations = Registrations(layout)
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        registrations.load()
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert taken < COUNT * (2 * size + 4096), f"{taken / COUNT / size:.1f} times the bytes"
    (known, *_) = registrations.all()
    assert known.document == document_of(known.model) == document
    (coming, *_) = registrations.models()
    assert coming.described().model == msgspec.to_builtins(document)
