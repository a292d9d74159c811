"""The sources under the engine that moves bytes: from a reference to verified files in the store."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.conftest import MakeRig
from modeld.download.routes.router import Route
from modeld.download.source import Source
from modeld.sources.parse import parse
from modeld.sources.reference import Reference
from modeld.sources.sources import Sources
from modeld.store.digest import Digest
from modelwire.errors import DigestMismatch, WireError
from rigs.described_bytes import OWN_USER
from rigs.download_rig import Rig
from rigs.hub_repos import REPOS
from rigs.hub_server import Hub, Repo
from rigs.registries import OllamaDouble, descriptor
from rigs.watcher import Watcher


def pulled(rig: Rig, reference: Reference, sources: list[Source[Reference]]) -> dict[str, bytes]:
    described = rig.transfer.router.describe(Route(reference, sources), on_event=rig.events.append)
    files = described.description.files
    progress = Watcher().files([file.size for file in files])
    found = {}
    for number, file in enumerate(files):
        fetched = rig.transfer.fetch_file(
            described, file, expected=None, progress=progress[number], on_event=rig.events.append
        )
        if file.digest is not None:
            assert fetched.digest == file.digest
        blob, _ = rig.commit(fetched)
        found[file.path] = Path(blob.path).read_bytes()
        assert Digest(blob.digest.hex) == fetched.digest
    return found


def test_a_repository_of_a_hub(make_rig: MakeRig) -> None:
    rig = make_rig()
    with Hub(REPOS, page=3) as hub:
        reference = parse("hf:org/whole")
        source = Sources(rig.client, {"HF_ENDPOINT": hub.url, "HOME": "/nonexistent"}).source(reference, OWN_USER)
        assert pulled(rig, reference, [source]) == REPOS["org/whole"].files


def test_a_mirror_that_has_not_got_it_and_the_hub_that_has(make_rig: MakeRig) -> None:
    rig = make_rig()
    with Hub({}) as mirror, Hub(REPOS) as hub:
        reference = parse("hf:org/quants:Q8_0")
        sources = Sources(rig.client, {"HF_ENDPOINT": hub.url, "HOME": "/nonexistent"})
        route = [sources.mirror(reference, "", mirror.url, OWN_USER), sources.source(reference, OWN_USER)]
        assert sorted(pulled(rig, reference, route)) == ["m-Q8_0.gguf", "mmproj-F16.gguf"]
        assert mirror.server.asked


def test_a_small_file_that_is_not_that_of_its_commit_never_becomes_a_blob(make_rig: MakeRig) -> None:
    rig = make_rig()
    good = REPOS["org/whole"]
    with Hub({"org/whole": Repo(good.files, good.lfs, tampered={"config.json": b"CONFIG.json"})}) as hub:
        reference = parse("hf:org/whole/config.json")
        source = Sources(rig.client, {"HF_ENDPOINT": hub.url, "HOME": "/nonexistent"}).source(reference, OWN_USER)
        with pytest.raises(WireError) as caught:
            pulled(rig, reference, [source])
    assert isinstance(caught.value, DigestMismatch)
    assert not list(Path(rig.layout.root, "blobs").rglob("data"))


def test_a_model_of_a_registry(make_rig: MakeRig) -> None:
    rig = make_rig()
    content = b"GGUF" + bytes(range(256)) * 5000
    with OllamaDouble() as double:
        double.blob(content)
        kind = "application/vnd.docker.distribution.manifest.v2+json"
        layer = descriptor("application/vnd.ollama.image.model", content)
        double.put("library/m", "latest", {"schemaVersion": 2, "mediaType": kind, "config": layer, "layers": [layer]})
        reference = parse("ollama:m")
        source = Sources(rig.client, {"HOME": "/nonexistent"}).mirror(reference, "", double.server.url, OWN_USER)
        assert pulled(rig, reference, [source]) == {"model.gguf": content}
