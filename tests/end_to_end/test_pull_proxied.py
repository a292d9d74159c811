"""The daemon's environment: proxies, a certificate authority, and which hosts may be asked in the clear."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from rigs.pull_rig import MIB, failed, gguf, hex_of, pulled
from rigs.real_daemon import RealDaemon
from rigs.real_nginx import Nginx, nginx, nginx_path
from rigs.registries import packed
from rigs.scripted_server import Server, file_reply
from rigs.tunnel_proxy import Tunnels

needs_nginx = pytest.mark.skipif(
    nginx_path() is None or shutil.which("openssl") is None, reason="nginx and openssl are not installed"
)
CONTENT = gguf(9 * MIB + 3, 71)
HOST = "files.test:443"
"""Of the certificate of the tests' nginx; nowhere to be found but through the proxy."""


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Nginx]:
    with nginx(tmp_path / "nginx") as made:
        (made.files / "m.gguf").write_bytes(CONTENT)
        yield made


def place_of(web: Nginx) -> tuple[str, int]:
    return "127.0.0.1", int(web.tls.rpartition(":")[2])


@needs_nginx
def test_through_a_tunnel_of_the_proxy_with_the_authority_of_the_environment(stopped: RealDaemon, web: Nginx) -> None:
    with Tunnels({HOST: place_of(web)}, "Basic " + packed("me", "proxy-secret")) as proxy:
        stopped.environ["https_proxy"] = f"http://me:proxy-secret@127.0.0.1:{proxy.port}"
        stopped.environ["SSL_CERT_FILE"] = web.certificate
        stopped.start()
        value = pulled(stopped, "https://files.test/m.gguf")
        assert value["blob"] == f"sha256:{hex_of(CONTENT)}"
        assert {asked.rpartition(" ")[0] for asked in proxy.asked} == {f"CONNECT {HOST}"}
        assert proxy.carried > len(CONTENT)
        refused = failed(stopped, "https://elsewhere.test/m.gguf", "source_unavailable")
        assert f"the proxy 127.0.0.1:{proxy.port} makes no connection to https://elsewhere.test" in refused["message"]
    assert "proxy-secret" not in stopped.log() + repr(stopped.activity()) + repr(refused)


@needs_nginx
def test_a_proxy_that_does_not_know_who_asks_is_said(stopped: RealDaemon, web: Nginx) -> None:
    with Tunnels({HOST: place_of(web)}, "Basic " + packed("me", "proxy-secret")) as proxy:
        stopped.environ["https_proxy"] = f"http://127.0.0.1:{proxy.port}"
        refused = failed(stopped.start(), "https://files.test/m.gguf", "source_unavailable")
        assert "407" in refused["message"]
        assert "https_proxy" in refused["hint"]


@needs_nginx
def test_no_proxy_names_hosts_that_are_reached_directly(stopped: RealDaemon, web: Nginx) -> None:
    with Tunnels({}) as proxy:
        stopped.environ |= {"https_proxy": f"http://127.0.0.1:{proxy.port}", "no_proxy": ".test"}
        refused = failed(stopped.start(), "https://files.test/m.gguf", "source_unavailable")
        assert "the host of https://files.test is not known" in refused["message"]
        assert proxy.asked == []


@needs_nginx
def test_the_authority_of_the_environment_is_trusted(stopped: RealDaemon, web: Nginx) -> None:
    stopped.environ["SSL_CERT_FILE"] = web.certificate
    assert pulled(stopped.start(), f"{web.tls}/m.gguf")["blob"] == f"sha256:{hex_of(CONTENT)}"


def test_in_the_clear_only_this_machine_and_hosts_of_the_configuration(stopped: RealDaemon) -> None:
    with Server(lambda asked: file_reply(asked, CONTENT)) as proxy:
        stopped.environ["http_proxy"] = proxy.url
        refused = failed(stopped.start(), "http://files.test/m.gguf", "invalid_request")
        assert "http://files.test is not encrypted" in refused["message"]
        assert proxy.asked == []
        stopped.kill()
        stopped.configure('[transfer]\nplain_hosts = ["files.test"]\n')
        stopped.start()
        assert pulled(stopped, "http://files.test/m.gguf")["blob"] == f"sha256:{hex_of(CONTENT)}"
        failed(stopped, "http://other.test/m.gguf", "invalid_request")
        assert {asked.target for asked in proxy.asked} == {"http://files.test/m.gguf"}
