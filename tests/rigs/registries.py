"""A real registry on loopback, what pushes to it, the server that gives its tokens, and a double of Ollama's."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs

import pytest

from rigs.scripted_server import Asked, Reply, Server, file_reply, sha256

Access = Literal["anonymous", "basic", "bearer"]

USER, PASSWORD = "reader", "pass:word with spaces"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
OLLAMA_LIST = "application/vnd.ollama.manifest.list.v2+json"


CNCF = "application/vnd.cncf.model."


def with_docker_config(home: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """The environment in which docker's configuration is this one."""
    (home / ".docker").mkdir(parents=True, exist_ok=True)
    (home / ".docker" / "config.json").write_text(json.dumps(config))
    return {"HOME": str(home), "PATH": os.environ["PATH"]}


def packed(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def encoded(manifest: Mapping[str, Any]) -> bytes:
    return json.dumps(manifest).encode()


def descriptor(media_type: str, content: bytes, path: str | None = None, name: str | None = None) -> dict[str, Any]:
    annotations = {"annotations": {"org.cncf.model.filepath": path}} if path else {}
    named = {"name": name} if name else {}
    return {
        "mediaType": media_type,
        "digest": f"sha256:{sha256(content)}",
        "size": len(content),
        **annotations,
        **named,
    }


def modelpack(layers: list[dict[str, Any]], config: bytes, **more: object) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": "application/vnd.cncf.model.manifest.v1+json",
        "config": descriptor("application/vnd.cncf.model.config.v1+json", config),
        "layers": layers,
        **more,
    }


class RealRegistry:
    """docker-registry with a configuration of its own: the packaged one listens on every interface."""

    def __init__(self, port: int, process: subprocess.Popen[bytes], authorization: str | None) -> None:
        self.port = port
        self.host = f"127.0.0.1:{port}"
        self.authorization = authorization
        self._process = process

    def push(self, repo: str, tag: str, manifest: Mapping[str, Any], *blobs: bytes) -> str:
        """By plain HTTP, as any client does it. The digest of the manifest."""
        for blob in blobs:
            started = self._send("POST", f"/v2/{repo}/blobs/uploads/", b"")
            join = "&" if "?" in started["Location"] else "?"
            target = started["Location"] + f"{join}digest=sha256%3A{sha256(blob)}"
            self._send("PUT", target.removeprefix(f"http://{self.host}"), blob, "application/octet-stream")
        content = encoded(manifest)
        self._send("PUT", f"/v2/{repo}/manifests/{tag}", content, str(manifest["mediaType"]))
        return f"sha256:{sha256(content)}"

    def _send(self, method: str, target: str, body: bytes, kind: str = "application/octet-stream") -> Mapping[str, str]:
        headers = {"Content-Type": kind, **({"Authorization": self.authorization} if self.authorization else {})}
        request = urllib.request.Request(f"http://{self.host}{target}", data=body, headers=headers, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=20) as answer:
            return dict(answer.headers)


def need(program: str) -> str:
    found = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin")
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


@contextlib.contextmanager
def real_registry(
    room: Path, access: Access = "anonymous", token_server: TokenServer | None = None
) -> Iterator[RealRegistry]:
    program = need("docker-registry")
    port = free_port()
    auth = ""
    authorization: str | None = None
    if access == "basic":
        (room / "htpasswd").write_text(f"{USER}:{bcrypt_of(PASSWORD)}\n")
        auth = f"auth:\n  htpasswd:\n    realm: tests\n    path: {room / 'htpasswd'}\n"
        authorization = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    elif access == "bearer":
        assert token_server is not None
        auth = (
            "auth:\n  token:\n"
            f"    realm: {token_server.url}/token\n    service: tests\n    issuer: tests\n"
            f"    rootcertbundle: {token_server.certificate}\n"
        )
        authorization = "Bearer " + token_server.issue("repository:*:pull,push", everything=True)
    config = room / "registry.yml"
    config.write_text(
        "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\n"
        f"storage:\n  filesystem:\n    rootdirectory: {room / 'registry'}\n"
        f"http:\n  addr: 127.0.0.1:{port}\n{auth}"
    )
    with open(room / "registry.log", "wb") as log:
        process = subprocess.Popen([program, "serve", str(config)], stdout=log, stderr=log)
    try:
        await_port(port, process)
        yield RealRegistry(port, process, authorization)
    finally:
        process.terminate()
        process.wait(20)


def await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while True:
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert process.poll() is None, "the server ended"
        assert time.monotonic() < deadline, "the server does not listen"
        time.sleep(0.02)


