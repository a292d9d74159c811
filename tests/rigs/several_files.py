"""Models of several files to add, and what is left of them."""

from __future__ import annotations

import os
from pathlib import Path

from rigs.real_daemon import RealDaemon
from rigs.waiting import wait_until

WEIGHTS = b"GGUF" + bytes(3000)


def directory(room: Path, name: str = "gemma", files: dict[str, bytes] | None = None) -> Path:
    made = room / name
    for path, content in (files or EXAMPLE).items():
        (made / path).parent.mkdir(parents=True, exist_ok=True)
        (made / path).write_bytes(content)
    return made


EXAMPLE = {
    "config.json": b"{}",
    "model-00001-of-00002.safetensors": b"one" * 700,
    "model-00002-of-00002.safetensors": b"two" * 700,
    "tokenizer.json": b'{"v": 1}',
    "mmproj-f16.gguf": b"GGUFp",
    "LICENSE": b"MIT",
    "README.md": b"# hello",
    "sub/deeper/extra.dat": b"extra",
}


def shards(room: Path, stem: str = "big", count: int = 3) -> list[Path]:
    made = [room / f"{stem}-{part:05d}-of-{count:05d}.gguf" for part in range(1, count + 1)]
    for part, path in enumerate(made):
        path.write_bytes(WEIGHTS + bytes([part]))
    return made


def tree_of(path: str) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in Path(path).rglob("*") if file.is_file()}


def leftovers(daemon: RealDaemon) -> list[str]:
    return os.listdir(f"{daemon.root}/.modeld/staging")


def assert_nothing_there(daemon: RealDaemon) -> None:
    assert os.listdir(f"{daemon.root}/manifests") == []
    assert [path for path, _, files in os.walk(f"{daemon.root}/blobs") if files] == []
    assert leftovers(daemon) == []
    wait_until(lambda: not daemon.ask("daemon.status")["value"].get("reserved_bytes"), what="room given back")
