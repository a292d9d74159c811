"""Hostile lines against the server's side: only a request or a refusal comes out, and nothing piles up.

The generator is seeded: a failure names the seed and the line. The suite runs a share of the lines on each run, the
torture all of them with several seeds.
"""

from __future__ import annotations

import gc
import json
import os
import random
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwire import limits
from modelwire.client import ClientConnection
from modelwire.connection import ServerConnection
from modelwire.decoding import BadRequest
from modelwire.encoding import encode
from modelwire.errors import RemoteError
from modelwire.operations import OPERATIONS
from modelwire.replies import Error, Result
from modelwire.requests import DaemonStatus, Request
from rigs.rough_peers import SHORT, scaled
from rigs.sample_requests import sample_request

Dice = random.Random

MANY = scaled(100_000, 30_000)
GROWTH = 256 * 1024
"""Bytes that may be held more after all lines than after the first tenth: the interpreter's caches, not the wire."""

REFUSAL = 4096
"""Bytes of an error frame at most: a peer's own text is echoed short."""

WORDS = [
    '"\\ud800"', '"\\udfff\\ud800"', '"\\u0000"', '"\x00"', '"\\x"', '"\t"', '"\x7f"', '"\u2028"', '"\ufeff"', '"é🦙"',
    "NaN", "-Infinity", "Infinity", "1e400", "-1e-400", "1e", "01", "-", "+1", ".5", "0x10", "1_000", "-0", "9" * 30,
    "9" * 400, "9" * 5000, "2147483648", "9223372036854775808", "null", "true", "nul", "{}", "[]", "[[[[]]]]",
    '{"a":{"a":1}}', '""', "''", "\ufeff", "//", "undefined", '"cancel"', "3", "-1", "1.0", '["a",1]',
    '"../../etc/passwd"',
]  # fmt: skip
KEYS = ["id", "op", "name", "path", "job", "priority", "target", "protocol", "since", "deadline_s", "required",
        "\\u0000", "zzz", "", "ID", "__proto__", "name\\ud800", "a`b - at `$.c`"]  # fmt: skip


def good(dice: Dice) -> bytes:
    request = sample_request(
        dice.choice(list(OPERATIONS)), id=f"g{dice.randrange(5)}", target="live", path="/srv/a.gguf", name="a:b"
    )
    return json.dumps(request, ensure_ascii=dice.random() < 0.5).encode()


def random_bytes(dice: Dice) -> bytes:
    return dice.randbytes(dice.randrange(60))


def flipped(dice: Dice) -> bytes:
    line = bytearray(good(dice))
    for _ in range(dice.randrange(1, 4)):
        line[dice.randrange(len(line))] = dice.randrange(256)
    return bytes(line)


def cut(dice: Dice) -> bytes:
    line = good(dice)
    start, end = sorted(dice.randrange(len(line) + 1) for _ in range(2))
    return dice.choice([line[:end], line[start:], line[:start] + line[end:], line[:end] + line[start:]])


def of_words(dice: Dice) -> bytes:
    pairs = [f'"{dice.choice(KEYS)}":{dice.choice(WORDS)}' for _ in range(dice.randrange(4))]
    return ("{" + ",".join(pairs) + "}").encode()


def one_bad_field(dice: Dice) -> bytes:
    line = good(dice)[:-1].decode()
    return f'{line},"{dice.choice(KEYS)}":{dice.choice(WORDS)}}}'.encode()


def bad_id(dice: Dice) -> bytes:
    around_the_limit = [f'"{"é" * dice.randrange(30, 35)}"', f'"{"x" * dice.randrange(60, 70)}"']
    text = dice.choice([*WORDS, '"live"', *around_the_limit])
    return f'{{"id":{text},"op":"{dice.choice([*OPERATIONS, "nope", ""])}"}}'.encode()


def twice(dice: Dice) -> bytes:
    key = dice.choice(["id", "op", "name"])
    one, other = (dice.choice(['"live"', '"1"', '"daemon.status"', '"model.show"', "5", "null"]) for _ in range(2))
    return f'{{"{key}":{one},"id":"t","op":"model.show","name":"a","{key}":{other}}}'.encode()