def bcrypt_of(password: str) -> str:
    """The only kind that the registry takes. The C library makes it; Python itself does not."""
    import ctypes

    library = ctypes.CDLL("libcrypt.so.1")
    library.crypt.restype = ctypes.c_char_p
    hashed: bytes | None = library.crypt(password.encode(), b"$2b$04$" + b"abcdefghijklmnopqrstuu")
    assert hashed is not None
    assert hashed.startswith(b"$2b$04$")
    return hashed.decode()


class TokenServer:
    """What a registry sends its readers to: it checks who asks, and signs what they may do."""

    def __init__(self, room: Path, lasts: int = 300) -> None:
        openssl = need("openssl")
        self.key, self.certificate = room / "token.key", room / "token.crt"
        made = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=tests"
        subprocess.run(
            [openssl, *made.split(), "-keyout", str(self.key), "-out", str(self.certificate)],
            check=True,
            capture_output=True,
        )
        self._openssl = openssl
        self.lasts = lasts
        self.public = False
        """Whether anybody may read."""
        self.refresh_tokens: set[str] = set()
        self.server = Server(self._answer)

    @property
    def url(self) -> str:
        return self.server.url

    def __enter__(self) -> TokenServer:
        self.server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.__exit__()

    def issue(self, scope: str, *, everything: bool = False) -> str:
        kind, name, actions = scope.split(":")
        names = ["library/m", "team/model", "team/index", "team/docker"] if everything else [name]
        allowed = actions.split(",") if everything else ["pull"]
        now = int(time.time())
        claims = {
            "iss": "tests",
            "sub": USER,
            "aud": "tests",
            "exp": now + self.lasts,
            "nbf": now - 5,
            "iat": now,
            "jti": str(time.monotonic_ns()),
            "access": [{"type": kind, "name": each, "actions": allowed} for each in names],
        }
        certificate = "".join(line for line in self.certificate.read_text().splitlines() if "-----" not in line)
        header = {"typ": "JWT", "alg": "RS256", "x5c": [certificate]}
        signed = ".".join(_base64url(json.dumps(part).encode()) for part in (header, claims)).encode()
        made = subprocess.run(
            [self._openssl, "dgst", "-sha256", "-sign", str(self.key)], input=signed, capture_output=True, check=True
        )
        return f"{signed.decode()}.{_base64url(made.stdout)}"

    def _answer(self, asked: Asked) -> Reply:
        basic = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if asked.method == "POST":
            form = parse_qs(asked.body.decode())
            if form.get("refresh_token", [""])[0] not in self.refresh_tokens:
                return Reply(401)
            scope = form["scope"][0]
        else:
            if asked.headers.get("Authorization") != basic and not (
                self.public and "Authorization" not in asked.headers
            ):
                return Reply(401, {}, b'{"details":"incorrect username or password"}')
            scope = parse_qs(asked.query).get("scope", [""])[0]
        told = {"access_token" if asked.method == "POST" else "token": self.issue(scope), "expires_in": self.lasts}
        return Reply(200, {"Content-Type": "application/json"}, json.dumps(told).encode())


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


class OllamaDouble:
    """The shape of Ollama's registry: manifests by tag, blobs behind a redirect to another host."""

    def __init__(self) -> None:
        self.manifests: dict[str, bytes] = {}
        """By `repo/tag` or `repo/sha256:…`."""
        self.blobs: dict[str, bytes] = {}
        self.kinds: dict[str, str] = {}
        self.server = Server(self._answer)
        self.cdn = Server(lambda asked: file_reply(asked, self.blobs[asked.path.rpartition("/")[2]]))

    def __enter__(self) -> OllamaDouble:
        self.server.__enter__()
        self.cdn.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.cdn.__exit__()
        self.server.__exit__()

    @property
    def host(self) -> str:
        return self.server.url.partition("://")[2]

    def blob(self, content: bytes) -> bytes:
        self.blobs[f"sha256:{sha256(content)}"] = content
        return content

    def put(self, repo: str, tag: str | None, manifest: Mapping[str, Any]) -> str:
        content = encoded(manifest)
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        for wanted in (tag, digest):
            if wanted is not None:
                self.manifests[f"{repo}/{wanted}"] = content
                self.kinds[f"{repo}/{wanted}"] = str(manifest.get("mediaType"))
        return digest

    def _answer(self, asked: Asked) -> Reply:
        repo, _, rest = asked.path.removeprefix("/v2/").partition("/manifests/")
        if rest:
            content = self.manifests.get(f"{repo}/{rest}")
            kind = self.kinds.get(f"{repo}/{rest}", "")
            if content is None or kind not in asked.headers.get("Accept", ""):
                return Reply(404, {}, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')
            return Reply(200, {"Content-Type": kind}, content)
        digest = asked.path.rpartition("/blobs/")[2]
        if digest not in self.blobs:
            return Reply(404, {}, b'{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown"}]}')
        return Reply(307, {"Location": f"{self.cdn.url}/blobs/{digest}"})
