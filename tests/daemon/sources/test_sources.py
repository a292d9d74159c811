"""Which source a reference is for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modeld.download.http.client import HttpClient
from modeld.sources.kind import For, NetworkKind
from modeld.sources.kinds import KINDS
from modeld.sources.parse import parse
from modeld.sources.sources import Sources
from modelwire.errors import InvalidRequest, SourceNotFound, SourceUnauthorized
from rigs.described_bytes import OWN_USER, read_all
from rigs.scripted_server import Reply, file_reply, serving

ENVIRON = {"HOME": "/nonexistent", "HF_ENDPOINT": "https://hub.example/base/"}


@pytest.mark.parametrize(
    ("text", "name", "origin"),
    [
        ("https://h.example:8443/m.gguf", "https", "https://h.example:8443"),
        ("hf:org/repo", "hf https://hub.example", "https://hub.example"),
        ("ollama:m", "ollama", "https://registry.ollama.ai"),
        ("ollama:localhost:5000/a/m", "ollama", "http://localhost:5000"),
        ("oci://ghcr.io/a/m", "oci", "https://ghcr.io"),
        ("oci://docker.io/m", "oci", "https://registry-1.docker.io"),
        ("oci://intern:5000/m", "oci", "http://intern:5000"),
        ("s3://bucket/m", "s3", "https://s3.us-east-1.amazonaws.com"),
    ],
)
def test_each_reference_has_its_source_and_origin(text: str, name: str, origin: str | None) -> None:
    reference = parse(text)
    sources = Sources(HttpClient(environ={}, plain_hosts=("intern",)), ENVIRON, plain_hosts=("intern",))
    source = sources.source(reference, OWN_USER)
    assert (source.name, source.origin(reference)) == (name, origin)


def test_a_mirror_is_one_source_for_all_that_ask() -> None:
    sources = Sources(HttpClient(environ={}), ENVIRON)
    for text, name in [("hf:a/b", "hf"), ("ollama:x", "ollama"), ("oci://ghcr.io/x", "oci")]:
        mirror = sources.mirror(parse(text), "", "https://mirror.example", OWN_USER)
        assert mirror is sources.mirror(parse(text), "", "https://mirror.example", OWN_USER)
        assert mirror.name == f"{name} https://mirror.example"
        assert mirror.origin(parse(text)) == "https://mirror.example"


@pytest.mark.parametrize("text", ["/m.gguf", "name"])
def test_what_has_no_mirror_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="has no mirrors"):
        Sources(HttpClient(environ={}), ENVIRON).mirror(parse(text), "", "https://mirror.example", OWN_USER)


SECRET = "s3cr3t-of-the-origin"


@pytest.mark.parametrize(
    ("text", "match", "asked"),
    [
        ("https://me:{0}@models.example/a/m.gguf?v=1&sig={0}", "https://models.example/", "/mirror/a/m.gguf?v=1"),
        ("https://models.example/a/m.gguf", "https://", "/mirror/models.example/a/m.gguf"),
        ("s3://AKIA:{0}@bucket/a/m.gguf", "s3://bucket/", "/mirror/bucket/a/m.gguf"),
        ("s3://bucket/a/m.gguf", "s3:", "/mirror/bucket/a/m.gguf"),
    ],
)
def test_a_mirror_is_asked_for_the_same_without_credentials(text: str, match: str, asked: str, tmp_path: Path) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": SECRET}
    (tmp_path / ".netrc").write_text(f"machine 127.0.0.1 login me password {SECRET}\n")
    reference, http = parse(text.format(SECRET)), HttpClient(environ={})
    with serving(lambda request: file_reply(request, b"GGUF1")) as server:
        url = f"{server.url}/mirror/"
        mirror = Sources(http, {"HOME": str(tmp_path), **keys}).mirror(reference, match, url, OWN_USER)
        assert mirror.origin(reference) == server.url
        (file,) = mirror.describe(reference).files
        assert (file.path, file.size) == ("m.gguf", 5)
        assert read_all(mirror, file) == b"GGUF1"
        assert {request.target for request in server.asked} == {asked}
        assert server.sent_with("Authorization") == server.sent_with("Amz") == server.sent_with(SECRET) == []
    http.close()


LENT = {
    "https": ("{url}/m.gguf", "Authorization"),
    "hf": ("hf:org/repo", "Authorization"),
    "oci": ("oci://{host}/team/m", "Authorization"),
    "ollama": ("ollama:{host}/team/m", "Authorization"),
    "s3": ("s3://bucket/m.gguf", "X-Amz-Signature"),
}


def test_every_kind_with_a_source_is_asked_below() -> None:
    assert set(LENT) == {kind.name for kind in KINDS if isinstance(kind, NetworkKind)}


@pytest.mark.parametrize("kind", LENT)
@pytest.mark.parametrize("lends", [True, False])
def test_the_daemons_credentials_are_used_only_when_they_are_lent(kind: str, lends: bool, tmp_path: Path) -> None:
    text, sign = LENT[kind]
    with serving(lambda _: Reply(401, {"WWW-Authenticate": 'Basic realm="models"'})) as server:
        host = server.url[7:]
        (tmp_path / ".netrc").write_text(f"machine {host} login me password {SECRET}\n")
        (tmp_path / ".docker").mkdir()
        login = {"auths": {host: {"username": "me", "password": SECRET}}}
        (tmp_path / ".docker" / "config.json").write_text(json.dumps(login))
        keys = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_ENDPOINT_URL": server.url}
        environ = {"HOME": str(tmp_path), "HF_ENDPOINT": server.url, "HF_TOKEN": SECRET, **keys}
        http, reference = HttpClient(environ={}), parse(text.format(url=server.url, host=host))
        with pytest.raises((SourceUnauthorized, SourceNotFound)):
            Sources(http, environ).source(reference, For(lends=lends, anywhere=True)).describe(reference)
        assert server.asked
        assert bool(server.sent_with(sign)) == lends
        http.close()


@pytest.mark.parametrize("text", ["/m.gguf", "llama:8b"])
def test_what_is_on_this_machine_has_no_source(text: str) -> None:
    with pytest.raises(InvalidRequest, match="is on this machine and has no source"):
        Sources(HttpClient(environ={}), ENVIRON).source(parse(text), OWN_USER)
