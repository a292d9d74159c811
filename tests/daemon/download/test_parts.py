"""The pure parts: ranges, who gets which, how many connections, and what a journal says after a crash."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeld.download.engine.connection_count import ConnectionCount
from modeld.download.http.proxies import Proxies
from modeld.download.partials import journal
from modeld.download.partials.extents import Extents
from modeld.download.partials.journal import Header, Identity, Piece
from modeld.download.partials.segments import Segment, Segments
from modeld.download.tuning import DEFAULT, MIB
from modeld.download.urls import follow, parse_url
from modelwire.errors import InvalidRequest, SourceUnavailable

LIMIT = 40
RANGES = st.tuples(st.integers(0, LIMIT), st.integers(0, LIMIT)).map(lambda pair: (min(pair), max(pair)))


@given(st.lists(st.tuples(st.booleans(), RANGES), max_size=30))
def test_extents_are_a_set_of_bytes(steps: list[tuple[bool, tuple[int, int]]]) -> None:
    extents, model = Extents(), set[int]()
    for adds, (start, end) in steps:
        if adds:
            extents.add(start, end)
            model |= set(range(start, end))
        else:
            extents.remove(start, end)
            model -= set(range(start, end))
        found = list(extents)
        assert {byte for first, last in found for byte in range(first, last)} == model
        assert all(one[1] < two[0] for one, two in itertools.pairwise(found)), "joined where they touch"
        assert extents.total == len(model)
        for offset in range(LIMIT):
            reach = offset
            while reach in model:
                reach += 1
            assert extents.reach(offset) == reach
            missing = [byte for byte in range(offset, LIMIT) if byte not in model]
            gap = extents.gap(offset, LIMIT)
            assert (gap is None) == (not missing)
            if gap is not None:
                assert gap[0] == missing[0]
                assert not model & set(range(*gap))
            assert extents.overlaps(offset, offset + 3) == bool(model & set(range(offset, offset + 3)))


@given(st.lists(st.tuples(st.sampled_from("twrl"), st.integers(0, 9), st.integers(1, 9)), max_size=60))
def test_no_byte_is_handed_out_twice(steps: list[tuple[str, int, int]]) -> None:
    segments, busy = Segments(LIMIT), list[Segment]()
    for step, which, amount in steps:
        if step == "t":
            free = [
                byte
                for byte in range(LIMIT)
                if not segments.have.covers(byte, byte + 1)
                and not any(each.position <= byte < each.end for each in busy)
            ]
            taken = segments.take(0.0, amount)
            assert (taken is None) == (not free)
            if taken is not None:
                assert taken.start == free[0], "in file order"
                assert set(range(taken.start, taken.end)) <= set(free)
                busy.append(taken)
        elif busy:
            segment = busy[which % len(busy)]
            if step == "w":
                segments.wrote(segment, min(segment.end, segment.position + amount))
            elif step == "r":
                segments.release(segment)
                busy.remove(segment)
            else:
                segments.lost(segment.start, segment.position)
                segments.release(segment)
                busy.remove(segment)
    assert segments.complete == segments.have.covers(0, LIMIT)


def test_the_slowest_shares_with_the_idle() -> None:
    segments = Segments(8 * MIB)
    slow = segments.take(0.0, 8 * MIB)
    assert slow is not None
    assert segments.ask(slow, 2 * MIB) == 2 * MIB
    segments.wrote(slow, MIB)
    assert segments.split(0.5) is None, "not slow yet"
    half = segments.split(2.0)
    assert half is not None
    assert (slow.end, half.start, half.end) == (half.start, MIB + 7 * MIB // 2, 8 * MIB)
    assert segments.take(2.0, MIB) is None


def test_what_was_asked_for_is_not_given_away() -> None:
    segments = Segments(8 * MIB)
    slow = segments.take(0.0, 8 * MIB)
    assert slow is not None
    segments.ask(slow, 8 * MIB)
    assert segments.split(2.0) is None, "all of it is on its way already"
    segments = Segments(8 * MIB)
    slow = segments.take(0.0, 8 * MIB)
    assert slow is not None
    segments.ask(slow, 6 * MIB)
    half = segments.split(2.0)
    assert half is not None
    assert (half.start, half.end) == (6 * MIB, 8 * MIB)


@given(st.lists(st.tuples(st.sampled_from("taws"), st.integers(0, 9), st.integers(1, 9)), max_size=80))
def test_no_byte_is_asked_for_twice(steps: list[tuple[str, int, int]]) -> None:
    size, asked = 40, set[int]()
    segments, busy, now = Segments(size * MIB), list[Segment](), 0.0
    for step, which, amount in steps:
        now += 1.0
        if step in "ts":
            taken = segments.take(now, amount * MIB) if step == "t" else segments.split(now)
            busy += [] if taken is None else [taken]
            continue
        if not busy:
            continue
        segment = busy[which % len(busy)]
        if step == "a" and segment.position == segment.asked:
            end = segments.ask(segment, amount * MIB)
            more = set(range(segment.position, end, MIB // 4))
            assert not asked & more
            asked |= more
        elif step == "w":
            segments.wrote(segment, min(segment.asked, segment.position + amount * MIB))
            if segment.left == 0:
                segments.release(segment)
                busy.remove(segment)
    assert sum(segment.left for segment in busy) + segments.have.total <= size * MIB


def growing(rates: dict[int, int], *, most: int = 16) -> ConnectionCount:
    """Runs a minute in which `n` connections bring `rates[n]` MiB a second."""
    growth = ConnectionCount(replace(DEFAULT, connections_per_file=most, growth_rest_seconds=1000), 0.0)
    received, now = 0, 0.0
    for _ in range(600):
        now += 0.1
        known = max(number for number in rates if number <= growth.target)
        received += rates[known] * MIB // 10
        growth.observe(now, received, growth.target)
    return growth


def test_more_connections_as_long_as_they_bring_more() -> None:
    assert growing({2: 100}).target == 2
    assert growing({2: 100, 4: 105}).target == 2
    assert growing({2: 100, 4: 200, 8: 210}).target == 4
    assert growing({2: 10, 4: 20, 8: 40, 16: 80}).target == 16
    assert growing({2: 10, 4: 20, 6: 30, 16: 80}, most=6).target == 6


def test_no_more_connections_where_the_budget_is_the_limit() -> None:
    growth = ConnectionCount(replace(DEFAULT, growth_rest_seconds=10), 0.0)
    now = received = 0.0
    for _ in range(600):
        now, received = now + 0.1, received + 100 * MIB / 10
        growth.observe(now, int(received), growth.target, waited=0.5 * now * growth.target)
    assert growth.target == 2, "also after each rest"
    for _ in range(600):
        now, received = now + 0.1, received + 100 * MIB / 10 * growth.target
        growth.observe(now, int(received), growth.target, waited=0.5 * 60 * 2)
    assert growth.target == 16, "the limit has gone"


def test_a_source_that_wants_fewer_gets_fewer() -> None:
    growth = ConnectionCount(DEFAULT, 0.0)
    growth.refused(1.0, 1)
    growth.observe(2.0, 100 * MIB, 1)
    assert growth.target == 1


HEADER = Header("ab" * 32, 100)
LINES: list[Header | Identity | Piece] = [
    HEADER,
    Identity("one", '"e"'),
    Piece(0, 10, "x", 0),
    Piece(20, 30, "y", 0),
    Identity("two", None),
    Piece(5, 15, "z", 1),
]


def test_of_pieces_that_overlap_the_last_one_lies_there() -> None:
    told = journal.parse(journal.encode(LINES))
    assert told is not None
    assert told.header == HEADER
    assert told.identities == (Identity("one", '"e"'), Identity("two", None))
    assert [(piece.start, piece.end) for piece in told.pieces] == [(5, 15), (20, 30)]


def test_every_cut_of_a_journal_is_a_journal() -> None:
    data = journal.encode(LINES)
    ends = [len(journal.encode(LINES[:count])) for count in range(len(LINES) + 1)]
    for cut in range(len(data)):
        told = journal.parse(data[:cut])
        whole = max(end for end in ends if end <= cut)
        assert (told.length if told else 0) == whole


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_byte_ends_it(where: int, change: int) -> None:
    data = bytearray(journal.encode(LINES))
    where %= len(data)
    data[where] ^= change
    told = journal.parse(bytes(data))
    assert (told.length if told else 0) <= where


def test_pieces_beyond_the_end_or_of_nobody_do_not_count() -> None:
    beyond = journal.parse(journal.encode([HEADER, Identity("one", None), Piece(90, 101, "x", 0)]))
    nobody = journal.parse(journal.encode([HEADER, Piece(0, 10, "x", 0)]))
    assert beyond is not None
    assert nobody is not None
    assert beyond.pieces == nobody.pieces == ()
    assert journal.parse(journal.encode([Identity("one", None)])) is None


@pytest.mark.parametrize(
    ("address", "origin", "shown"),
    [
        ("https://Host/a?token=1#x", "https://host", "https://host/a"),
        ("https://u:p@host:8443/a", "https://host:8443", "https://host:8443/a"),
        ("http://[::1]:80/", "http://[::1]", "http://[::1]/"),
        ("https://bücher.example", "https://xn--bcher-kva.example", "https://xn--bcher-kva.example/"),
    ],
)
def test_addresses(address: str, origin: str, shown: str) -> None:
    url = parse_url(address)
    assert (url.origin, url.shown) == (origin, shown)
    assert "token" not in repr(url)
    assert "p@" not in repr(url)


@pytest.mark.parametrize(
    "address",
    [
        "https://user:hunter2/more@host/a",
        "https://user:hunter2?more@host/a",
        "https://user:hunter2[more@host/a",
        "https://host:hunter2/a",
    ],
)
def test_an_address_that_cannot_be_read_is_not_repeated(address: str) -> None:
    """What stands where a port should may be half a password: the standard library's message would quote it."""
    with pytest.raises(InvalidRequest) as refused:
        parse_url(address)
    assert "hunter2" not in f"{refused.value.message} {refused.value.hint} {refused.value.details}"