def nested(dice: Dice) -> bytes:
    depth = dice.choice([10, 200, 900, 1100, 5000, 20_000])
    opening, closing = dice.choice([(b"[", b"]"), (b'{"a":', b"}")])
    deep = opening * depth + b"1" + closing * dice.choice([0, depth - 1, depth])
    return dice.choice([deep, b'{"id":"d","op":"daemon.status","x":' + deep + b"}", b'{"x":' + deep + b',"id":"d"}'])


def giant_number(dice: Dice) -> bytes:
    digits = bytes(dice.choice(b"0123456789") for _ in range(dice.choice([20, 310, 4301, 20_000])))
    number = dice.choice([b"", b"-"]) + b"1" + digits + dice.choice([b"", b".5", b"e5", b"e-99999", b"e+400"])
    return b'{"id":"n","op":"job.list","limit":' + number + b"}"


def long_text(dice: Dice) -> bytes:
    text = dice.choice(["x", "é", "` - at `", "\\\\", '\\"']) * dice.choice([50, 5000, 20_000])
    return f'{{"id":"l","op":"{dice.choice(["model.show", text])}","{dice.choice(["name", text])}":"{text}"}}'.encode()


def empty(dice: Dice) -> bytes:
    return dice.choice([b"", b" ", b"\r", b"\t \r", b"\x0b", b"\x0c", b"\xc2\xa0"])


MAKERS: list[tuple[Callable[[Dice], bytes], int]] = [
    (good, 10), (random_bytes, 15), (flipped, 20), (cut, 15), (of_words, 15), (one_bad_field, 20), (bad_id, 10),
    (twice, 5), (nested, 2), (giant_number, 2), (long_text, 1), (empty, 2),
]  # fmt: skip


def hostile_lines(dice: Dice) -> Iterator[bytes]:
    makers, weights = zip(*MAKERS, strict=True)
    while True:
        line = dice.choices(makers, weights)[0](dice)
        yield line.replace(b"\n", b" ")


