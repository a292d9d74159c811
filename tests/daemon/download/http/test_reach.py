"""Which addresses pulls of other users may go to."""

from __future__ import annotations

import socket
from ipaddress import ip_network
from typing import Any

import pytest

from modeld.download.http.client import HttpClient
from modeld.download.http.reach import Reach
from modelwire.errors import PermissionDenied, SourceUnavailable, WireError
from rigs.scripted_server import Asked, Reply, file_reply, serving


def own_address() -> str:
    """An address of this machine that is not loopback; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return str(probe.getsockname()[0])


REFUSED = {
    "127.0.0.1": "this machine",
    "127.255.0.3": "this machine",
    "::1": "this machine",
    "0.0.0.0": "this machine",
    "::": "this machine",
    "::ffff:127.0.0.1": "this machine",
    "64:ff9b::7f00:1": "this machine",
    "2002:7f00:1::": "this machine",
    "169.254.169.254": "link",
    "::ffff:169.254.169.254": "link",
    "fe80::1": "link",
    "fe80::1%eth0": "link",
    "fd00:ec2::254": "cloud",
    "fd20:ce::254": "cloud",
    "100.100.100.200": "cloud",
    "::ffff:100.100.100.200": "cloud",
    "168.63.129.16": "cloud",
    "224.0.0.1": "no address of a single host",
    "255.255.255.255": "no address of a single host",
    "ff02::1": "no address of a single host",
}


@pytest.mark.parametrize("address", REFUSED)
def test_this_machine_and_its_links_are_refused(address: str) -> None:
    assert REFUSED[address] in str(Reach().refusal(address))


@pytest.mark.parametrize(
    ("host", "words"), [("127.0.0.1", "127.0.0.1 is this machine: "), ("a.example", "a.example is at 127.0.0.1, this ")]
)
def test_the_refusal_says_where_a_host_is_once(host: str, words: str) -> None:
    found = socket.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
    with pytest.raises(PermissionDenied) as refused:
        Reach().allowed(host, found)
    assert refused.value.message.startswith(words)


def test_every_address_of_this_machine_is_refused() -> None:
    assert Reach().refusal(own_address()) == "this machine"


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "10.1.2.3", "192.168.77.1", "2606:2800:220:1::1", "fd00::1", "100.100.100.201"]
)
def test_other_hosts_are_allowed(address: str) -> None:
    assert Reach().refusal(address) is None


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("11.1.2.3", False),
        ("127.0.0.1", True),
        ("169.254.169.254", False),
        ("fd00::1", True),
        ("::1", False),
    ],
)
def test_networks_decide_alone(address: str, allowed: bool) -> None:
    reach = Reach([ip_network("10.0.0.0/8"), ip_network("127.0.0.0/8"), ip_network("fd00::/8")])
    assert (reach.refusal(address) is None) == allowed


@pytest.fixture
def client() -> Any:
    made = HttpClient(environ={}, reach=Reach())
    yield made
    made.close()


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "[::1]"])
def test_the_client_connects_to_no_service_of_this_machine(client: HttpClient, name: str) -> None:
    with serving(lambda asked: file_reply(asked, b"secret")) as server:
        with pytest.raises(PermissionDenied) as caught:
            client.request("GET", f"http://{name}:{server.port}/x")
        assert "its own user only" in caught.value.message
        assert "[access]" in str(caught.value.hint)
        assert not caught.value.retryable
        assert server.asked == []


def names(monkeypatch: pytest.MonkeyPatch, answers: dict[str, list[list[str]]]) -> dict[str, int]:
    """Host names that answer with these addresses, in turn: the last answer stays."""
    real, asked = socket.getaddrinfo, dict.fromkeys(answers, 0)

    def look_up(host: str, port: Any, *arguments: Any, **more: Any) -> Any:
        if host not in answers:
            return real(host, port, *arguments, **more)
        turn = answers[host][min(asked[host], len(answers[host]) - 1)]
        asked[host] += 1
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in turn]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


def test_the_address_that_was_judged_is_the_one_that_is_connected_to(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second answer would be this machine: a name server that changes its mind."""
    asked = names(monkeypatch, {"rebinds.example": [["192.0.2.77"], ["127.0.0.1"]]})
    tried: list[Any] = []

    def connect(_sock: socket.socket, place: Any) -> None:
        tried.append(place)
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises(SourceUnavailable):
        client.request("GET", "https://rebinds.example/x")
    assert (asked, tried) == ({"rebinds.example": 1}, [("192.0.2.77", 443)])


def test_of_several_addresses_only_those_that_are_allowed_are_tried(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    names(monkeypatch, {"both.example": [["127.0.0.1", "192.0.2.77"]]})
    tried: list[Any] = []

    def connect(_sock: socket.socket, place: Any) -> None:
        tried.append(place)
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises(SourceUnavailable):
        client.request("GET", "https://both.example/x")
    assert tried == [("192.0.2.77", 443)]


def test_a_redirect_leads_to_no_service_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first server stands for one that is elsewhere: its network is allowed."""
    with serving(lambda asked: file_reply(asked, b"secret"), host="127.0.0.2") as inner:

        def away(_: Asked) -> Reply:
            return Reply(302, {"Location": f"{inner.url}/x"})

        with serving(away) as outer:
            client = HttpClient(environ={}, reach=Reach([ip_network("127.0.0.1/32")]))
            with pytest.raises(PermissionDenied):
                client.request("GET", f"{outer.url}/m.gguf")
            client.close()
        assert inner.asked == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "a.localhost", "169.254.169.254", "[::1]"])
def test_a_proxy_is_asked_for_no_service_of_its_own_machine(host: str) -> None:
    with serving(lambda asked: file_reply(asked, b"secret")) as proxy:
        environ = {"http_proxy": proxy.url, "https_proxy": proxy.url}
        client = HttpClient(environ=environ, reach=Reach(), plain_hosts=["a.localhost", "169.254.169.254"])
        with pytest.raises(WireError) as caught:
            client.request("GET", f"http://{host}:1/latest/meta-data")
        assert isinstance(caught.value, PermissionDenied), caught.value
        assert proxy.asked == []
        client.close()


@pytest.mark.parametrize(
    "host",
    ["127.1", "127.0.0.1.", "2130706433", "0x7f.1", "0177.0.0.1", "0", "2852039166", "\uff11\uff12\uff17.0\u30020.1"],
)
def test_no_spelling_of_an_address_passes_a_proxy(host: str) -> None:
    """The proxy would read it as `inet_aton` does."""
    client = HttpClient(environ={"https_proxy": "http://127.0.0.1:9"}, reach=Reach())
    with pytest.raises(PermissionDenied):
        client.request("GET", f"https://{host}/latest/meta-data")
    client.close()


def test_a_proxy_of_the_operator_is_asked_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda asked: file_reply(asked, b"public")) as proxy:
        environ = {"http_proxy": proxy.url}
        client = HttpClient(environ=environ, reach=Reach(), plain_hosts=["models.example"])
        assert client.request("GET", "http://models.example/m").body == b"public"
        client.close()
