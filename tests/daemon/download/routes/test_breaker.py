"""Opens when the third request within a minute has failed, lets exactly one probe through, closes on its success.

A request that comes while it is open is not refused for the failures of others.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest

from daemon.conftest import MakeRig
from modeld.download.engine.downloads import Transfer
from modeld.download.routes.breaker import MOST_KEPT, Admission, Breaker, Breakers, Trouble
from modeld.download.routes.router import Route
from modeld.progress import Stopped
from modeld.sources.parse import parse
from modeld.sources.web import WebReference, WebSource
from modelwire.errors import SourceUnavailable, WireError
from rigs.chaos_server import Chaos, Fault, unused_port
from rigs.download_rig import QUICK, Elsewhere, Rig, content_of
from rigs.scripted_server import Asked, Reply, serving
from rigs.waiting import wait_until

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
    assert breaker.admit(30) == "yes"
    assert breaker.failed(59)
    assert breaker.admit(59) == "no"
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
    assert breaker.admit(30) == "yes"
    breaker.succeeded(30)
    assert breaker.state(30) == "closed"
    assert breaker.admit(30) == "yes"
    assert not breaker.failed(31), "what was before is forgotten"


def test_a_bad_probe_opens_it_again() -> None:
    breaker = opened()
    assert breaker.admit(30) == "yes"
    assert breaker.failed(31)
    assert breaker.admit(60.9) == "no"
    assert breaker.admit(61) == "yes"
    assert breaker.admit(61) == "no"


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
    assert breaker.admit(30) == "yes"
    breaker.abandoned()
    assert breaker.admit(30) == "yes"


def test_a_request_that_comes_while_it_is_open_is_the_probe_and_the_next_one_waits_for_it() -> None:
    breaker = opened(0)
    assert breaker.admit(5, came=-1) == "no", "it was there when it opened"
    assert breaker.admit(0.5, came=0.5) == "wait", "a moment after a failure"
    assert breaker.admit(5, came=5) == "yes"
    assert breaker.admit(5, came=5) == "wait"
    assert breaker.admit(31, came=-1) == "no", "one probe at a time, also when it is half open"
    assert breaker.failed(6)
    assert breaker.admit(7.5, came=5) == "no", "it has waited for the outcome, and this is it"
    assert breaker.admit(7.5, came=7.5) == "yes"
    breaker.succeeded(8)
    assert breaker.admit(8, came=7.6) == "yes"


def test_the_faults_of_one_address_count_only_while_nothing_else_works() -> None:
    breaker = Breaker()
    breaker.succeeded(0)
    assert not any(breaker.failed(moment, answered=True) for moment in (1, 2, 3, 59))
    assert not breaker.failed(61, answered=True)
    assert not breaker.failed(62, answered=True)
    assert breaker.failed(63, answered=True)


def test_only_what_can_still_count_is_remembered_of_hosts() -> None:
    clock = Clock()
    breakers = Breakers(clock)
    for number in range(1_000):
        breakers.succeeded(f"https://host{number}")
        clock.now += 1
    assert len(breakers._by_origin) <= MOST_KEPT


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
    rig = make_rig(replace(QUICK, tries_without_progress=2))
    content = content_of()
    with unused_port() as port:
        file = rig.info(f"http://127.0.0.1:{port}", content)
        for number in range(3):
            assert "source.breaker_opened" not in rig.kinds()
            with pytest.raises(SourceUnavailable, match="refuses connections"):
                rig.fetch(replace(file, locator=f"{file.locator}{number}"))
        assert "source.breaker_opened" in rig.kinds()
        described = rig.described(file)
        for _ in range(3):
            rig.transfer.breakers.failed(file.origin)
        with pytest.raises(SourceUnavailable, match="refuses connections"):
            rig.transfer.fetch_file(described, file, on_event=rig.events.append)
    assert "transfer.waiting" in rig.kinds(), "the only source there is, so it is waited for"
    rig = make_rig(root="other")
    with Chaos(content, Fault("drop", 0.1, times=5)) as chaos:
        rig.commit(rig.fetch(rig.info(chaos.url, content)))
        assert rig.transfer.breakers.allow(chaos.url)


def test_a_server_that_comes_back_within_the_patience_of_a_download_costs_nothing(make_rig: MakeRig) -> None:
    rig = make_rig()
    content = content_of()
    with Chaos(content, Fault("status", 0.5, times=8, status=503)) as chaos:
        rig.commit(rig.fetch(rig.info(chaos.url, content)))


class Ahead:
    """The real time, which can be set forward."""

    def __init__(self) -> None:
        self.by = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.by


class Host:
    """Answers with `status`, or with a file when that is 200, and counts what it is asked."""

    def __init__(self, rig: Rig) -> None:
        self.status, self.headers = 500, dict[str, str]()
        self.clock = Ahead()
        self.transfer = Transfer(rig.layout, rig.space, clock=self.clock, tuning=QUICK_ASKING)
        self._client = rig.client
        self.hold = threading.Event()
        self.hold.set()

    def route(self, asked: Asked) -> Reply:
        self.hold.wait(10)
        if self.status == 200 or asked.path == "/good.gguf":
            return Reply(200, {"Accept-Ranges": "bytes"}, b"GGUF1")
        return Reply(self.status, self.headers)

    def ask(self, url: str, path: str = "/m.gguf") -> None:
        reference = parse(f"{url}{path}")
        assert isinstance(reference, WebReference)
        self.transfer.router.describe(Route(reference, [WebSource(self._client, {})]))


QUICK_ASKING = replace(QUICK, breaker_seconds=30)


def test_a_request_counts_once_with_all_its_retries(make_rig: MakeRig) -> None:
    host = Host(make_rig())
    with serving(host.route) as server:
        for number in range(1, 4):
            assert host.transfer.breakers.is_closed(server.url)
            with pytest.raises(SourceUnavailable, match="500"):
                host.ask(server.url)
            assert len(server.asked) == 3 * number
        assert not host.transfer.breakers.is_closed(server.url)


@pytest.mark.parametrize("status", [404, 403, 408, 416, 429])
def test_a_host_that_refuses_a_request_works(make_rig: MakeRig, status: int) -> None:
    host = Host(make_rig())
    host.status, host.headers = status, {"Retry-After": "0"}
    with serving(host.route) as server:
        for _ in range(6):
            with pytest.raises(WireError):
                host.ask(server.url)
        assert host.transfer.breakers.is_closed(server.url)
        for _ in range(3):
            host.transfer.breakers.failed(server.url)
        host.clock.by += 30
        with pytest.raises(WireError):
            host.ask(server.url)
        assert host.transfer.breakers.is_closed(server.url), "as the answer to a probe, too"


def test_a_bad_address_does_not_shut_the_good_ones_of_its_host(make_rig: MakeRig) -> None:
    host = Host(make_rig())
    with serving(host.route) as server:
        host.ask(server.url, "/good.gguf")
        for _ in range(6):
            with pytest.raises(SourceUnavailable, match="500"):
                host.ask(server.url)
        assert host.transfer.breakers.is_closed(server.url)


def test_a_new_request_is_not_refused_for_the_failures_of_others(make_rig: MakeRig) -> None:
    host = Host(make_rig())
    with serving(host.route) as server:
        for _ in range(3):
            host.transfer.breakers.failed(server.url)
        host.clock.by += 1
        asked = len(server.asked)
        with pytest.raises(SourceUnavailable, match="500"):
            host.ask(server.url)
        assert len(server.asked) == asked + 1, "a probe is one request"
        host.clock.by += 1
        host.status = 200
        host.ask(server.url)
        assert host.transfer.breakers.is_closed(server.url)


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("state", ["open", "half-open"])
def test_fifty_new_requests_send_a_host_one_until_it_has_answered(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch, state: str, status: int
) -> None:
    """Counted at the host, which takes its time to answer the one; then it is open to all, or shut to all."""
    host = Host(make_rig())
    with serving(host.route) as server:
        for _ in range(3):
            host.transfer.breakers.failed(server.url)
        host.clock.by += 1 if state == "open" else 30
        host.hold.clear()
        host.status = status
        refused, found, came, admit = list[str](), list[bool](), set[int](), host.transfer.breakers.admit

        def admitted(origin: str | None, since: float | None = None) -> Admission:
            came.add(threading.get_ident())
            return admit(origin, since)

        monkeypatch.setattr(host.transfer.breakers, "admit", admitted)

        def ask() -> None:
            try:
                host.ask(server.url)
                found.append(True)
            except SourceUnavailable as fault:
                refused.append(fault.message)

        askers = [threading.Thread(target=ask) for _ in range(50)]
        for asker in askers:
            asker.start()
        wait_until(lambda: server.asked and len(came) == 50, what="the probe, and the others that wait for it")
        assert (found, refused) == ([], [])
        host.hold.set()
        for asker in askers:
            asker.join(20)
        if status == 200:
            assert (len(found), len(refused)) == (50, 0)
        else:
            assert (len(found), len(refused), len(server.asked)) == (0, 50, 1)
            assert sum("left alone" in message for message in refused) == 49


def test_a_probe_that_is_cancelled_leaves_its_turn(make_rig: MakeRig) -> None:
    host = Host(make_rig())
    with serving(host.route) as server:
        for _ in range(3):
            host.transfer.breakers.failed(server.url)
        host.clock.by += 1
        reference = parse(f"{server.url}/m.gguf")
        assert isinstance(reference, WebReference)
        route = Route(reference, [WebSource(make_rig().client, {})])
        with pytest.raises(Stopped):
            host.transfer.router.describe(route, stopped=lambda: True)
        host.status = 200
        host.ask(server.url)