class Peer:
    """A daemon's connection with one request in flight, which nothing that comes later may end."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.server = self._connected()

    def _connected(self) -> ServerConnection:
        server = ServerConnection()
        server.feed(b'{"id":"live","op":"job.attach","job":"j"}\n')
        assert isinstance(server.next_request(), Request)
        return server

    def send(self, pieces: list[bytes]) -> None:
        """All that may come out is a request, which is answered, or a refusal, whose frame a client can read."""
        for piece in pieces:
            self.server.feed(piece)
            while True:
                try:
                    request = self.server.next_request()
                except BadRequest as bad:
                    if self._refused(bad):
                        return
                    continue
                if request is None:
                    break
                self.outcomes["request"] += 1
                self.server.reply(Result(id=request.id, value=None))
        self._is_served_next()

    def _refused(self, bad: BadRequest) -> bool:
        frame = encode(Error.of(bad.id, bad.fault))
        assert len(frame) <= REFUSAL
        assert bad.id not in self.server.open
        client = ClientConnection()
        if bad.id is not None:
            client.request(DaemonStatus(id=bad.id))
        client.feed(frame)
        reply = client.next_reply()
        assert isinstance(reply, Error)
        assert reply.to_exception().code == bad.fault.code
        self.outcomes["fatal" if bad.fatal else "refused"] += 1
        if bad.fatal:
            assert bad.id is None
            self.server.feed(b'{"id":"behind","op":"daemon.drain"}\n')
            assert self.server.next_request() is None
            assert list(self.server.open) == ["live"]
            self.server = self._connected()
        return bad.fatal

    def _is_served_next(self) -> None:
        self.server.feed(b'{"id":"next","op":"daemon.status"}\n')
        assert self.server.next_request() == DaemonStatus(id="next")
        assert set(self.server.open) == {"live", "next"}
        self.server.close("next")
        assert not self.server.partial


def pieces_of(line: bytes, dice: Dice) -> list[bytes]:
    whole = line + b"\n"
    way = dice.randrange(10)
    if way == 0 and len(whole) < 500:
        return [whole[at : at + 1] for at in range(len(whole))]
    if way == 1:
        at = dice.randrange(len(whole))
        return [whole[:at], whole[at:]]
    return [whole]


def fuzz(seed: int, count: int) -> Iterator[Counter[str]]:
    """Sends the lines; what has come out so far, after each tenth of them."""
    dice = Dice(seed)
    lines = hostile_lines(dice)
    peer = Peer()
    for number in range(1, count + 1):
        line = next(lines)
        try:
            peer.send(pieces_of(line, dice))
        except Exception as error:
            raise AssertionError(f"seed {seed}, line {number}: {line[:300]!r}") from error
        if number % (count // 10) == 0:
            yield peer.outcomes


def growth(seed: int, count: int) -> int:
    """Of a process that does nothing else: what runs beside the tests in theirs allocates too."""
    tests = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    done = subprocess.run(
        [sys.executable, "-c", f"from protocol.test_fuzz import grown; print(grown({seed}, {count}))"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])},
        stdout=subprocess.PIPE,
        check=True,
    )
    return int(done.stdout)


def grown(seed: int, count: int) -> int:
    """Bytes held after all lines, less those after the first tenth. Measuring makes it all three times as slow."""
    held = []
    tracemalloc.start()
    try:
        for _ in fuzz(seed, count):
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    return held[-1] - held[0]


def test_hostile_lines_bring_out_requests_and_refusals_only() -> None:
    outcomes = [*fuzz(seed=1, count=20_000)][-1]
    assert set(outcomes) == {"request", "refused", "fatal"}
    assert min(outcomes.values()) > 1000


def test_hostile_lines_leave_nothing_behind() -> None:
    assert growth(seed=7, count=5000) < GROWTH


@pytest.mark.torture
@pytest.mark.parametrize("seed", [2] if SHORT else [2, 3, 5])
def test_a_hundred_thousand_hostile_lines(seed: int) -> None:
    """30,000 in the short form."""
    outcomes = [*fuzz(seed, count=MANY)][-1]
    assert min(outcomes.values()) > MANY // 20


@pytest.mark.torture
def test_a_hundred_thousand_hostile_lines_leave_nothing_behind() -> None:
    assert growth(seed=11, count=MANY) < GROWTH


def test_lines_of_any_length_are_bounded() -> None:
    peer = Peer()
    for length in (limits.MAX_REQUEST - 1, limits.MAX_REQUEST, limits.MAX_REQUEST + 1, 3 * limits.MAX_REQUEST):
        for filling in (b" ", b"[", b"9", b'"', b"x"):
            line = filling * length
            peer.send([line[at : at + 65_536] for at in range(0, length, 65_536)] + [b"\n"])
    assert peer.outcomes["fatal"] >= 10


@given(st.lists(st.binary(max_size=80) | st.sampled_from(WORDS + KEYS).map(str.encode) | st.just(b"\n"), max_size=30))
def test_any_stream_of_bytes(stream: list[bytes]) -> None:
    server = ServerConnection(max_request=200)
    for piece in stream:
        server.feed(piece)
        drain(server, server.next_request)
    drain(server, server.finish)
    assert not server.partial


def drain(server: ServerConnection, take: Callable[[], Request | None]) -> None:
    while True:
        try:
            request = take()
        except BadRequest as bad:
            encode(Error.of(bad.id, bad.fault))
            continue
        if request is None:
            return
        server.close(request.id)


@given(st.lists(st.binary(max_size=80) | st.sampled_from(['{"type":', '"event"', "}", "\n", *WORDS]).map(str.encode)))
def test_any_stream_of_bytes_from_a_daemon(stream: list[bytes]) -> None:
    client = ClientConnection(max_reply=200)
    client.request(DaemonStatus(id="1"))
    with suppress(RemoteError):
        for piece in stream:
            client.feed(piece)
            while client.next_reply() is not None:
                pass
