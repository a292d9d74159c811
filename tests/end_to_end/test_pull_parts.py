"""Pulled through a real daemon from real parts, with credentials from where each tool keeps them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rigs.hub_server import Hub, Repo
from rigs.pull_rig import MIB, failed, gguf, hex_of, pulled
from rigs.real_daemon import RealDaemon
from rigs.real_s3 import KEY, SECRET, Buckets, buckets
from rigs.registries import (
    CNCF,
    PASSWORD,
    USER,
    OllamaDouble,
    TokenServer,
    descriptor,
    modelpack,
    need,
    packed,
    real_registry,
)
from rigs.scripted_server import Asked, Reply, Server, file_reply

WEIGHTS, CARD = gguf(3 * MIB + 5, 91), b"# a card"
CONFIG = b'{"descriptor":{},"config":{},"modelfs":{"type":"layers","diffIds":[]}}'
PACK = modelpack(
    [
        descriptor(CNCF + "weight.v1.raw", WEIGHTS, "model.gguf"),
        descriptor(CNCF + "doc.v1.raw", CARD, "README.md"),
    ],
    CONFIG,
)
TOKEN = "hf_" + "p4Rt" * 8


def assert_pulled(daemon: RealDaemon, ref: str, **fields: object) -> dict[str, object]:
    value = pulled(daemon, ref, **fields)
    path = value["path"] if not value["files"] else os.path.join(value["path"], "model.gguf")
    assert Path(path).read_bytes() == WEIGHTS
    return value


# -- registries


def test_a_registry_open_to_all_to_which_skopeo_copied(daemon: RealDaemon, tmp_path: Path) -> None:
    skopeo = need("skopeo")
    with real_registry(tmp_path) as registry:
        digest = registry.push("team/model", "v0", PACK, WEIGHTS, CARD, CONFIG)
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
        assert assert_pulled(daemon, f"oci://{registry.host}/team/model:v1")["revision"] == digest


def log_in(daemon: RealDaemon, host: str) -> None:
    place = Path(daemon.room, ".docker")
    place.mkdir(exist_ok=True)
    (place / "config.json").write_text(json.dumps({"auths": {host: {"auth": packed(USER, PASSWORD)}}}))


def test_a_registry_with_a_password_that_docker_knows(daemon: RealDaemon, tmp_path: Path) -> None:
    with real_registry(tmp_path, "basic") as registry:
        registry.push("team/model", "v1", PACK, WEIGHTS, CARD, CONFIG)
        ref = f"oci://{registry.host}/team/model:v1"
        refused = failed(daemon, ref, "source_unauthorized")
        assert "docker login" in refused["hint"]
        log_in(daemon, registry.host)
        assert_pulled(daemon, ref)


def test_a_registry_that_wants_a_token_of_another_server(daemon: RealDaemon, tmp_path: Path) -> None:
    with TokenServer(tmp_path) as tokens, real_registry(tmp_path, "bearer", tokens) as registry:
        registry.push("team/model", "v1", PACK, WEIGHTS, CARD, CONFIG)
        ref = f"oci://{registry.host}/team/model:v1"
        failed(daemon, ref, "source_unauthorized")
        log_in(daemon, registry.host)
        assert_pulled(daemon, ref)


def test_a_registry_of_ollamas_shape(daemon: RealDaemon) -> None:
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    config = b'{"model_format":"gguf"}'
    layers = [
        descriptor("application/vnd.ollama.image.model", WEIGHTS),
        descriptor("application/vnd.ollama.image.license", b"MIT License"),
    ]
    with OllamaDouble() as registry:
        for content in (WEIGHTS, b"MIT License", config):
            registry.blob(content)
        told = {
            "schemaVersion": 2,
            "mediaType": kind,
            "config": descriptor("application/vnd.docker.container.image.v1+json", config),
            "layers": layers,
        }
        digest = registry.put("library/tiny", "latest", told)
        value = pulled(daemon, f"ollama:{registry.host}/library/tiny")
        assert value["revision"] == digest
        contents = {Path(value["path"], file["path"]).read_bytes() for file in value["files"]}
        assert contents == {WEIGHTS, b"MIT License"}


# -- buckets


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[Buckets]:
    with buckets(tmp_path) as running:
        running.put("weights")
        running.put("weights/set/model.gguf", WEIGHTS)
        running.put("weights/set/README.md", CARD)
        yield running


def test_objects_of_a_bucket_with_the_keys_of_the_profile(stopped: RealDaemon, s3: Buckets) -> None:
    place = Path(stopped.room, ".aws")
    place.mkdir()
    (place / "credentials").write_text(f"[work]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")
    stopped.environ |= {"AWS_ENDPOINT_URL": s3.url, "AWS_REGION": "us-east-1", "AWS_PROFILE": "work"}
    stopped.start()
    assert_pulled(stopped, "s3://weights/set/model.gguf", name="one")
    value = assert_pulled(stopped, "s3://weights/set/", name="both")
    assert {file["path"] for file in value["files"]} == {"model.gguf", "README.md"}  # type: ignore[attr-defined]


# -- the hub

FILES = {
    "model.gguf": WEIGHTS,
    "config.json": b'{"a": 1}',
    "deep/er/tokenizer.json": gguf(70_000, 5),
    "README.md": CARD,
    "notes.txt": b"",
}
CLIENT = """
import sys
from huggingface_hub import snapshot_download
print(snapshot_download("org/repo", cache_dir=sys.argv[1]))
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    lfs = frozenset({"model.gguf", "deep/er/tokenizer.json"})
    private = Repo({"model.gguf": WEIGHTS}, lfs=frozenset({"model.gguf"}), private=True, tokens=frozenset({TOKEN}))
    with Hub({"org/repo": Repo(FILES, lfs=lfs), "org/private": private}, valid=frozenset({TOKEN})) as made:
        yield made


