"""What cannot be pulled: one sentence that names the cause, one that says what to do, and nothing left behind."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from rigs.error_codes import assert_speaks
from rigs.hub_server import Hub, Repo
from rigs.pull_rig import MIB, gguf, partials
from rigs.real_daemon import RealDaemon
from rigs.real_nginx import Nginx, nginx, nginx_path
from rigs.scripted_server import Asked, Reply, Server, file_reply
from rigs.tiny_gguf import write_tiny_llama

CONTENT = gguf(MIB, 81)
PAGE = b"<!-- a notice -->\n<!DOCTYPE html><html><title>Sign in</title></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"ab" * 32 + b"\nsize 123456789\n"
BINARY = {"Content-Type": "application/octet-stream"}

ANSWERS = {
    "/locked.gguf": Reply(401, {"WWW-Authenticate": 'Basic realm="models"'}),
    "/forbidden.gguf": Reply(403),
    "/gone.gguf": Reply(410),
    "/loop.gguf": Reply(302, {"Location": "/loop.gguf"}),
    "/round.gguf": Reply(302, {"Location": "/trip.gguf"}),
    "/trip.gguf": Reply(301, {"Location": "/round.gguf"}),
    "/ftp.gguf": Reply(302, {"Location": "ftp://files.example/m.gguf"}),
    "/passwd.gguf": Reply(302, {"Location": "file:///etc/passwd"}),
    "/plain.gguf": Reply(307, {"Location": "http://files.example/m.gguf"}),
    "/lost.gguf": Reply(302, {"Location": "http://[::1/x"}),
    "/dots.gguf": Reply(302, {"Location": "https://files..example/m.gguf"}),
    "/page.gguf": Reply(200, {"Content-Type": "text/html; charset=utf-8"}, PAGE),
    "/hidden-page.gguf": Reply(200, BINARY, PAGE),
    "/pointer.gguf": Reply(200, BINARY, POINTER),
    "/nothing.gguf": Reply(200, BINARY, b""),
    "/gzip.gguf": Reply(200, {**BINARY, "Content-Encoding": "gzip"}, b"\x1f\x8b" + b"z" * 999),
    "/twice.gguf": Reply(200, {**BINARY, "Content-Encoding": "gzip, br"}, b"\x1f\x8b" + b"z" * 999),
}


def _route(asked: Asked) -> Reply:
    if asked.path == "/late-gzip.gguf":
        reply = file_reply(asked, CONTENT)
        return reply if asked.method == "HEAD" else Reply(reply.status, {**reply.headers, "Content-Encoding": "br"})
    if asked.path == "/endless.gguf":
        hop = int(asked.query or 0)
        return Reply(302, {"Location": f"/endless.gguf?{hop + 1}"})
    return ANSWERS.get(asked.path, Reply(404))


@pytest.fixture
def web() -> Iterator[Server]:
    with Server(_route) as made:
        yield made


def assert_nothing_stays(daemon: RealDaemon) -> None:
    assert daemon.ask("model.list")["value"]["models"] == []
    assert list(Path(daemon.root).glob("manifests/*")) == []
    assert list(Path(daemon.root).glob("blobs/sha256/*/*/data")) == []
    assert partials(daemon) == []
    assert list(Path(daemon.root).glob(".modeld/staging/*")) == []


@pytest.mark.parametrize(
    ("path", "code", "says", "hint"),
    [
        ("none", "source_not_found", "404 (Not Found): there is no such file", "Check the name"),
        ("gone", "source_not_found", "410 (Gone)", "Check the name"),
        ("locked", "source_unauthorized", "401 (Unauthorized): it demands credentials", "token or a password"),
        ("forbidden", "source_unauthorized", "403 (Forbidden): it does not give this file", "Accept the model's terms"),
        ("loop", "source_unavailable", "redirects in a circle", "Open the address in a browser"),
        ("round", "source_unavailable", "redirects in a circle", "Open the address in a browser"),
        ("endless", "source_unavailable", "redirects more than 10 times", "Open the address in a browser"),
        ("ftp", "source_unavailable", "redirects to the scheme 'ftp'; that is not followed", "https"),
        ("passwd", "source_unavailable", "redirects to the scheme 'file'; that is not followed", "https"),
        ("plain", "source_unavailable", "redirects somewhere that is not allowed: http://files.example", "https"),
        ("lost", "source_unavailable", "redirects to an address that cannot be read", "https"),
        ("dots", "source_unavailable", "'files..example' is not a host name", "https"),
        ("page", "source_unavailable", "sent a web page instead of page.gguf", "open the address in a browser"),
        ("hidden-page", "source_unavailable", "sent a web page instead of hidden-page.gguf", "in a browser"),
        ("pointer", "source_unavailable", "sent a Git LFS pointer instead of the content of pointer.gguf", "resolve"),
        ("nothing", "source_unavailable", "has no bytes", "Check the address"),
        ("gzip", "source_unavailable", "in the encoding 'gzip', although the request forbids it", "as it is"),
        ("twice", "source_unavailable", "in the encoding 'gzip, br'", "as it is"),
        ("late-gzip", "source_unavailable", "in the encoding 'br'", "as it is"),
    ],
)
def test_an_address_that_gives_no_model(
    daemon: RealDaemon, web: Server, path: str, code: str, says: str, hint: str
) -> None:
    reply = daemon.ask("model.pull", ref=f"{web.url}/{path}.gguf")
    assert_speaks(reply, code, says, f"{path}.gguf", retryable=False)
    assert hint in reply["hint"]
    assert_nothing_stays(daemon)


@pytest.mark.parametrize("keep", [-100, 10])
def test_a_file_that_is_cut_off_at_its_source_is_stored_only_when_told_to(
    daemon: RealDaemon, web: Server, tmp_path: Path, keep: int
) -> None:
    (path,) = write_tiny_llama(tmp_path / "tiny.gguf")
    cut = path.read_bytes()[:keep]
    ANSWERS["/cut.gguf"] = Reply(200, BINARY, cut)
    reply = daemon.ask("model.pull", ref=f"{web.url}/cut.gguf")
    assert_speaks(reply, "corrupt", "cut.gguf is no model: it is cut off", retryable=False)
    assert daemon.ask("model.list")["value"]["models"] == []
    value = daemon.ask("model.pull", ref=f"{web.url}/cut.gguf", force_format=True)["value"]
    assert (value["size_bytes"], value["format"]) == (len(cut), "gguf")
    again = daemon.ask("model.pull", ref=f"{web.url}/cut.gguf")["value"]
    assert again["current"], "the name stands for it"


def test_a_pointer_names_what_it_points_to(daemon: RealDaemon, web: Server) -> None:
    reply = daemon.ask("model.pull", ref=f"{web.url}/pointer.gguf")
    assert "It names sha256:" + "ab" * 32 + " of 123456789 bytes." in reply["message"]


@pytest.mark.parametrize(
    ("ref", "code", "says", "hint"),
    [
        ("hf:org/none", "source_not_found", "has no repository org/none, or it is private", "HF_TOKEN"),
        ("hf:org/repo@v9", "source_not_found", "has no revision v9", "branches and tags"),
        ("hf:org/repo/other.gguf", "source_not_found", "has no other.gguf", "m.gguf"),
        ("hf:org/repo:Q9_X", "source_not_found", "no GGUF file of the quantisation Q9_X", None),
        ("hf:org/gated", "source_unauthorized", "is gated", "Accept the terms"),
        ("hf:org/private", "source_not_found", "or it is private and no token", "HF_TOKEN"),
    ],
)
def test_what_a_hub_does_not_give(stopped: RealDaemon, ref: str, code: str, says: str, hint: str | None) -> None:
    open_to_all = Repo({"m.gguf": CONTENT}, lfs=frozenset({"m.gguf"}))
    gated = Repo({"m.gguf": CONTENT}, lfs=frozenset({"m.gguf"}), gated="manual")
    private = Repo({"m.gguf": CONTENT}, lfs=frozenset({"m.gguf"}), private=True)
    with Hub({"org/repo": open_to_all, "org/gated": gated, "org/private": private}) as hub:
        stopped.environ["HF_ENDPOINT"] = hub.url
        reply = stopped.start().ask("model.pull", ref=ref)
        assert_speaks(reply, code, says, retryable=False)
        assert hint is None or hint in reply["hint"]
        assert_nothing_stays(stopped)


@pytest.mark.parametrize("host", ["models..example", "two words.example", f"{'m' * 64}.example"])
def test_a_host_that_cannot_be(daemon: RealDaemon, host: str) -> None:
    reply = daemon.ask("model.pull", ref=f"https://{host}/m.gguf")
    assert_speaks(reply, "invalid_request", f"{host!r} is not a host name", retryable=False)
    assert_nothing_stays(daemon)


def test_a_host_that_nobody_knows(daemon: RealDaemon) -> None:
    reply = daemon.ask("model.pull", ref="https://models.invalid/m.gguf")
    assert_speaks(reply, "source_unavailable", "the host of https://models.invalid is not known")
    assert "spelling of the host" in reply["hint"]


def test_a_port_where_nobody_listens(daemon: RealDaemon) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        reply = daemon.ask("model.pull", ref=f"{address}/m.gguf")
    assert_speaks(reply, "source_unavailable", f"{address} refuses connections")


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[Nginx]:
    if nginx_path() is None or shutil.which("openssl") is None:
        pytest.skip("nginx and openssl are not installed")
    with nginx(tmp_path / "nginx") as made:
        (made.files / "m.gguf").write_bytes(CONTENT)
        yield made


def test_a_certificate_that_nobody_vouches_for(daemon: RealDaemon, tls: Nginx) -> None:
    reply = daemon.ask("model.pull", ref=f"{tls.tls}/m.gguf")
    assert_speaks(reply, "source_unavailable", f"the certificate of {tls.tls} is not valid here", retryable=False)
    assert "SSL_CERT_FILE" in reply["hint"]
    assert_nothing_stays(daemon)


def test_a_port_that_speaks_no_tls(daemon: RealDaemon, tls: Nginx) -> None:
    address = tls.plain.replace("http:", "https:")
    reply = daemon.ask("model.pull", ref=f"{address}/m.gguf")
    assert_speaks(reply, "source_unavailable", f"no encrypted connection to {address}")
    assert "speaks https at that port" in reply["hint"]


@pytest.mark.parametrize("ref", ["llama3:8b", "model.gguf"])
def test_a_name_alone_is_told_how_to_say_where_it_comes_from(daemon: RealDaemon, ref: str) -> None:
    refused = daemon.ask("model.pull", ref=ref, directory="/srv")
    assert (refused["code"], refused["message"]) == ("not_found", f"there is no model named '{ref}'")
    assert f"ollama:{ref}" in refused["hint"]
    assert f"./{ref}" in refused["hint"]
    assert_speaks(refused, "not_found", ref)


def test_a_name_that_is_nearly_one_is_asked_about(daemon: RealDaemon, room: Path) -> None:
    (room / "tiny").write_bytes(b"tiny")
    assert daemon.ask("model.add", path=str(room / "tiny"), name="llama3:8b")["type"] == "result"
    assert daemon.ask("model.pull", ref="llama3:8c")["hint"] == "Did you mean llama3:8b?"
