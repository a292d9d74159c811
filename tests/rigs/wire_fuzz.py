"""Lines that a hostile or broken peer could send: a seed gives the same ones again.

Most are valid JSON, because what is not ends the connection: the others would never be read. Nothing here asks for
something that the daemon would do to itself or to a store (a drain, a file that exists).
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable

from modelwire.operations import OPERATIONS

_OPS = sorted(OPERATIONS)
_TEXTS = (
    "",
    "x",
    "x" * 65,
    "\0",
    "a\0b",
    "../../etc/passwd",
    "/",
    "con.gguf",
    ".",
    "\u202e\u0000",
    "\U0010ffff",
    "é" * 40,
    "{}",
    "sha256:",
    "sha256:" + "A" * 64,
    "0" * 64,
    "*",
    "' OR 1=1 --",
    "%s%n",
    "\x7f\x1b[2J",
)
_VALUES: tuple[object, ...] = (
    None,
    True,
    False,
    0,
    -1,
    2**31,
    2**63,
    2**64,
    -(2**63) - 1,
    0.5,
    -0.0,
    1e308,
    [],
    {},
    [[]],
    {"a": {"b": [1]}},
    ["x"] * 50,
    *_TEXTS,
)
_RAW = (
    '{"id":"r","op":"job.list","limit":1' + "0" * 400 + "}",
    '{"id":"r","op":"job.list","limit":1e999}',
    '{"id":"r","op":"job.list","limit":-1e-999}',
    '{"id":"r","op":"model.resolve","name":"\\ud800"}',
    '{"id":"r","op":"model.resolve","name":"\\udfff\\ud800"}',
    '{"id":"\\ud800","op":"daemon.status"}',
    '{"id":"r","op":"\\ud800"}',
    '{"id":"r","\\udc00":1,"op":"daemon.status"}',
    '{"id":"r","id":"r","op":"daemon.status","op":"model.list"}',
    '{"op":"daemon.status","id":"r","id":7}',
    '{"id":"r","op":"model.resolve","name":"\\u0000"}',
    '{"id":"r","op":"cancel","target":"r"}',
    "  {  }  ",
    "null",
    "[]",
    '"text"',
    "-0",
    "1" * 5000,
    '{"id":"r","op":"daemon.status"}\r',
    "\t",
)
_FATAL = (
    b"\0",
    b"\xff\xfe",
    b"{",
    b'{"id":"1"',
    b"NaN",
    b'{"id":NaN,"op":"daemon.status"}',
    b"[" * 20_000,
    b'{"a":' * 5_000,
    b'{"id":"\xc3\x28","op":"daemon.status"}',
    b"\xef\xbb\xbf{}",
    b"GET / HTTP/1.1\r",
    b'{"id":"1","op":"daemon.status",}',
    b"{'id':'1'}",
    b'"\x01"',
)


class Fuzz:
    def __init__(self, seed: int, *, fatal: float = 0.01) -> None:
        self._random = random.Random(seed)
        self._fatal = fatal
        self._kinds: tuple[Callable[[], bytes], ...] = (self._request, self._request, self._mutated, self._raw)

    def line(self) -> bytes:
        """Without a newline in it, and never a request that starts a drain."""
        if self._random.random() < self._fatal:
            return self._random.choice(_FATAL)
        made = self._random.choice(self._kinds)()
        return made if b"daemon.drain" not in made else b'{"id":"d","op":"daemon.drain","deadline_s":-1}'

    def _request(self) -> bytes:
        """A real operation with right and wrong fields."""
        pick = self._random.choice
        operation = OPERATIONS[pick(_OPS)]
        fields: dict[str, object] = {"id": str(self._random.randrange(40)), "op": operation.name}
        for name in operation.request.__struct_encode_fields__:
            if name != "id" and self._random.random() < 0.7:
                fields[name] = pick(_VALUES)
        if self._random.random() < 0.1:
            fields[pick(_TEXTS)] = pick(_VALUES)
        if self._random.random() < 0.05:
            fields["id"] = pick(_VALUES)
        if self._random.random() < 0.05:
            fields["op"] = pick(_VALUES)
        return json.dumps(fields, ensure_ascii=self._random.random() < 0.5).encode("utf-8", "backslashreplace")

    def _mutated(self) -> bytes:
        """A good line with a few bytes changed: still JSON often enough."""
        text = bytearray(b'{"id":"%d","op":"model.resolve","name":"llama"}' % self._random.randrange(10**6))
        for _ in range(self._random.randrange(1, 4)):
            at = self._random.randrange(9, len(text) - 2)
            text[at] = self._random.randrange(0x23, 0x7F)
        try:
            json.loads(text)
        except ValueError:
            return b'{"id":"m","op":"model.resolve","name":"%d"}' % self._random.randrange(10**6)
        return bytes(text)

    def _raw(self) -> bytes:
        return self._random.choice(_RAW).encode()
