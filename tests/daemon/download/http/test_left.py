"""A request that is left at any moment ends at once: what it has connected to is aborted."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from modeld.download.cancel_scope import CancelScope
from modeld.download.http.client import HttpClient
from modeld.download.http.connecting import MOST_LOOK_UPS
from modeld.download.source import FileInfo
from modeld.download.tuning import Tuning
from modeld.progress import Stopped
from modelwire.errors import SourceNotFound, SourceUnavailable, TimedOut
from rigs.hostile_server import SLOW, Hostile
from rigs.scripted_server import Reply, serving
from rigs.waiting import wait_until

PATIENT = 20


@pytest.fixture
def client() -> Iterator[HttpClient]:
    """With the timeouts of the daemon: half a minute and more."""
    client = HttpClient(environ={}, plain_hosts=["slow.test", "late.test", *(f"{n}.test" for n in range(99))])
    yield client
    client.close()


def outcome_of(work: Callable[[], object], until: Callable[[], object]) -> object:
    """What comes of the work when it is left as soon as `until()` is true."""
    scope, outcome = CancelScope(), list[object]()

    def run() -> None:
        try:
            with scope:
                outcome.append(work())
        except BaseException as fault:
            outcome.append(type(fault))

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(until, PATIENT, "the moment to leave")
    scope.cancel()
    thread.join(PATIENT)
    assert not thread.is_alive(), "it goes on"
    return outcome[0]


@pytest.mark.parametrize("how", SLOW)
def test_a_document_is_left(client: HttpClient, how: str) -> None:
    with Hostile(lambda _: SLOW[how](server.pause)) as server:
        work = lambda: client.request("GET", f"{server.url}/x")  # noqa: E731
        outcome = outcome_of(work, lambda: server.asked)
        assert outcome is Stopped or how in ("trailers slowly", "an error slowly"), "these say enough"
        wait_until(lambda: server.connections == 0 or how == "silence", PATIENT, "the end of its connections")


def test_the_head_of_a_file_is_left(client: HttpClient) -> None:
    file = FileInfo(path="m", locator="", size=5)
    with Hostile(lambda _: SLOW["a head byte by byte"](server.pause)) as server:
        work = lambda: client.open_range(f"{server.url}/x", file, 0, None, None)  # noqa: E731
        assert outcome_of(work, lambda: server.asked) is Stopped


def test_a_handshake_is_left(client: HttpClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepted: list[socket.socket] = []
        accepting = threading.Thread(target=lambda: accepted.append(listener.accept()[0]))
        accepting.start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/x"
        assert outcome_of(lambda: client.request("GET", url), lambda: accepted) is Stopped
        accepting.join(PATIENT)
        accepted[0].close()


def test_a_host_that_does_not_answer_is_left(client: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its queue is full, so that it drops what comes; the kernel would try for two minutes."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, contextlib.ExitStack() as filling:
        for _ in range(3):
            one = filling.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        begun = threading.Event()
        register = CancelScope.register

        def registered(scope: CancelScope, *arguments: Any) -> None:
            register(scope, *arguments)
            begun.set()

        monkeypatch.setattr(CancelScope, "register", registered)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/x"
        assert outcome_of(lambda: client.request("GET", url), begun.is_set) is Stopped


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A resolver that answers for no name of `.test` before the test ends. The names that it was asked for."""
    asked, may_answer, real = list[str](), threading.Event(), socket.getaddrinfo

    def look_up(host: str, *arguments: Any, **more: Any) -> Any:
        if not host.endswith(".test"):
            return real(host, *arguments, **more)
        asked.append(host)
        may_answer.wait(PATIENT)
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    yield asked
    may_answer.set()
    wait_until(lambda: not [t for t in threading.enumerate() if t.name.startswith("look up")], PATIENT, "its threads")


def test_a_look_up_is_left_and_its_thread_is_shared(client: HttpClient, resolver: list[str]) -> None:
    for _ in range(3):
        assert outcome_of(lambda: client.request("GET", "http://slow.test/x"), lambda: resolver) is Stopped
    assert resolver == ["slow.test"]


def test_look_ups_that_hang_are_bounded(client: HttpClient, resolver: list[str]) -> None:
    for number in range(MOST_LOOK_UPS):
        known = len(resolver)
        work = lambda: client.request("GET", f"http://{number}.test/x")  # noqa: B023, E731 - left in this round
        assert outcome_of(work, lambda: len(resolver) > known) is Stopped  # noqa: B023
    with pytest.raises(SourceUnavailable, match="look-ups of other names have no answer"):
        client.request("GET", "http://late.test/x")
    assert len(resolver) == MOST_LOOK_UPS


def test_what_was_given_back_is_another_threads(client: HttpClient) -> None:
    """The connection of a request that has ended may be in use elsewhere by the time its scope is cancelled."""
    with serving(lambda asked: Reply(body=b"hello")) as server, CancelScope() as scope:
        assert client.request("GET", f"{server.url}/x").body == b"hello"
        scope.cancel()
        with pytest.raises(Stopped):
            client.request("GET", f"{server.url}/x")
    with serving(lambda asked: Reply(body=b"hello")) as server:
        with CancelScope() as scope:
            client.request("GET", f"{server.url}/x")
            (idle,) = client._pool._idle[server.url]
            scope.cancel()
        used, again = client._pool.take(client.parse(server.url))
        assert (used, again) == (idle[0], True)
        used.close()


@pytest.mark.parametrize("how", [how for how in SLOW if how not in ("silence", "an error slowly")])
def test_a_document_has_a_total_time(how: str) -> None:
    client = HttpClient(environ={}, tuning=Tuning(document_seconds=0.2))
    with Hostile(lambda _: SLOW[how](server.pause)) as server, pytest.raises(TimedOut) as caught:
        client.request("GET", f"{server.url}/x")
    assert "within 0.2 s, the time that it has" in caught.value.message
    client.close()


def test_an_error_is_reported_before_its_text_has_come(client: HttpClient) -> None:
    with Hostile(lambda _: SLOW["an error slowly"](server.pause)) as server, pytest.raises(SourceNotFound):
        client.request("GET", f"{server.url}/x")
