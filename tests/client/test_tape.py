"""The command sends to the byte what that of an earlier version sent, and prints at least what that one printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from client.tape import played
from rigs.command import COMMAND

TAPES = sorted(Path(__file__).parent.glob("tape_*.ndjson"))
LINES: list[dict[str, Any]] = [json.loads(line) for tape in TAPES for line in tape.read_text("utf-8").splitlines()]


def documents(text: str) -> Any:
    """One document, a document in each line, or plain text."""
    try:
        return json.loads(text)
    except ValueError:
        lines = text.splitlines()
        return [json.loads(line) for line in lines] if text.startswith("{") else lines


def holds(now: Any, before: Any) -> bool:
    """Whether all that was printed is printed still; a later version may say more about each thing."""
    if isinstance(now, dict) and isinstance(before, dict):
        return all(key in now and holds(now[key], value) for key, value in before.items())
    if isinstance(now, list) and isinstance(before, list):
        return len(now) == len(before) and all(map(holds, now, before))
    return bool(now == before)


@pytest.mark.parametrize("line", LINES, ids=lambda line: str(line["command"]))
def test_the_command_sends_and_prints_what_it_did(line: dict[str, Any]) -> None:
    now = played(COMMAND, line["command"])
    assert (now["sent"], now["exit"]) == (line["sent"], line["exit"])
    assert holds(documents(now["out"]), documents(line["out"])), now["out"]
