"""Opens after the third failure within a minute, lets exactly one probe through, closes on its success."""

from __future__ import annotations

import threading

import pytest

from daemon.conftest import MakeRig
from modeld.download.engine.downloads import Transfer
from modeld.download.routes.breaker import Breaker, Breakers, Trouble
from modeld.download.routes.router import Route
from modeld.sources.parse import parse
from modeld.sources.web import WebReference, WebSource
from modelwire.errors import SourceUnavailable
from rigs.chaos_server import Chaos, Fault
from rigs.download_rig import Elsewhere, content_of
from rigs.scripted_server import Asked, Reply, serving

HOST = "https://host"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def opened(at: float = 0.0) -> Breaker:
    breaker = Breaker()
    assert [breaker.failed(at) for _ in range(3)] == [False, False, True]
    return breaker


def test_the_third_failure_opens_it() -> None:
    breaker = Breaker()
    breaker.failed(0)
    breaker.failed(30)
    assert breaker.allow(30)
    assert breaker.failed(59)
    assert not breaker.allow(59)
    assert breaker.state(88.9) == "open"
    assert breaker.wait(60) == 29


@pytest.mark.parametrize("gap", [30.1, 61.0])
def test_failures_that_are_far_apart_do_not(gap: float) -> None:
    breaker = Breaker()
    assert not any(breaker.failed(gap * number) for number in range(20))
    assert breaker.state(gap * 20) == "closed"


def test_half_open_one_of_fifty_probes() -> None:
    clock = Clock()
    breakers = Breakers(clock)
    for _ in range(3):
        breakers.failed(HOST)
    assert not breakers.allow(HOST)
    clock.now += 30
    start, allowed = threading.Barrier(50), []

    def ask() -> None:
        start.wait()
        allowed.append(breakers.allow(HOST))

    askers = [threading.Thread(target=ask) for _ in range(50)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert allowed.count(True) == 1
    assert not breakers.allow(HOST)


def test_a_good_probe_closes_it() -> None:
    breaker = opened()
    assert breaker.allow(30)
    breaker.succeeded()
    assert breaker.state(30) == "closed"
    assert breaker.allow(30)
    assert not breaker.failed(31), "what was before is forgotten"


def test_a_bad_probe_opens_it_again() -> None:
    breaker = opened()
    assert breaker.allow(30)
    assert breaker.failed(31)
    assert not breaker.allow(60.9)
    assert breaker.allow(61)
    assert not breaker.allow(61)


def test_the_trouble_lasts_until_a_probe_succeeds() -> None:
    clock, calendar = Clock(), Clock()
    breakers = Breakers(clock, calendar=calendar)
    for _ in range(2):
        breakers.failed(HOST)
    assert breakers.troubles() == {}
    breakers.failed(HOST)
    calendar.now, clock.now = 1020, 1020
    assert breakers.troubles() == {HOST: Trouble("open", 1000, 10, False)}
    clock.now = 1040
    assert breakers.troubles() == {HOST: Trouble("half-open", 1000, 0, False)}
    assert breakers.allow(HOST)
    assert breakers.troubles() == {HOST: Trouble("half-open", 1000, 1, True)}
    breakers.failed(HOST)
    assert breakers.troubles() == {HOST: Trouble("open", 1000, 30, False)}, "a failed probe begins no new trouble"
    clock.now = 1070
    assert breakers.allow(HOST)
    breakers.succeeded(HOST)
    assert breakers.troubles() == {}
    for _ in range(3):
        breakers.failed(HOST)
    assert breakers.troubles()[HOST].since == 1020


def test_a_probe_that_was_given_up_leaves_its_turn() -> None:
    breaker = opened()
    assert breaker.allow(30)
    breaker.abandoned()
    assert breaker.allow(30)


def test_failures_of_requests_that_began_before_change_nothing() -> None:
    breaker = opened()
    assert not breaker.failed(29)
    assert breaker.state(30) == "half-open"


def test_hosts_are_apart_and_no_host_is_never_left_alone() -> None:
    breakers = Breakers(Clock())
    for _ in range(9):
        breakers.failed(HOST)
        breakers.failed(None)
    assert not breakers.allow(HOST)
    assert breakers.allow("https://other")
    assert breakers.allow(None)
    assert breakers.troubles()[HOST].state == "open"


def test_a_host_that_is_left_alone_is_passed_over(make_rig: MakeRig) -> None:
    rig = make_rig()
    content = content_of(100_000)
    with Chaos(content) as mirror, Chaos(content) as origin:
        for _ in range(3):
            rig.transfer.breakers.failed(mirror.url)
        rig.transfer.breakers._by_origin[mirror.url]._open_seconds = 60
        sources = [
            Elsewhere(rig.client, "mirror", f"{mirror.url}/m"),
            Elsewhere(rig.client, "origin", f"{origin.url}/m"),
        ]
        rig.commit(rig.fetch(rig.info(origin.url, content), sources=sources))
        assert mirror.requests == []


def test_a_dead_host_opens_it_and_a_live_one_does_not(make_rig: MakeRig) -> None:
    rig = make_rig()
    with Chaos(content_of(100_000), Fault("status", times=99, status=500)) as chaos:
        with pytest.raises(SourceUnavailable):
            rig.fetch(rig.info(chaos.url, chaos.content))
    assert "source.breaker_opened" in rig.kinds()
    assert "transfer.waiting" in rig.kinds(), "the only source there is, so it is waited for"
    rig.events.clear()
    content = content_of()
    with Chaos(content, Fault("drop", 0.1, times=5)) as chaos:
        rig.commit(rig.fetch(rig.info(chaos.url, content)))
        assert rig.transfer.breakers.allow(chaos.url)


def test_half_open_a_host_sees_one_request_of_fifty_askers(make_rig: MakeRig) -> None:
    """Counted at the host, which takes its time to answer the one; then it is open to all."""
    clock, answer = Clock(), threading.Event()

    def route(asked: Asked) -> Reply:
        answer.wait(10)
        return Reply(200, {"Accept-Ranges": "bytes"}, b"GGUF1")

    rig = make_rig()
    with serving(route) as server:
        transfer = Transfer(rig.layout, rig.space, clock=clock)
        reference = parse(f"{server.url}/m.gguf")
        assert isinstance(reference, WebReference)
        described = Route(reference, [WebSource(rig.client, {})])
        for _ in range(3):
            transfer.breakers.failed(server.url)
        with pytest.raises(SourceUnavailable, match="left alone for 30 s more"):
            transfer.router.describe(described)
        clock.now += 30
        start, refused, found = threading.Barrier(50), list[str](), list[object]()

        def ask() -> None:
            start.wait()
            try:
                found.append(transfer.router.describe(described))
            except SourceUnavailable as fault:
                refused.append(fault.message)
                if len(refused) == 49:
                    answer.set()

        askers = [threading.Thread(target=ask) for _ in range(50)]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join(20)
        assert (len(found), len(refused), len(server.asked)) == (1, 49, 1)
        assert all("left alone" in message for message in refused)
        transfer.router.describe(described)
        assert len(server.asked) == 2