@pytest.mark.parametrize("location", ["http://127.0.0.1/x", "http://host/x"])
def test_never_from_encrypted_to_plain(location: str) -> None:
    with pytest.raises(SourceUnavailable, match="https to http"):
        follow(parse_url("https://host/a"), location)


@pytest.mark.parametrize(
    ("no_proxy", "address", "direct"),
    [
        ("", "https://a.test/", False),
        ("*", "https://a.test/", True),
        ("a.test", "https://a.test/", True),
        ("a.test", "https://b.a.test/", True),
        (".a.test", "https://ba.test/", False),
        ("a.test:444", "https://a.test/", False),
        ("a.test:443", "https://a.test/", True),
        ("10.0.0.0/8", "https://10.1.2.3/", True),
        ("", "https://127.0.0.1/", True),
    ],
)
def test_which_hosts_are_reached_directly(no_proxy: str, address: str, direct: bool) -> None:
    proxies = Proxies({"https_proxy": "http://proxy.test:3128", "no_proxy": no_proxy})
    assert (proxies.of(parse_url(address)) is None) == direct


def test_a_proxy_that_is_none() -> None:
    with pytest.raises(InvalidRequest, match="socks5") as caught:
        Proxies({"all_proxy": "socks5://me:secret@proxy.test:1080"})
    assert "secret" not in caught.value.message
