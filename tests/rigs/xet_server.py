"""A xet content store over HTTP, with the bytes that the real hf-xet has put into a `local://` one.

Only what a reader asks for is here: `GET /v1/reconstructions/<file>` and ranges of xorbs. Shards say which chunks of
which xorbs a file is made of.
"""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rigs.scripted_server import Asked, Reply, Server, file_reply

_RECONSTRUCTION = re.compile(r"/v1/reconstructions/([0-9a-f]{64})")
_XORB = re.compile(r"/xorb/([0-9a-f]{64})")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_HEADER, _RECORD = 48, 48
_VERIFICATION, _METADATA = 1 << 31, 1 << 30

UPLOAD = """
import os, sys
import hf_xet
commit = hf_xet.XetSession().new_upload_commit(endpoint="local://" + sys.argv[1])
upload = commit.start_upload_bytes(sys.stdin.buffer.read())
commit.wait_to_finish()
print(upload.result().xet_info.hash)
"""


def put(room: Path, content: bytes) -> str:
    """Into the store at this directory, by the real hf-xet in a process of its own: its xet hash."""
    room.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", UPLOAD, str(room)],
        input=content,
        capture_output=True,
        env={"HF_XET_LOG_DEST": "/dev/null", "PATH": os.defpath, "HOME": str(room)},
        check=True,
        timeout=60,
    )
    return done.stdout.decode().strip()


@dataclass(frozen=True)
class Term:
    """Chunks of one xorb."""

    xorb: str
    length: int
    first: int
    end: int


class Xorb:
    def __init__(self, path: Path) -> None:
        self.content = path.read_bytes()
        self.chunks: list[tuple[int, int, int]] = []
        """Where each begins and ends in the xorb, and its length in the file."""
        at = 0
        while at + 8 <= len(self.content) and self.content[at] == 0:
            stored = int.from_bytes(self.content[at + 1 : at + 4], "little")
            length = int.from_bytes(self.content[at + 5 : at + 8], "little")
            self.chunks.append((at, at + 8 + stored, length))
            at += 8 + stored


class Storage:
    """`token` is what it wants to see. Tests change `answer` to make it fail, or slow."""

    def __init__(self, room: Path, *, token: str) -> None:
        self.token = token
        self.server = Server(lambda asked: self.answer(asked))
        self.answer: Callable[[Asked], Reply] = self.honest
        self._xorbs = {
            path.name.removeprefix("default."): Xorb(path)
            for path in (room / "xet/xorbs/xorbs").iterdir()
            if re.fullmatch(r"default\.[0-9a-f]{64}", path.name)
        }
        self._files: dict[str, list[Term]] = {}
        for path in (room / "xet/xorbs/shards").glob("*.mdb"):
            self._files.update(_files_of(path.read_bytes()))

    @property
    def url(self) -> str:
        return self.server.url

    def __enter__(self) -> Storage:
        self.server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.__exit__()

    def honest(self, asked: Asked) -> Reply:
        found = _RECONSTRUCTION.fullmatch(asked.path)
        if found is not None:
            if asked.headers.get("Authorization") != f"Bearer {self.token}":
                return Reply(401)
            return self._reconstruction(asked, self._files.get(found[1]))
        found = _XORB.fullmatch(asked.path)
        if found is not None and "signature=" in asked.query:
            return file_reply(asked, self._xorbs[found[1]].content)
        return Reply(404)

    def _reconstruction(self, asked: Asked, terms: list[Term] | None) -> Reply:
        if terms is None:
            return Reply(404)
        ranged = _RANGE.fullmatch(asked.headers.get("Range", "bytes=0-"))
        assert ranged is not None
        start, end = int(ranged[1]), int(ranged[2] or 1 << 60) + 1
        told: list[dict[str, Any]] = []
        places: dict[str, list[dict[str, Any]]] = {}
        position, skipped = 0, 0
        for term in terms:
            chunks = self._xorbs[term.xorb].chunks
            wanted: list[int] = []
            for number in range(term.first, term.end):
                length = chunks[number][2]
                if position + length > start and position < end:
                    if not told and not wanted:
                        skipped = max(0, start - position)
                    wanted.append(number)
                position += length
            if not wanted:
                continue
            part = {"start": wanted[0], "end": wanted[-1] + 1}
            length = sum(chunks[number][2] for number in wanted)
            told.append({"hash": term.xorb, "unpacked_length": length, "range": part})
            places.setdefault(term.xorb, []).append(
                {
                    "range": part,
                    "url": f"{self.url}/xorb/{term.xorb}?signature=signed-by-the-store",
                    "url_range": {"start": chunks[wanted[0]][0], "end": chunks[wanted[-1]][1] - 1},
                }
            )
        if not told:
            return Reply(416)
        answer = {"offset_into_first_range": skipped, "terms": told, "fetch_info": places}
        return Reply(200, {"Content-Type": "application/json"}, json.dumps(answer).encode())


def _files_of(shard: bytes) -> Mapping[str, list[Term]]:
    files: dict[str, list[Term]] = {}
    at = _HEADER
    while shard[at : at + 32] != b"\xff" * 32:
        name = _spelled(shard[at : at + 32])
        flags, count = struct.unpack_from("<II", shard, at + 32)
        at += _RECORD
        terms = []
        for _ in range(count):
            terms.append(Term(_spelled(shard[at : at + 32]), *struct.unpack_from("<III", shard, at + 36)))
            at += _RECORD
        files[name] = terms
        at += _RECORD * count * bool(flags & _VERIFICATION) + _RECORD * bool(flags & _METADATA)
    return files


def _spelled(raw: bytes) -> str:
    """Four little-endian numbers, as xet writes hashes."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", raw))


class Gate:
    """Holds an answer back until it is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()

    def hold(self) -> None:
        self.reached.set()
        self.opened.wait(30)
