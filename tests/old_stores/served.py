"""What an archived store was pulled from: the same bytes each time, at addresses that do not depend on a port.

The daemon reaches the hosts `models.test` and `hub.test` through a proxy, which is this server. So references, and all
that a store has learned about them, mean the same when the store is made and when a test opens it years later.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from rigs.hub_server import Hub, Repo
from rigs.scripted_server import Asked, Reply, Server, file_reply

CONFIG = '[limits]\nrunning_bytes = 1\nrunning_fetches = 1\n\n[transfer]\nplain_hosts = ["models.test", "hub.test"]\n'

MIB = 1 << 20
BIG = 12 * MIB
HELD_AT = 9 * MIB
"""Two pieces of the journal and a part of a third."""

_BLOCK = 64 * 1024


def gguf(title: str) -> bytes:
    """A whole GGUF file of one tensor."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    facts = {"general.architecture": "llama", "general.name": title}
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(facts))
    for key, value in facts.items():
        head += text(key) + struct.pack("<I", 8) + text(value)
    head += text("output_norm.weight") + struct.pack("<IQIQ", 1, 32, 0, 0)
    head += b"\0" * (-len(head) % 32)
    return head + struct.pack("<32f", *range(32))


def safetensors(title: str) -> bytes:
    tensor = {"dtype": "F32", "shape": [8], "data_offsets": [0, 32]}
    head = json.dumps({"__metadata__": {"title": title}, "weight": tensor}).encode()
    return struct.pack("<Q", len(head)) + head + struct.pack("<8f", *range(8))


def big(title: str) -> bytes:
    """Long enough for a journal, and nearly nothing in an archive: each block differs in its first bytes alone."""
    blocks = (hashlib.sha256(f"{title} {number}".encode()).digest() for number in range(BIG // _BLOCK))
    content = b"".join(block.ljust(_BLOCK, b"\0") for block in blocks)
    return b"GGUF" + struct.pack("<I", 3) + content[8:]


def files() -> dict[str, bytes]:
    """By the path at `http://models.test`."""
    return {f"/{name}.gguf": big(name) for name in ("keyed", "killed", "paused", "waiting")} | {
        "/plain.gguf": gguf("plain"),
        "/urgent.gguf": gguf("urgent"),
        "/wrong.gguf": gguf("another than was promised"),
    }


REPOS = {
    "org/one": Repo({"one.gguf": gguf("one of the hub")}, frozenset({"one.gguf"})),
    "org/many": Repo(
        {"config.json": b'{"model_type": "llama"}\n', "model.safetensors": safetensors("many")},
        frozenset({"model.safetensors"}),
    ),
}


class Served:
    """`held` has paths of `models.test`: of them no byte behind `HELD_AT` is sent, and the connection stays open."""

    def __init__(self) -> None:
        self.files = files()
        self.held: set[str] = set()
        self.sent: Counter[str] = Counter()
        """Bytes of bodies by path of `models.test`."""

        self._hub = Hub(REPOS)
        self._proxy = Server(self._route)

    def environ(self) -> Mapping[str, str]:
        return {"http_proxy": self._proxy.url, "HF_ENDPOINT": "http://hub.test"}

    def __enter__(self) -> Served:
        self._hub.__enter__()
        self._proxy.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._proxy.__exit__()
        self._hub.__exit__()

    def _route(self, asked: Asked) -> Reply:
        scheme, _, rest = asked.target.partition("://")
        host, _, path = rest.partition("/")
        if scheme == "http" and host == "hub.test":
            return self._hub.server.route(replace(asked, target=f"/{path}"))
        content = self.files.get(f"/{path}")
        if scheme != "http" or host != "models.test" or content is None:
            return Reply(404)
        reply = file_reply(asked, content)
        if asked.method != "HEAD":
            if f"/{path}" in self.held and reply.status in (200, 206):
                reply = _cut(reply, len(content))
            self.sent[f"/{path}"] += len(reply.body)
        return reply


def _cut(reply: Reply, size: int) -> Reply:
    """Less than the reply announces: the client waits for the rest."""
    told = reply.headers.get("Content-Range", f"bytes 0-{size - 1}/{size}")
    start = int(told.removeprefix("bytes ").partition("-")[0])
    headers = {**reply.headers, "Content-Length": str(len(reply.body))}
    return Reply(reply.status, headers, reply.body[: max(0, HELD_AT - start)])
