"""Models in registries: a real one with each kind of access, and Ollama's double."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modeld.download.http.client import HttpClient
from modeld.download.source import Description
from modeld.sources.parse import parse
from modeld.sources.registries.reference import ImageReference
from modeld.sources.registries.source import ImageSource
from modelwire.errors import (
    DigestMismatch,
    InvalidRequest,
    SourceNotFound,
    SourceUnauthorized,
)
from rigs.described_bytes import read_all
from rigs.registries import (
    CNCF,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    OLLAMA_LIST,
    PASSWORD,
    USER,
    OllamaDouble,
    RealRegistry,
    TokenServer,
    descriptor,
    encoded,
    modelpack,
    need,
    packed,
    real_registry,
    with_docker_config,
)
from rigs.scripted_server import Asked, Reply, file_reply, serving, sha256

WEIGHTS, PROJECTOR, README = b"GGUF" + b"w" * 9000, b"GGUF" + b"p" * 900, b"# A model"
LICENSE, TEMPLATE = b"Apache License", b"{{ .Prompt }}"
CONFIG = json.dumps({"descriptor": {"licenses": ["Apache-2.0", "MIT"]}, "config": {"format": "gguf"}}).encode()

PACK = modelpack(
    [
        descriptor(CNCF + "weight.v1.raw", WEIGHTS, "weights/m-Q4_K_M.gguf"),
        descriptor(CNCF + "weight.v1.raw", PROJECTOR, "mmproj-F16.gguf"),
        descriptor(CNCF + "doc.v1.raw", README, "README.md"),
    ],
    CONFIG,
)
BLOBS = (WEIGHTS, PROJECTOR, README, CONFIG)


def described(source: ImageSource, text: str) -> Description:
    reference = parse(text)
    assert isinstance(reference, ImageReference)
    return source.describe(reference)


def fetched(source: ImageSource, description: Description) -> dict[str, bytes]:
    return {file.path: read_all(source, file) for file in description.files}


def check_pack(source: ImageSource, registry: RealRegistry, digest: str) -> None:
    found = described(source, f"oci://{registry.host}/team/model:v1")
    assert found.revision == digest
    assert (found.registry, found.repo, found.license) == (registry.host, "team/model", "Apache-2.0 AND MIT")
    roles = {file.path: file.role for file in found.files}
    assert roles == {"weights/m-Q4_K_M.gguf": "weights", "mmproj-F16.gguf": "mmproj", "README.md": "doc"}
    contents = fetched(source, found)
    assert contents == {"weights/m-Q4_K_M.gguf": WEIGHTS, "mmproj-F16.gguf": PROJECTOR, "README.md": README}
    for file in found.files:
        assert file.digest is not None
        assert file.digest.hex == sha256(contents[file.path])
        assert file.size == len(contents[file.path])
    assert read_all(source, found.files[0], 100, 200) == WEIGHTS[100:200]
    assert described(source, f"oci://{registry.host}/team/model@{digest}").revision == digest


# -- a real registry


def test_a_registry_that_is_open_to_all(http: HttpClient, tmp_path: Path) -> None:
    with real_registry(tmp_path) as registry:
        digest = registry.push("team/model", "v1", PACK, *BLOBS)
        source = ImageSource(http, environ={"HOME": str(tmp_path)})
        check_pack(source, registry, digest)
        with pytest.raises(SourceNotFound, match="has no such repository, tag or digest"):
            described(source, f"oci://{registry.host}/team/model:none")
        with pytest.raises(SourceNotFound):
            described(source, f"oci://{registry.host}/none:v1")
        index = {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [
                {**descriptor(OCI_MANIFEST, encoded(PACK)), "artifactType": PACK["artifactType"]},
            ],
        }
        top = registry.push("team/model", "list", index)
        listed = described(source, f"oci://{registry.host}/team/model:list")
        assert listed.revision == top
        assert fetched(source, listed)["README.md"] == README


def test_a_copy_that_skopeo_made_is_the_same(http: HttpClient, tmp_path: Path) -> None:
    skopeo = need("skopeo")
    with real_registry(tmp_path) as registry:
        digest = registry.push("team/model", "v0", PACK, *BLOBS)
        place = f"docker://{registry.host}/team/model"
        options = "copy --insecure-policy --src-tls-verify=false --dest-tls-verify=false --preserve-digests"
        ran = subprocess.run(
            [skopeo, *options.split(), f"{place}:v0", f"{place}:v1"],
            capture_output=True,
            text=True,
            timeout=60,
            env={"HOME": str(tmp_path), "PATH": os.environ["PATH"], "TMPDIR": str(tmp_path)},
        )
        assert ran.returncode == 0, ran.stderr
        check_pack(ImageSource(http, environ={"HOME": str(tmp_path)}), registry, digest)


def test_user_and_password_from_dockers_configuration(http: HttpClient, tmp_path: Path) -> None:
    with real_registry(tmp_path, "basic") as registry:
        digest = registry.push("team/model", "v1", PACK, *BLOBS)
        known = with_docker_config(tmp_path / "home", {"auths": {registry.host: {"auth": packed(USER, PASSWORD)}}})
        check_pack(ImageSource(http, environ=known), registry, digest)
        with pytest.raises(SourceUnauthorized, match="is not public") as caught:
            described(ImageSource(http, environ={"HOME": str(tmp_path)}), f"oci://{registry.host}/team/model:v1")
        assert "docker login" in (caught.value.hint or "")
        wrong = with_docker_config(
            tmp_path / "other", {"auths": {registry.host: {"auth": packed(USER, "wrong-secret")}}}
        )
        with pytest.raises(SourceUnauthorized, match="the account in use has no right to it") as caught:
            described(ImageSource(http, environ=wrong), f"oci://{registry.host}/team/model:v1")
        assert "wrong-secret" not in f"{caught.value} {caught.value.hint} {caught.value.details}"


def test_user_and_password_of_the_reference(http: HttpClient, tmp_path: Path) -> None:
    with real_registry(tmp_path, "basic") as registry:
        registry.push("team/model", "v1", PACK, *BLOBS)
        source = ImageSource(http, environ={"HOME": str(tmp_path)})
        secret = PASSWORD.replace(" ", "%20").replace(":", "%3A")
        found = described(source, f"oci://{USER}:{secret}@{registry.host}/team/model:v1")
        assert secret not in repr(found)
        assert found.source == f"oci://{registry.host}/team/model:v1"
        assert fetched(source, found)["README.md"] == README
        with pytest.raises(SourceUnauthorized):
            described(source, f"oci://{registry.host}/team/model:v1")


def test_a_token_is_fetched_from_where_the_registry_says(http: HttpClient, tmp_path: Path) -> None:
    with TokenServer(tmp_path) as tokens, real_registry(tmp_path, "bearer", tokens) as registry:
        digest = registry.push("team/model", "v1", PACK, *BLOBS)
        known = with_docker_config(tmp_path / "home", {"auths": {registry.host: {"auth": packed(USER, PASSWORD)}}})
        check_pack(ImageSource(http, environ=known), registry, digest)
        assert len(tokens.server.asked) == 1, "one token serves for a repository"
        anonymous = ImageSource(http, environ={"HOME": str(tmp_path)})
        with pytest.raises(SourceUnauthorized, match="does not accept a client without a login"):
            described(anonymous, f"oci://{registry.host}/team/model:v1")
        tokens.public = True
        check_pack(anonymous, registry, digest)
        wrong = with_docker_config(
            tmp_path / "other", {"auths": {registry.host: {"auth": packed(USER, "wrong-secret")}}}
        )
        with pytest.raises(SourceUnauthorized, match="does not accept the user and password") as caught:
            described(ImageSource(http, environ=wrong), f"oci://{registry.host}/team/model:v1")
        assert "wrong-secret" not in f"{caught.value} {caught.value.hint} {caught.value.details}"


def test_an_identity_token_is_exchanged(http: HttpClient, tmp_path: Path) -> None:
    with TokenServer(tmp_path) as tokens, real_registry(tmp_path, "bearer", tokens) as registry:
        digest = registry.push("team/model", "v1", PACK, *BLOBS)
        tokens.refresh_tokens.add("identity-secret")
        known = with_docker_config(
            tmp_path / "home", {"auths": {registry.host: {"auth": packed("x", ""), "identitytoken": "identity-secret"}}}
        )
        check_pack(ImageSource(http, environ=known), registry, digest)
        assert [asked.method for asked in tokens.server.asked] == ["POST"]


def test_a_token_that_expired_in_mid_transfer_is_replaced(
    http: HttpClient, ollama: OllamaDouble, tmp_path: Path
) -> None:
    ollama.put("library/m", "latest", ollama_manifest(image("model", WEIGHTS)))
    behind = ollama.server.route
    issued: list[str] = []

    def guarded(asked: Asked) -> Reply:
        if asked.path == "/token":
            issued.append(f"number-{len(issued) + 1}")
            return Reply(200, {}, json.dumps({"token": issued[-1], "expires_in": 3600}).encode())
        if asked.headers.get("Authorization") != f"Bearer {accepted}":
            return Reply(401, {"WWW-Authenticate": f'Bearer realm="{ollama.server.url}/token",service="x"'})
        return file_reply(asked, WEIGHTS) if "/blobs/" in asked.path else behind(asked)

    accepted = "number-1"
    ollama.server.route = guarded
    source = ImageSource(http, name="ollama", environ={"HOME": str(tmp_path)}, base=ollama.server.url)
    file = described(source, "ollama:m").files[0]
    assert read_all(source, file, 0, 10) == WEIGHTS[:10]
    assert issued == ["number-1"]
    accepted = "number-2"
    assert read_all(source, file, 10, 20) == WEIGHTS[10:20]
    assert read_all(source, file, 20, 30) == WEIGHTS[20:30]
    assert issued == ["number-1", "number-2"]


def test_a_password_is_not_sent_to_a_realm_without_encryption(http: HttpClient, tmp_path: Path) -> None:
    realm = Reply(401, {"WWW-Authenticate": 'Bearer realm="http://auth.example/token",service="x"'})
    with serving(lambda asked: realm) as server:
        host = server.url[7:]
        known = with_docker_config(tmp_path, {"auths": {host: {"auth": packed(USER, PASSWORD)}}})
        with pytest.raises(InvalidRequest, match=r"auth\.example is not encrypted"):
            described(ImageSource(http, environ=known), f"oci://{host}/team/model:v1")


@pytest.mark.parametrize("lasts", [b"9" * 400, b"1e999", b"NaN", b"-1", b'"soon"'])
def test_a_token_that_lasts_for_no_time_that_can_be(http: HttpClient, lasts: bytes) -> None:
    def route(asked: Asked) -> Reply:
        if asked.path == "/token":
            return Reply(200, {}, b'{"token": "given", "expires_in": ' + lasts + b"}")
        if asked.headers.get("Authorization") == "Bearer given":
            return Reply(404)
        return Reply(401, {"WWW-Authenticate": f'Bearer realm="{server.url}/token"'})

    with serving(route) as server, pytest.raises(SourceNotFound):
        described(ImageSource(http, environ={"HOME": "/nonexistent"}), f"oci://{server.url[7:]}/team/model:v1")


# -- Ollama


def ollama_manifest(*layers: dict[str, Any]) -> dict[str, Any]:
    config = descriptor("application/vnd.docker.container.image.v1+json", b"{}")
    return {"schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": config, "layers": list(layers)}


def image(kind: str, content: bytes, name: str | None = None) -> dict[str, Any]:
    return descriptor(f"application/vnd.ollama.image.{kind}", content, name=name)


@pytest.fixture
def ollama() -> Iterator[OllamaDouble]:
    with OllamaDouble() as double:
        for content in (WEIGHTS, PROJECTOR, LICENSE, README, TEMPLATE):
            double.blob(content)
        yield double


def test_a_model_of_ollamas_registry(http: HttpClient, ollama: OllamaDouble, tmp_path: Path) -> None:
    manifest = ollama_manifest(
        image("model", WEIGHTS),
        image("projector", PROJECTOR),
        image("license", LICENSE),
        image("license", README),
        image("template", TEMPLATE),
        descriptor(DOCKER_MANIFEST, b"{}"),
    )
    digest = ollama.put("library/llava", "7b", manifest)
    source = ImageSource(http, name="ollama", environ={"HOME": str(tmp_path)}, base=ollama.server.url)
    found = described(source, "ollama:llava:7b")
    assert (found.registry, found.repo, found.revision) == ("registry.ollama.ai", "library/llava", digest)
    assert [(file.path, file.role) for file in found.files] == [
        ("model.gguf", "weights"),
        ("mmproj.gguf", "mmproj"),
        ("LICENSE", "license"),
        ("LICENSE-2", "license"),
        ("template", "config"),
    ]
    assert list(fetched(source, found).values()) == [WEIGHTS, PROJECTOR, LICENSE, README, TEMPLATE]
    direct = ImageSource(http, name="ollama", environ={"HOME": str(tmp_path)})
    assert fetched(direct, described(direct, f"ollama:{ollama.host}/library/llava:7b"))["model.gguf"] == WEIGHTS
    with pytest.raises(SourceNotFound):
        described(source, "ollama:llava:70b")


def test_a_list_of_variants_gives_the_one_for_llama_cpp(http: HttpClient, ollama: OllamaDouble, tmp_path: Path) -> None:
    mlx = ollama.put("library/m", None, ollama_manifest(image("tensor", PROJECTOR, name="a/b.weight")))
    gguf = ollama.put("library/m", None, ollama_manifest(image("model", WEIGHTS)))
    children = [
        {"mediaType": DOCKER_MANIFEST, "digest": mlx, "size": 1, "runner": "mlx", "format": "safetensors"},
        {"mediaType": DOCKER_MANIFEST, "digest": gguf, "size": 1, "runner": "llamacpp", "format": "gguf"},
    ]
    top = ollama.put("library/m", "latest", {"schemaVersion": 2, "mediaType": OLLAMA_LIST, "manifests": children})
    source = ImageSource(http, name="ollama", environ={"HOME": str(tmp_path)}, base=ollama.server.url)
    found = described(source, "ollama:m")
    assert found.revision == top
    assert fetched(source, found) == {"model.gguf": WEIGHTS}
    only = {"schemaVersion": 2, "mediaType": OLLAMA_LIST, "manifests": children[:1]}
    ollama.put("library/m", "mlx", only)
    assert [file.path for file in described(source, "ollama:m:mlx").files] == ["a/b.weight.safetensors"]


def test_a_manifest_that_is_not_what_its_digest_says(http: HttpClient, ollama: OllamaDouble, tmp_path: Path) -> None:
    digest = ollama.put("library/m", "latest", ollama_manifest(image("model", WEIGHTS)))
    ollama.manifests[f"library/m/{digest}"] += b" "
    source = ImageSource(http, name="ollama", environ={"HOME": str(tmp_path)}, base=ollama.server.url)
    with pytest.raises(DigestMismatch, match="does not have the digest of its name"):
        described(source, f"ollama:m@{digest}")
