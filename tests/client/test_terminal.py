"""Nothing that a daemon says reaches a terminal as a command to it: neither escapes, nor lines, nor the marks that turn
the direction of text. The daemon here puts them into every text of every answer."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modelclient.ctl.command_line import VERBS
from modelwire import operations
from modelwire.requests import Request
from rigs.command import Ctl
from rigs.scripted_peer import Conversation, ScriptedPeer

EVIL = "x\x1b[2J\x07\x7f\x9b31m\u202e\u2066\u2028\r\nINJECTED"
VECTORS = Path(__file__).parents[2] / "protocol" / "vectors" / "operations.ndjson"
FOR_PROGRAMS = {"path"}
"""What they print is the bytes of a path, and nothing else."""

COMMANDS: dict[str, list[str]] = {
    "add": ["FILE"],
    "attach": ["01k3vxq4m7e2d9c8b6a5f4g3h2"],
    "cancel": ["01k3vxq4m7e2d9c8b6a5f4g3h2"],
    "cp": ["a", "b"],
    "fit": ["m"],
    "job": ["01k3vxq4m7e2d9c8b6a5f4g3h2"],
    "jobs": [],
    "list": [],
    "log": ["-n", "3"],
    "mv": ["a", "b"],
    "path": ["m"],
    "pause": ["01k3vxq4m7e2d9c8b6a5f4g3h2"],
    "pin": ["m"],
    "provision": ["FILE"],
    "pull": ["hf:org/repo"],
    "quarantine": [],
    "register": ["MANIFEST"],
    "repair": ["m"],
    "resume": ["01k3vxq4m7e2d9c8b6a5f4g3h2"],
    "rm": ["m"],
    "run": ["m", "--", "echo", "said"],
    "scrub": [],
    "store": ["move", "/mnt/models"],
    "set": ["max_rate=5MB"],
    "show": ["m"],
    "status": [],
    "stop": [],
    "sweep": [],
    "unpin": ["m"],
    "update": ["COMMAND"],
    "updates": [],
    "usage": [],
    "verify": [],
    "template": ["yolov8n"],
    "version": [],
    "watch": [],
}
STARTS_A_DAEMON = {"start"}


def one_evil(value: Any) -> Iterator[Any]:
    """The document with one of its texts made evil, for each of its texts."""
    if isinstance(value, str):
        yield EVIL
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from ({**value, key: changed} for changed in one_evil(each))
    elif isinstance(value, list):
        for place, each in enumerate(value):
            yield from ([*value[:place], changed, *value[place + 1 :]] for changed in one_evil(each))


@cache
def poisoned(operation: str) -> Any:
    """The value of an operation with as many evil texts as its type allows."""
    done, kind = ANSWERS[operation][-1]["value"], operations.OPERATIONS[operation].value
    for _ in range(200):
        for changed in one_evil(done):
            if changed != done:
                try:
                    msgspec.convert(changed, kind)
                except msgspec.ValidationError:
                    continue
                done = changed
                break
        else:
            return done
    raise AssertionError("a document with more than 200 texts")


def answers_by_operation() -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for line in VECTORS.read_text(encoding="utf-8").splitlines():
        vector = json.loads(line)
        operation, received = (vector["send"] or {}).get("op"), vector["receive"]
        if operation in operations.OPERATIONS and received and received[-1]["type"] == "result":
            found.setdefault(operation, received)
    return found


ANSWERS = answers_by_operation()


def answer(talk: Conversation, request: Request) -> None:
    operation = str(type(request).__struct_config__.tag)
    for reply in ANSWERS[operation]:
        told = {**reply, "id": request.id}
        if reply["type"] == "result":
            told["value"] = poisoned(operation)
        elif reply["type"] == "event":
            told |= {key: EVIL for key, value in reply.items() if isinstance(value, str) and key not in ("type", "id")}
            told["id"] = request.id
        elif reply["type"] == "accepted":
            told |= {"job": EVIL, "position": 1}
        elif reply["type"] == "progress":
            told |= {"job": EVIL, "source": EVIL}
        talk.raw(json.dumps(told).encode() + b"\n")
    if operation == "daemon.drain":
        talk.hang_up()


def test_every_verb_is_asked_below() -> None:
    assert {verb for verb, _, _ in VERBS} == set(COMMANDS) | STARTS_A_DAEMON


SHOWN = sorted(set(COMMANDS) - FOR_PROGRAMS)
FORMS: list[tuple[str, tuple[str, ...]]] = [*((verb, ()) for verb in SHOWN), *((verb, ("--quiet",)) for verb in SHOWN)]
FORMS += [(verb, ("--detach",)) for verb in ("add", "pull")]


@pytest.mark.parametrize(("verb", "options"), FORMS)
def test_a_daemon_writes_no_commands_to_the_terminal(
    peer: Callable[..., ScriptedPeer], ctl: Ctl, room: Path, verb: str, options: tuple[str, ...]
) -> None:
    (room / "FILE").write_bytes(b"GGUF")
    (room / "MANIFEST").write_bytes(b"{}")
    words = [str(room / word) if word in ("FILE", "MANIFEST") else word for word in COMMANDS[verb]]
    done = ctl("--socket", peer(answer).path, *options, verb, *words)
    shown = done.stdout + done.stderr
    odd = {sign for sign in shown if sign != "\n" and unicodedata.category(sign) in ("Cc", "Cf", "Zl", "Zp")}
    assert odd == set(), shown
    assert not re.search(r"^INJECTED", shown, re.MULTILINE)
