"""A hub of which one file is in xet storage, and what tests look at in the child that reads it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rigs.hub_server import Hub, Repo
from rigs.xet_server import Storage, put

TOKEN = "hf_" + "x7Qw" * 8
ACCESS = "xet-" + "a9Zk" * 8
"""The user's, which the hub wants, and the one that the hub gives for its xet storage."""

PATH = "model.gguf"

FAKE = """
import os, time
class XetConfig:
    def keys(self): return []
    def with_config(self, wanted): return self
class XetSession:
    def __init__(self, config): pass
    def new_download_stream_group(self, **told): return self
    def download_stream(self, info, start, end):
        {0}
class XetFileInfo:
    def __init__(self, *told): pass
"""
"""Stands in for hf-xet where it has to do what the real one hardly ever does."""


@dataclass(frozen=True)
class Xet:
    hub: Hub
    storage: Storage
    content: bytes

    @property
    def repo(self) -> Repo:
        return self.hub.repos["org/repo"]

    @property
    def environ(self) -> dict[str, str]:
        return {"HF_ENDPOINT": self.hub.url, "HF_TOKEN": TOKEN, "HOME": "/nonexistent"}

    @property
    def by_xet(self) -> str:
        return f"hf-xet at xet+{self.hub.url}"

    @property
    def by_http(self) -> str:
        return f"hf {self.hub.url} at {self.hub.url}"


@contextlib.contextmanager
def xet_hub(room: Path, content: bytes, *, hashed: bytes | None = None) -> Iterator[Xet]:
    """`hashed` is what the hub's xet hash stands for, when that is not the file."""
    xet_hash = put(room / "store", content if hashed is None else hashed)
    repo = Repo({PATH: content}, lfs=frozenset({PATH}), xet={PATH: xet_hash})
    with Storage(room / "store", token=ACCESS) as storage, Hub({"org/repo": repo}, valid=frozenset({TOKEN})) as hub:
        hub.access = {"casUrl": storage.url, "accessToken": ACCESS, "exp": 4102444800}
        yield Xet(hub, storage, content)


def fake_hf_xet(room: Path, doing: str) -> str:
    """A directory for PYTHONPATH; `doing` is the body of what gives the bytes from `start` to `end`."""
    room.mkdir()
    (room / "hf_xet.py").write_text(FAKE.format(doing))
    return str(room)


def children(of: int | None = None) -> list[int]:
    """Processes that read xet storage, of this process or of another."""
    pid = os.getpid() if of is None else of
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found.update(int(child) for child in task.read_text().split())
    return sorted(child for child in found if "modeld.download.xet.child" in _read(child, "cmdline"))


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def shown_of(pid: int) -> str:
    """What other users, or the same one, can read of a process: its arguments and its first environment."""
    return _read(pid, "cmdline") + _read(pid, "environ")


def alive(pid: int) -> bool:
    return _read(pid, "stat").rpartition(")")[2].split()[:1] not in ([], ["Z"])
