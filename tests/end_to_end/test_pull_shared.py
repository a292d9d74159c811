"""One fetch for many: whoever asks for the same bytes shares their transfer, and leaves it without ending it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from rigs.pull_rig import MIB, begun, gguf, hex_of, put, sent
from rigs.real_daemon import RealDaemon
from rigs.real_nginx import Nginx, nginx, nginx_path
from rigs.registries import OllamaDouble, descriptor, modelpack, real_registry
from rigs.waiting import wait_until

needs_nginx = pytest.mark.skipif(nginx_path() is None, reason="nginx is not installed")

CONTENT = gguf(24 * MIB + 5, 21)
SLOW = 12_000_000


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Nginx]:
    with nginx(tmp_path / "nginx") as made:
        yield made


@pytest.fixture(params=[1, 8])
def busy(stopped: RealDaemon, request: pytest.FixtureRequest) -> RealDaemon:
    """Each with so many connections for a file."""
    stopped.environ["MODELD_LIMITS_RUNNING_FETCHES"] = "8"
    stopped.environ["MODELD_TRANSFER_CONNECTIONS_PER_FILE"] = str(request.param)
    return stopped.start()


def assert_sent_once(web: Nginx) -> None:
    wait_until(lambda: sent(web) >= len(CONTENT), what="the server's log")
    assert sent(web) == len(CONTENT)


@needs_nginx
@pytest.mark.parametrize("told", [True, False], ids=["digest told", "digest unknown"])
def test_sixteen_clients_four_names_one_fetch(busy: RealDaemon, web: Nginx, told: bool) -> None:
    address = put(web, "one.gguf", CONTENT)
    digest = {"sha256": hex_of(CONTENT)} if told else {}
    with ExitStack() as stack:
        wires = [stack.enter_context(busy.connect()) for _ in range(16)]
        numbers = [
            wire.request("model.pull", ref=address, name=f"m{index % 4}", max_rate=SLOW, **digest)
            for index, wire in enumerate(wires)
        ]
        replies = [wire.terminal(number) for wire, number in zip(wires, numbers, strict=True)]
    assert {reply["type"] for reply in replies} == {"result"}, replies
    assert {reply["value"]["name"] for reply in replies} == {"m0", "m1", "m2", "m3"}
    assert len({reply["value"]["path"] for reply in replies}) == 1
    assert_sent_once(web)


@needs_nginx
@pytest.mark.parametrize("leaves", ["the first", "the second"])
def test_one_who_leaves_does_not_end_it_for_the_other(busy: RealDaemon, web: Nginx, leaves: str) -> None:
    address = put(web, "one.gguf", CONTENT)
    with busy.connect() as one, busy.connect() as two:
        first = one.request("model.pull", ref=address, name="a", max_rate=SLOW)
        begun(one, first, MIB)
        second = two.request("model.pull", ref=address, name="b", max_rate=SLOW)
        begun(two, second, 2 * MIB)
        gone, stays = ((one, first), (two, second)) if leaves == "the first" else ((two, second), (one, first))
        gone[0].request("cancel", target=gone[1], id="c")
        assert gone[0].terminal(gone[1])["code"] == "cancelled"
        reply = stays[0].terminal(stays[1])
    assert reply["type"] == "result", reply
    assert [model["name"] for model in busy.ask("model.list")["value"]["models"]] == [reply["value"]["name"]]
    assert_sent_once(web)


def test_a_model_of_a_real_registry(daemon: RealDaemon, tmp_path: Path) -> None:
    weights, card = gguf(3 * MIB, 31), b"# a model"
    config = b'{"descriptor":{},"config":{},"modelfs":{"type":"layers","diffIds":[]}}'
    layers = [
        descriptor("application/vnd.cncf.model.weight.v1.raw", weights, "model.gguf"),
        descriptor("application/vnd.cncf.model.doc.v1.raw", card, "README.md"),
    ]
    with real_registry(tmp_path) as registry:
        digest = registry.push("team/model", "v1", modelpack(layers, config), config, weights, card)
        reply = daemon.ask("model.pull", ref=f"oci://{registry.host}/team/model:v1")
        assert reply["type"] == "result", reply
        value = reply["value"]
        again = daemon.ask("model.pull", ref=f"oci://{registry.host}/team/model:v1")["value"]
    assert value["revision"] == digest
    assert f"sha256:{hex_of(weights)}" in {value["blob"], *(file["blob"] for file in value["files"])}
    assert again["current"] is True


def test_a_mirror_that_matches_is_asked_first_and_the_origin_when_it_fails(stopped: RealDaemon) -> None:
    weights = gguf(2 * MIB, 41)
    config = b"{}"
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    told = {
        "schemaVersion": 2,
        "mediaType": kind,
        "config": descriptor("application/vnd.docker.container.image.v1+json", config),
        "layers": [descriptor("application/vnd.ollama.image.model", weights)],
    }
    with OllamaDouble() as mirror, OllamaDouble() as origin:
        for place in (mirror, origin):
            place.blob(config)
            place.put("library/tiny", "latest", told)
        mirror.blob(weights)
        stopped.configure(f'[[mirror]]\nmatch = "ollama:"\nurl = "http://{mirror.host}"\n')
        stopped.start()
        reply = stopped.ask("model.pull", ref=f"ollama:{origin.host}/library/tiny")
        assert reply["type"] == "result", reply
        assert any(mirror.host in name for name in reply["value"]["served"]), reply["value"]["served"]
        assert origin.server.asked == []
        # Without the bytes the mirror only describes them; they come from the origin.
        other = gguf(2 * MIB, 42)
        told["layers"] = [descriptor("application/vnd.ollama.image.model", other)]
        for place in (mirror, origin):
            place.put("library/tiny", "latest", told)
        origin.blob(other)
        reply = stopped.ask("model.pull", ref=f"ollama:{origin.host}/library/tiny")
        assert reply["type"] == "result", reply
        assert reply["value"]["blob"] == f"sha256:{hex_of(other)}"
        assert [event for event in stopped.activity() if event["event"] == "source.failed"]
