"""The error codes of sources, from servers that fail as real ones do. See `test_error_codes`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rigs.error_codes import assert_speaks, produces
from rigs.real_daemon import RealDaemon
from rigs.scripted_server import Asked, Reply, Server, file_reply

CONTENT = b"GGUF" + b"m" * 5000


def _route(asked: Asked) -> Reply:
    match asked.path:
        case "/locked.gguf":
            return Reply(401, {"WWW-Authenticate": 'Basic realm="models"'})
        case "/forbidden.gguf":
            return Reply(403)
        case "/busy.gguf":
            return Reply(503, {"Retry-After": "600"})
        case "/page.gguf":
            return Reply(200, {"Content-Type": "text/html"}, b"<!doctype html><html>sign in</html>")
        case "/loop.gguf":
            return Reply(302, {"Location": "/loop.gguf"})
        case "/model.gguf":
            return file_reply(asked, CONTENT)
    return Reply(404)


@pytest.fixture
def web() -> Iterator[Server]:
    with Server(_route) as made:
        yield made


@produces("source_unauthorized")
@pytest.mark.parametrize("path", ["locked", "forbidden"])
def test_source_unauthorized(daemon: RealDaemon, web: Server, path: str) -> None:
    reply = daemon.ask("model.pull", ref=f"{web.url}/{path}.gguf")
    assert_speaks(reply, "source_unauthorized", f"{web.url}/{path}.gguf")


@produces("source_not_found")
def test_source_not_found(daemon: RealDaemon, web: Server) -> None:
    assert_speaks(daemon.ask("model.pull", ref=f"{web.url}/none.gguf"), "source_not_found", f"{web.url}/none.gguf")


@produces("source_unavailable")
def test_source_unavailable_while_it_wants_to_be_left_alone(daemon: RealDaemon, web: Server) -> None:
    reply = daemon.ask("model.pull", ref=f"{web.url}/busy.gguf")
    assert_speaks(reply, "source_unavailable", "503")
    assert reply["retry_after_ms"] == 600_000


@produces("source_unavailable")
@pytest.mark.parametrize("path", ["page", "loop"])
def test_source_unavailable_for_what_is_no_model(daemon: RealDaemon, web: Server, path: str) -> None:
    reply = daemon.ask("model.pull", ref=f"{web.url}/{path}.gguf")
    assert_speaks(reply, "source_unavailable", f"{path}.gguf", retryable=False)


@produces("digest_mismatch")
def test_digest_mismatch(daemon: RealDaemon, web: Server) -> None:
    reply = daemon.ask("model.pull", ref=f"{web.url}/model.gguf", sha256="0" * 64)
    assert_speaks(reply, "digest_mismatch", "sha256:" + "0" * 64, "nothing was published")


@produces("offline")
def test_offline(stopped: RealDaemon, web: Server) -> None:
    stopped.environ["MODELD_TRANSFER_OFFLINE"] = "true"
    reply = stopped.start().ask("model.pull", ref=f"{web.url}/model.gguf")
    assert_speaks(reply, "offline", f"{web.url}/model.gguf")
    assert "[transfer]" in reply["hint"]
    assert web.asked == []


@produces("no_space")
def test_no_space_before_the_first_byte(stopped: RealDaemon, web: Server) -> None:
    stopped.environ["MODELD_STORE_MIN_FREE"] = "1000TB"
    reply = stopped.start().ask("model.pull", ref=f"{web.url}/model.gguf")
    assert_speaks(reply, "no_space", f"{len(CONTENT)} bytes are needed")
    assert [asked.method for asked in web.asked] == ["HEAD"]
