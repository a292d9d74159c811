"""What the tests of error codes share: which codes a test produces, and whether a stranger can use the sentence."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any, TypeVar

from modelwire.errors import BY_CODE

_Test = TypeVar("_Test", bound=Callable[..., object])


def produces(*codes: str) -> Callable[[_Test], _Test]:
    """Marks a test of these codes: `produced` finds the mark."""
    assert set(codes) <= BY_CODE.keys()
    return lambda test: test


def produced(directory: str) -> set[str]:
    """The codes that have a test in one of this directory's modules about error codes."""
    found: set[str] = set()
    for name in os.listdir(directory):
        if name.startswith("test_error_codes") and name.endswith(".py"):
            with open(os.path.join(directory, name), encoding="utf-8") as file:
                for marked in re.findall(r"^@produces\((.*)\)$", file.read(), re.MULTILINE):
                    found.update(re.findall(r'"(\w+)"', marked))
    return found


def assert_speaks(
    reply: dict[str, Any], code: str, *names: str, retryable: bool | None = None, says_all: bool = False
) -> None:
    """One error as a stranger can use it. `says_all`: the message itself leaves no question what to do."""
    assert reply["type"] == "error", reply
    assert reply["code"] == code, reply
    message, hint = reply["message"], reply.get("hint", "")
    for name in names:
        assert name in message, f"{name!r} is not named in {message!r}"
    assert len(message) > 15, message
    assert hint or says_all, f"no hint beside {message!r}"
    assert reply["retryable"] is (BY_CODE[code].retryable_by_default if retryable is None else retryable), reply
    for text in (message, hint):
        assert "Traceback" not in text
        assert "\n" not in text
        assert "object at 0x" not in text
        assert "Errno" not in text
        assert "None" not in text, text
