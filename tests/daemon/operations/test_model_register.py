"""Models that are registered before their bytes are here, until the bytes are."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modeld.store import ModelName, Requester, Store
from modeld.store.publish import registering
from modelwire.errors import (
    AlreadyExists,
    DigestMismatch,
    InvalidDigest,
    InvalidName,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    QuotaExceeded,
    SourceNotFound,
)
from modelwire.knowledge.document import built, document_of
from modelwire.knowledge.requirements import SMALL_LLM
from modelwire.limits import DOCUMENT
from modelwire.requests import (
    ModelAdd,
    ModelCopy,
    ModelFit,
    ModelList,
    ModelMove,
    ModelPull,
    ModelRegister,
    ModelRemove,
    ModelShow,
)
from modelwire.values import ModelView, Registered
from rigs.operations_rig import ADMIN, ANOTHER, MINE, OperationsRig, operations_rig
from rigs.scripted_server import Server, file_reply

CONTENT = b"GGUF\3\0\0\0 the bytes of a model"
DIGITS = sha256(CONTENT).hexdigest()
BUILT = built("m-3b", "M 3B", "llm", version="25.12", requirements=SMALL_LLM, features=("chat",), license="mit")


def document(**changes: Any) -> dict[str, Any]:
    written: dict[str, Any] = json.loads(msgspec.json.encode(BUILT))
    return written | {"x-note": "kept"} | changes


@pytest.fixture
def web() -> Iterator[Server]:
    with Server(lambda asked: file_reply(asked, CONTENT)) as server:
        yield server


async def register(at: OperationsRig, name: str | None = None, caller: Any = MINE, **changes: Any) -> Registered:
    done = await at.ask(ModelRegister(manifest=document(**changes), name=name), caller)
    assert isinstance(done, Registered)
    return done


async def listed(at: OperationsRig, **query: Any) -> list[ModelView]:
    return list((await at.ask(ModelList(**query))).models)


def manifest(at: OperationsRig, name: str) -> dict[str, Any]:
    path = Path(at.services.store.layout.root, "manifests", f"{name}.json")
    content: dict[str, Any] = json.loads(path.read_bytes())
    return content


def files(at: OperationsRig) -> list[str]:
    directory = at.services.store.layout.registered
    return sorted(os.listdir(directory)) if os.path.isdir(directory) else []


async def test_it_is_listed_shown_and_compared_and_no_more(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        assert await register(at, sha256=DIGITS) == Registered(name="m-3b", model_id="m-3b", changed=True)
        (view,) = await listed(at, filter="state=available")
        assert (view.name, view.state, view.path, view.blob) == ("m-3b", "available", None, f"sha256:{DIGITS}")
        assert (view.owner, view.license, view.progress) == (MINE.uid, "mit", None)
        shown = await at.ask(ModelShow(name="M-3B"))
        assert document_of(shown.model) == document_of(document(sha256=DIGITS))
        assert shown.node == {
            "model_id": "m-3b",
            "status": "available",
            "local_path": None,
            "download_progress": 0.0,
            "verified_at": None,
            "error": None,
        }
        assert (shown.catalogue_state, shown.file_name) == ("pending", "m-3b-25_12-q4_k_m.gguf")
        fit = await at.ask(ModelFit(name="m-3b", vram_mb=512))
        assert (fit.fits, fit.requirements_from) == (False, "document")
        assert os.listdir(at.services.store.layout.manifests_dir) == []
        with pytest.raises(NotFound):
            await at.services.store.look_up("m-3b")


async def test_a_pull_fetches_it_from_its_address(tmp_path: Path, web: Server) -> None:
    async with operations_rig(tmp_path) as at:
        await register(at, "m:3b", sha256=DIGITS, download_url=f"{web.url}/m.gguf")
        pulled = await at.ask(ModelPull(ref="m:3b"))
        assert (pulled.name, pulled.blob, pulled.source) == ("m:3b", f"sha256:{DIGITS}", f"{web.url}/m.gguf")
        written = manifest(at, "m+3b")
        wanted = document(size_bytes=len(CONTENT), sha256=DIGITS, download_url=f"{web.url}/m.gguf")
        assert written["model"] == wanted
        assert (written["license"], written["owner_uid"]) == ("mit", MINE.uid)
        assert files(at) == []
        (view,) = await listed(at)
        assert (view.state, view.reason) == ("ready", None)
        assert (await at.ask(ModelPull(ref="m:3b"))).current


async def test_without_a_digest_that_of_the_bytes_is_written(tmp_path: Path, web: Server) -> None:
    async with operations_rig(tmp_path) as at:
        await register(at, download_url=f"{web.url}/m.gguf", size_bytes=5)
        await at.ask(ModelPull(ref="m-3b"))
        block = manifest(at, "m-3b")["model"]
        assert (block["sha256"], block["size_bytes"]) == (DIGITS, len(CONTENT))


async def test_other_bytes_than_those_of_the_digest(tmp_path: Path, web: Server) -> None:
    async with operations_rig(tmp_path) as at:
        await register(at, sha256="ab" * 32, download_url=f"{web.url}/m.gguf")
        with pytest.raises(DigestMismatch) as fault:
            await at.ask(ModelPull(ref="m-3b"))
        assert fault.value.exit_code == 6
        (view,) = await listed(at)
        assert (view.state, view.reason) == ("failed", fault.value.message)
        with pytest.raises(DigestMismatch, match="is registered with the digest"):
            await at.ask(ModelPull(ref="m-3b", sha256=DIGITS))
        with pytest.raises(AlreadyExists, match="registered for other bytes"):
            await at.ask(ModelAdd(path=at.file("m.gguf", CONTENT), name="m-3b"))
        await at.ask(ModelAdd(path=at.file("m.gguf", CONTENT), name="m-3b", replace=True))
        assert manifest(at, "m-3b")["model"]["features"] == []
        assert files(at) == []


async def test_a_blob_of_its_digest_that_is_here(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        await register(at, sha256=DIGITS)
        with pytest.raises(SourceNotFound, match="no blob of its digest is here"):
            await at.ask(ModelPull(ref="m-3b"))
        await at.services.store.add(at.file("other.gguf", CONTENT), name="other")
        pulled = await at.ask(ModelPull(ref="m-3b"))
        assert (pulled.blob, pulled.reused) == (f"sha256:{DIGITS}", True)
        assert manifest(at, "m-3b")["model"]["features"] == ["chat"]
        assert files(at) == []


async def test_neither_an_address_nor_a_digest(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        await register(at)
        with pytest.raises(SourceNotFound, match="without a place to fetch it from, and without a digest"):
            await at.ask(ModelPull(ref="m-3b"))


async def test_bytes_that_an_add_brings_end_it_too(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        await register(at, sha256=DIGITS)
        await at.ask(ModelAdd(path=at.file("m.gguf", CONTENT), name="m-3b"))
        assert manifest(at, "m-3b")["model"]["x-note"] == "kept"
        await at.ask(ModelRemove(name="m-3b"))
        assert await listed(at) == []


async def test_again(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        assert (await register(at)).changed
        assert not (await register(at, model_type="LLM")).changed, "the case of words does not count"
        with pytest.raises(AlreadyExists, match="with another document"):
            await register(at, version="26")
        with pytest.raises(AlreadyExists):
            await register(at, "M-3b")
        await at.ask(ModelAdd(path=at.file("here.gguf", CONTENT), name="here"))
        with pytest.raises(AlreadyExists, match="already a model named 'here'"):
            await register(at, "Here")


@pytest.mark.parametrize("operation", [ModelCopy, ModelMove])
async def test_no_other_model_gets_its_name(tmp_path: Path, operation: type[ModelCopy | ModelMove]) -> None:
    async with operations_rig(tmp_path) as at:
        await register(at)
        await at.ask(ModelAdd(path=at.file("here.gguf", CONTENT), name="here"))
        with pytest.raises(AlreadyExists, match="'m-3b' is registered"):
            await at.ask(operation(source="here", destination="M-3b"))


async def test_a_registration_belongs_to_its_user(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        await register(at, sha256=DIGITS)
        path = at.file("m.gguf", CONTENT)
        with pytest.raises(PermissionDenied, match=f"belongs to uid {MINE.uid}"):
            await at.ask(ModelRemove(name="m-3b"), ANOTHER)
        with pytest.raises(PermissionDenied, match=f"belongs to uid {MINE.uid}"):
            await at.services.store.add(path, name="m-3b", requester=Requester(peer=ANOTHER.uid))
        assert (await at.ask(ModelRemove(name="m-3b"), ADMIN)).name == "m-3b"
        assert (await listed(at), files(at)) == ([], [])
        with pytest.raises(NotFound):
            await at.ask(ModelRemove(name="m-3b"))


async def test_an_address_is_asked_for_its_own_user_alone(tmp_path: Path, web: Server) -> None:
    async with operations_rig(tmp_path) as at:
        await register(at, download_url=at.file("secret.gguf", CONTENT), caller=ANOTHER)
        for caller in (ADMIN, MINE):
            with pytest.raises(PermissionDenied, match=f"is registered by uid {ANOTHER.uid}, who alone pulls it"):
                await at.ask(ModelPull(ref="m-3b"), caller)
        pulled = await at.ask(ModelPull(ref=f"{web.url}/m.gguf", name="m-3b"), ADMIN)
        assert manifest(at, pulled.name)["model"]["features"] == ["chat"]


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"sha256": "no"}, InvalidDigest),
        ({"model_type": "car"}, InvalidRequest),
        ({"model_id": "a/b"}, InvalidName),
        ({"model_id": ""}, InvalidName),
        ({"metadata": {"long": "x" * DOCUMENT}}, InvalidRequest),
        ({"download_url": "https://ada:secret@models.example/m.gguf"}, InvalidRequest),
        ({"download_url": "other:name"}, InvalidRequest),
        ({"download_url": "./m.gguf"}, InvalidRequest),
    ],
)
async def test_what_is_refused(tmp_path: Path, changes: dict[str, Any], fault: type[Exception]) -> None:
    async with operations_rig(tmp_path) as at:
        with pytest.raises(fault) as refused:
            await register(at, **changes)
        assert "secret" not in str(refused.value)
        assert (await listed(at), files(at)) == ([], [])


async def test_a_bad_id_needs_a_name(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        with pytest.raises(InvalidName) as fault:
            await register(at, model_id="org/m")
        assert "--name NAME" in (fault.value.hint or "")
        assert (await register(at, "m", model_id="org/m")).model_id == "org/m"


async def test_their_number_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registering, "MOST", 3)
    monkeypatch.setattr(registering, "MOST_OF_ONE", 2)
    async with operations_rig(tmp_path) as at:
        await register(at, "a")
        await register(at, "b")
        with pytest.raises(QuotaExceeded, match=f"uid {MINE.uid} has 2"):
            await register(at, "c")
        await register(at, "c", ANOTHER)
        with pytest.raises(QuotaExceeded, match="this store has 3"):
            await register(at, "d", ADMIN)
        await at.ask(ModelRemove(name="a"))
        await register(at, "d", ADMIN)


async def test_they_outlive_the_daemon_and_the_catalogue(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        await register(at, "m:3b", sha256=DIGITS)
        await register(at, "published")
        root, layout = at.services.store.layout.root, at.services.store.layout
        settings = at.services.settings.store
    published = Path(layout.manifests_dir, "published.json")
    published.write_text("{}")
    Path(layout.registered, "damaged.json").write_text("{")
    Path(layout.registered, "other.json").write_bytes(Path(layout.registered, "m+3b.json").read_bytes())
    store = Store.open(root, settings)
    try:
        (known,) = store.registrations.all()
        assert (known.name, known.owner_uid, known.model) == ("m:3b", MINE.uid, document(sha256=DIGITS))
        assert len(store.registrations.damaged) == 2
        again = await store.registering.register(ModelName.parse("m:3b"), document(sha256=DIGITS))
        assert not again.changed
        page = await store.models.page(None, None, after=None, limit=10)
        assert [view.name for view in page.models] == ["m:3b"]
        assert [text for text in page.damaged if "registered/" in text] == list(store.registrations.damaged)
        assert not os.path.exists(f"{layout.registered}/published.json"), "its name has a manifest"
    finally:
        store.close()


def nested(levels: int) -> dict[str, Any]:
    inner: dict[str, Any] = {}
    for _ in range(levels):
        inner = {"a": inner}
    return inner


@pytest.mark.parametrize("changes", [{"metadata": nested(31)}, {"metadata": nested(2000)}, {"params_billions": 1e308}])
async def test_a_document_that_no_list_could_show_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    async with operations_rig(tmp_path) as at:
        with pytest.raises(InvalidRequest):
            await at.ask(ModelRegister(manifest=document(**changes)))
        await at.ask(ModelRegister(manifest=document(metadata=nested(30))))
        assert len((await at.ask(ModelList())).models) == 1


async def test_what_is_here_comes_before_what_is_registered(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        await at.services.store.add(at.file("x.gguf", CONTENT), name="x")
        evil = await at.services.store.add(at.file("e.gguf", CONTENT + b"!"), name="evil")
        digits = evil.blob.removeprefix("sha256:")
        await at.ask(ModelRegister(manifest=document(sha256=digits), name="x:latest"), ANOTHER)
        pulled = await at.ask(ModelPull(ref="x"))
        assert (pulled.name, pulled.blob) == ("x", f"sha256:{DIGITS}")


async def test_a_registration_hides_no_other(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        await at.ask(ModelRegister(manifest=document(), name="y:latest"))
        with pytest.raises(PermissionDenied):
            await at.ask(ModelRegister(manifest=document(), name="y"), ANOTHER)


async def test_a_registration_does_not_come_back(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        store = at.services.store
        await at.ask(ModelRegister(manifest=document(), name="n"))
        await store.add(at.file("m.gguf", CONTENT), name="m")
        manifests = Path(store.layout.manifests_dir)
        (manifests / "n.json").write_bytes((manifests / "m.json").read_bytes())
        await at.ask(ModelRemove(name="n"))
        assert [view.name for view in (await at.ask(ModelList())).models] == ["m"]