def test_the_hubs_own_client_and_a_pull_bring_the_same_files(stopped: RealDaemon, hub: Hub, tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environ |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    environ |= {"HF_HUB_DISABLE_TELEMETRY": "1", "no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}
    ran = subprocess.run(
        [sys.executable, "-c", CLIENT, str(tmp_path / "cache")], env=environ, capture_output=True, text=True, timeout=90
    )
    assert ran.returncode == 0, ran.stderr
    theirs = Path(ran.stdout.splitlines()[-1])
    stopped.environ["HF_ENDPOINT"] = hub.url
    value = pulled(stopped.start(), "hf:org/repo")
    assert theirs.name == value["revision"]
    assert contents(Path(value["path"])) == contents(theirs) == FILES


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("place", [".cache/huggingface/token", "own/token"])
def test_the_token_that_the_hubs_client_was_logged_in_with(stopped: RealDaemon, hub: Hub, place: str) -> None:
    path = Path(stopped.room, place)
    path.parent.mkdir(parents=True)
    path.write_text(TOKEN + "\n")
    stopped.environ["HF_ENDPOINT"] = hub.url
    if place.startswith("own"):
        stopped.environ["HF_HOME"] = str(path.parent)
    assert_pulled(stopped.start(), "hf:org/private/model.gguf")


@pytest.mark.parametrize(
    ("page", "files"),
    [
        ("org/repo/blob/main/model.gguf", ["model.gguf"]),
        ("org/repo/resolve/main/model.gguf?download=true", ["model.gguf"]),
        ("org/repo/tree/main/deep", ["deep/er/tokenizer.json"]),
        ("org/repo/tree/main", sorted(FILES)),
        ("org/repo", sorted(FILES)),
    ],
)
def test_an_address_that_was_pasted_from_a_browser(stopped: RealDaemon, hub: Hub, page: str, files: list[str]) -> None:
    stopped.environ["HF_ENDPOINT"] = hub.url
    value = pulled(stopped.start(), f"{hub.url}/{page}", name="pasted")
    found = [file["path"] for file in value["files"]]
    assert sorted(found) == files if len(files) > 1 else found == []
    assert value["revision"] == hub.repos["org/repo"].commit
    assert value["source"].startswith("hf:org/repo")


# -- the web


def test_a_password_of_netrc_goes_to_its_host(daemon: RealDaemon) -> None:
    def route(asked: Asked) -> Reply:
        known = asked.headers.get("Authorization") == "Basic " + packed("me", "of-netrc")
        return file_reply(asked, WEIGHTS) if known else Reply(401)

    with Server(route) as server:
        Path(daemon.room, ".netrc").write_text(f"machine {server.url[7:]} login me password of-netrc\n")
        value = pulled(daemon, f"{server.url}/model.gguf")
        failed(daemon, f"{server.url.replace('127.0.0.1', 'localhost')}/model.gguf", "source_unauthorized", name="b")
    assert value["blob"] == f"sha256:{hex_of(WEIGHTS)}"
