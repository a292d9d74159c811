"""Helpers for tests of repairs: blobs with flipped bits, and what a server had to send for them."""

from __future__ import annotations

from typing import Any

from rigs.pull_rig import hex_of
from rigs.real_daemon import RealDaemon


def blob_path(daemon: RealDaemon, content: bytes) -> str:
    digest = hex_of(content)
    return f"{daemon.root}/blobs/sha256/{digest[:2]}/{digest}/data"


def repaired(daemon: RealDaemon, *names: str, **fields: Any) -> dict[str, Any]:
    reply = daemon.ask("model.repair", names=list(names), all=not names, **fields)
    assert reply["type"] == "result", f"{reply}\n{daemon.log()}"
    value: dict[str, Any] = reply["value"]
    return value


def refused(daemon: RealDaemon, *names: str, **fields: Any) -> dict[str, Any]:
    reply = daemon.ask("model.repair", names=list(names), all=not names, **fields)
    assert reply["type"] == "error", reply
    assert reply["message"]
    assert reply["hint"]
    return reply
