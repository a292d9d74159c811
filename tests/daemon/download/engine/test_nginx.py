"""Against the server that most files come from."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace

import pytest

from daemon.conftest import MakeRig
from modeld.download.http.client import HttpClient
from modeld.download.source import FileInfo
from modeld.progress import Stopped
from modelwire.errors import SourceUnavailable
from rigs.download_rig import SIZE, Plain, content_of, digest_of, quick
from rigs.real_nginx import Nginx, nginx, nginx_path
from rigs.watcher import Watcher

CONTENT = content_of()
DIGEST = digest_of(CONTENT)

pytestmark = pytest.mark.skipif(
    nginx_path() is None or shutil.which("openssl") is None, reason="nginx and openssl are not installed"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    with nginx(tmp_path_factory.mktemp("nginx"), extra="location /moved { return 302 /model.gguf; }") as running:
        (running.files / "model.gguf").write_bytes(CONTENT)
        (running.files / "empty").write_bytes(b"")
        yield running


def described_by_nginx(client: HttpClient, url: str) -> FileInfo:
    answer = client.request("HEAD", url)
    return FileInfo(
        path="model.gguf",
        locator=url,
        size=int(answer.headers["content-length"]),
        validator=answer.headers["ETag"],
        origin=answer.url.origin,
    )


@pytest.mark.parametrize("connections", [1, 8])
def test_ranges_are_fetched_once_each(make_rig: MakeRig, server: Nginx, connections: int) -> None:
    rig = make_rig(quick(connections))
    before = len(server.requests())
    file = replace(described_by_nginx(rig.client, f"{server.plain}/model.gguf"), digest=DIGEST)
    rig.commit(rig.fetch(file))
    requests = [line.split() for line in server.requests()[before:] if not line.endswith("-")]
    assert {status for status, _, _ in requests} == {"206"}
    assert sum(int(sent) for _, sent, _ in requests) == SIZE
    assert rig.leftovers() == []


def test_an_etag_of_nginx_guards_a_resume(make_rig: MakeRig, server: Nginx) -> None:
    rig = make_rig(quick(1))
    path = server.files / "changing"
    path.write_bytes(CONTENT)
    file = described_by_nginx(rig.client, f"{server.plain}/changing")
    rig.transfer.budget.set_rate(8 << 20)
    with pytest.raises(Stopped):
        rig.fetch(file, watcher=Watcher(stop_after=SIZE // 8))
    rig.transfer.budget.set_rate(None)
    other = content_of(seed=5)
    path.write_bytes(other)
    os.utime(path, (1, 1))
    fetched = rig.fetch(file)
    rig.commit(fetched)
    assert fetched.digest == digest_of(other)
    assert "transfer.restarted" in rig.kinds()


def test_over_tls_with_the_authority_of_the_environment(make_rig: MakeRig, server: Nginx) -> None:
    rig = make_rig()
    with pytest.raises(SourceUnavailable, match="certificate") as caught:
        rig.client.request("HEAD", f"{server.tls}/model.gguf")
    assert not caught.value.retryable
    assert "SSL_CERT_FILE" in (caught.value.hint or "")
    client = HttpClient(environ={"SSL_CERT_FILE": server.certificate})
    try:
        file = replace(described_by_nginx(client, f"{server.tls}/model.gguf"), digest=DIGEST)
        rig.commit(rig.fetch(file, sources=[Plain(client)]))
    finally:
        client.close()
    assert os.path.getsize(rig.layout.blob(DIGEST)) == SIZE


def test_http_spoken_to_a_tls_port_is_said(make_rig: MakeRig, server: Nginx) -> None:
    rig = make_rig()
    with pytest.raises(SourceUnavailable):
        rig.client.request("GET", server.plain.replace("http:", "https:"))


def test_an_empty_file(make_rig: MakeRig, server: Nginx) -> None:
    rig = make_rig()
    file = described_by_nginx(rig.client, f"{server.plain}/empty")
    assert rig.commit(rig.fetch(file))[0].size == 0


def test_a_redirect_is_remembered_between_ranges(make_rig: MakeRig, server: Nginx) -> None:
    rig = make_rig(quick(1))
    before = len(server.requests())
    file = replace(described_by_nginx(rig.client, f"{server.plain}/moved"), digest=DIGEST)
    rig.commit(rig.fetch(file))
    assert [line[:3] for line in server.requests()[before:]].count("302") == 2, "one to describe, one to fetch"


def test_connections_are_used_again(make_rig: MakeRig, server: Nginx) -> None:
    rig = make_rig(quick(1))
    made = 0
    connect = rig.client._pool._connect

    def counting(url):  # type: ignore[no-untyped-def]
        nonlocal made
        made += 1
        return connect(url)

    rig.client._pool._connect = counting  # type: ignore[method-assign]
    file = replace(described_by_nginx(rig.client, f"{server.plain}/model.gguf"), digest=DIGEST)
    rig.commit(rig.fetch(file))
    assert made == 1
