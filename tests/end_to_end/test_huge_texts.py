"""Texts as long as a request may be where a few characters are meant: refused in few words, compared with nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from modelwire.limits import MIB
from rigs.hub_server import Hub, Repo
from rigs.pull_rig import gguf
from rigs.real_daemon import RealDaemon

HUGE = "\x7f" * (MIB - 1000)
"""Python's own notation of this character takes four, and JSON one more."""

LONGEST_ANSWER = 8000


@pytest.mark.parametrize(
    ("op", "fields", "code"),
    [
        ("model.resolve", {"name": "a", "file": HUGE}, "not_found"),
        ("job.show", {"job": HUGE}, "not_found"),
        ("cancel", {"target": HUGE}, "invalid_request"),
        ("hello", {"protocol": 1, "required": [HUGE]}, "unsupported"),
        ("hello", {"protocol": 1, "required": ["\x7f"] * 100_000}, "unsupported"),
        ("events.subscribe", {"model": HUGE}, "invalid_request"),
        ("events.subscribe", {"job": HUGE}, "invalid_request"),
    ],
)
def test_a_huge_text_is_not_repeated(daemon: RealDaemon, op: str, fields: dict[str, Any], code: str) -> None:
    path = daemon.file("weights.gguf", b"GGUF weights")
    with daemon.connect() as wire:
        assert wire.ask("model.add", path=path, name="a")["type"] == "result"
        request = {"id": "huge", "op": op, **fields}
        wire.send(json.dumps(request, ensure_ascii=False).encode().replace(b"\\u007f", b"\x7f") + b"\n")
        refused = wire.terminal("huge")
        assert refused["code"] == code
        assert len(json.dumps(refused)) < LONGEST_ANSWER
        assert wire.ask("daemon.status")["type"] == "result"


def test_a_license_text_of_a_source_is_no_license(stopped: RealDaemon) -> None:
    """Three megabytes of it made a manifest that the daemon could not read again."""
    repo = Repo({"m.gguf": gguf(5_000, 3)}, lfs=frozenset({"m.gguf"}), license="x" * 3_000_000)
    with Hub({"org/repo": repo}) as hub:
        stopped.environ["HF_ENDPOINT"] = hub.url
        daemon = stopped.start()
        assert daemon.ask("model.pull", ref="hf:org/repo/m.gguf", name="m")["type"] == "result"
    shown = daemon.ask("model.show", name="m")["value"]
    assert (shown["state"], shown.get("license")) == ("ready", None)
