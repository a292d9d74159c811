"""Under which name a provision publishes, when others want that name before it, meanwhile, or at the same time."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from modeld.config.settings import AccessSettings
from modeld.operations.operation import Caller
from modeld.store import ModelName, Requester
from modeld.store.disk.layout import Layout
from modeld.store.manifests import writing
from modelwire.errors import AlreadyExists, InvalidRequest, NoSpace
from modelwire.knowledge.document import built
from modelwire.requests import ModelProvision, ModelPull, ModelRegister, ModelShow
from modelwire.values import ModelView, Provisioned
from rigs.operations_rig import ANOTHER, MINE, PATIENCE, UID, OperationsRig, operations_rig
from rigs.scripted_server import Asked, Reply, Server, file_reply
from rigs.waiting import eventually

ONE, TWO = b"GGUF\3\0\0\0 the bytes of one", b"GGUF\3\0\0\0 the bytes of two"


def hex_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def provision(at: OperationsRig, ref: str, caller: Any = MINE, **fields: Any) -> Provisioned:
    made = await at.ask(ModelProvision(ref=ref, **fields), caller)
    assert isinstance(made, Provisioned)
    return made


async def shown(at: OperationsRig, name: str) -> ModelView:
    view = await at.ask(ModelShow(name=name))
    assert isinstance(view, ModelView)
    return view


def ensured(view: ModelView) -> list[str]:
    """The outcomes of provisions in the history of a model."""
    return [each.outcome for each in view.history if "id" in (each.details or {})]


def document(name: str) -> dict[str, Any]:
    made: dict[str, Any] = msgspec.to_builtins(built(name, name, "llm"))
    return made


class Held:
    """A server of one file that gives the bytes when the test says so."""

    def __init__(self, reply: Callable[[Asked], Reply]) -> None:
        self.go = threading.Event()
        self.wanted = threading.Event()
        self.server = Server(self._route)
        self._reply = reply

    def _route(self, asked: Asked) -> Reply:
        if asked.method == "GET":
            self.wanted.set()
            self.go.wait(PATIENCE)
        return self._reply(asked)

    @property
    def downloads(self) -> int:
        return sum(each.method == "GET" for each in self.server.asked)


def without_validator(asked: Asked) -> Reply:
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(len(ONE))}
    return Reply(200, headers, ONE)


@pytest.fixture(params=[lambda asked: file_reply(asked, ONE), without_validator], ids=["validator", "no validator"])
def held(request: pytest.FixtureRequest) -> Iterator[Held]:
    made = Held(request.param)
    with made.server:
        yield made
        made.go.set()


async def during(at: OperationsRig, held: Held, meanwhile: Callable[[], Awaitable[object]], **fields: Any) -> Any:
    """A provision of `m`, with something that takes place while its bytes are on their way."""
    made: list[Provisioned] = []

    async def run() -> None:
        made.append(await provision(at, f"{held.server.url}/m.gguf", **fields))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await eventually(held.wanted.is_set)
        await meanwhile()
        held.go.set()
    return made[0]


@pytest.mark.parametrize("content", [ONE, TWO], ids=["the same bytes", "other bytes"])
@pytest.mark.parametrize("owner", [UID, UID + 1])
async def test_a_name_that_is_taken_during_the_download_stays_what_it_is(
    tmp_path: Path, held: Held, owner: int, content: bytes
) -> None:
    async with operations_rig(tmp_path) as at:

        async def take() -> None:
            await at.services.store.add(at.file("t.gguf", content), name="m", requester=Requester(peer=owner))

        made = await during(at, held, take, sha256=hex_of(TWO), strict=False)
        assert (made.name != "m", made.outcome) == (True, "mismatch")
        assert Path(made.local_path).read_bytes() == ONE
        assert held.downloads == 1, "what has arrived is not fetched again"
        taken = await shown(at, "m")
        assert (taken.blob, taken.owner) == (f"sha256:{hex_of(content)}", owner)
        assert ensured(taken) == []
        assert ensured(await shown(at, made.name)) == ["mismatch"]
        held.server.route = lambda asked: file_reply(asked, TWO)
        assert (await provision(at, f"{held.server.url}/m.gguf")).name == made.name


async def test_a_name_that_another_pull_of_the_reference_takes_stays_its_own(tmp_path: Path, held: Held) -> None:
    async with operations_rig(tmp_path) as at:
        ref = f"{held.server.url}/m.gguf"

        async def take() -> None:
            await at.services.store.add(at.file("t.gguf", TWO), name="m", requester=Requester(peer=UID))
            path = Path(at.services.store.layout.manifests_dir, "m.json")
            manifest = json.loads(path.read_bytes())
            manifest["source"]["reference"] = ref
            path.write_text(json.dumps(manifest))

        assert (await during(at, held, take)).name != "m"
        assert (await shown(at, "m")).blob == f"sha256:{hex_of(TWO)}"


async def test_a_secret_address_is_fetched_once(tmp_path: Path, held: Held) -> None:
    async with operations_rig(tmp_path) as at:

        async def run() -> None:
            made.append(await provision(at, f"{held.server.url}/m.gguf?token=secret"))

        made: list[Provisioned] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await eventually(held.wanted.is_set)
            await at.services.store.add(at.file("t.gguf", TWO), name="m")
            held.go.set()
        assert made[0].name.startswith("m-")
        assert held.downloads == 1


@pytest.mark.parametrize("shared", [False, True])
async def test_a_name_that_another_user_has_registered(tmp_path: Path, shared: bool) -> None:
    """Also where every writer may change every model: nobody has asked to take this one."""
    async with operations_rig(tmp_path, AccessSettings(shared_names=shared)) as at:
        await at.ask(ModelRegister(manifest=document("m")), ANOTHER)
        made = await provision(at, at.file("m.gguf", ONE))
        assert made.name.startswith("m-")
        assert (await shown(at, "m")).state == "available"


@pytest.mark.parametrize("registered", [True, False])
async def test_a_name_that_would_hide_the_default_tag_of_another_user(tmp_path: Path, registered: bool) -> None:
    async with operations_rig(tmp_path) as at:
        if registered:
            await at.ask(ModelRegister(manifest=document("m"), name="m:latest"), ANOTHER)
        else:
            await at.services.store.add(at.file("t.gguf", TWO), name="m:latest", requester=Requester(peer=UID + 1))
        made = await provision(at, at.file("m.gguf", ONE))
        assert made.name.startswith("m-")
        assert (await shown(at, "m")).name == "m:latest"


async def test_two_references_at_once_for_one_name(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        paths = []
        for number, content in enumerate((ONE, TWO, ONE)):
            (tmp_path / str(number)).mkdir()
            paths.append(at.file(f"{number}/m.gguf", content))
        made: dict[str, Provisioned] = {}

        async def run(path: str) -> None:
            made[path] = await provision(at, path)

        async with anyio.create_task_group() as tasks:
            for path in paths:
                tasks.start_soon(run, path)
        assert sorted(each.name == "m" for each in made.values()) == [False, False, True]
        assert len({each.name for each in made.values()}) == len(paths)
        for path, each in made.items():
            assert Path(each.local_path).read_bytes() == Path(path).read_bytes()
            assert (await provision(at, path)).name == each.name


async def test_the_same_token_again(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        path, other = at.file("m.gguf", ONE), at.file("other.gguf", TWO)
        first = await provision(at, path, token="t-1")
        again = await provision(at, path, token="t-1")
        assert (again, again.job) == (first, first.job)
        assert ensured(await shown(at, "m")) == ["unchecked"]
        for fields in ({"ref": other}, {"ref": path, "strict": False}, {"ref": path, "sha256": hex_of(ONE)}):
            with pytest.raises(InvalidRequest, match="stands for job"):
                await provision(at, **fields, token="t-1")


@pytest.mark.parametrize("caller", [MINE, ANOTHER])
async def test_a_name_that_is_on_its_way_is_not_registered(tmp_path: Path, held: Held, caller: Caller) -> None:
    async with operations_rig(tmp_path) as at:

        async def register() -> None:
            with pytest.raises(AlreadyExists) as fault:
                await at.ask(ModelRegister(manifest=document("m")), caller)
            (job,) = at.services.board.jobs
            assert fault.value.details["job"] == job.id
            assert job.id in fault.value.message

        assert (await during(at, held, register)).name == "m"
        with pytest.raises(AlreadyExists, match="already a model named"):
            await at.ask(ModelRegister(manifest=document("m")), caller)


@pytest.mark.parametrize(("coming", "registered"), [("m", "m:latest"), ("m:latest", "m")])
async def test_nor_one_that_would_keep_another_users_model_from_its_name(
    tmp_path: Path, held: Held, coming: str, registered: str
) -> None:
    async with operations_rig(tmp_path) as at:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(at.ask, ModelPull(ref=f"{held.server.url}/x.gguf", name=coming))
            await eventually(held.wanted.is_set)
            with pytest.raises(AlreadyExists, match="is on its way"):
                await at.ask(ModelRegister(manifest=document("m"), name=registered), ANOTHER)
            assert (await at.ask(ModelRegister(manifest=document("m"), name="m:other"), ANOTHER)).changed
            held.go.set()
        assert (await shown(at, coming)).state == "ready"


async def test_an_outcome_whose_publication_fails_is_not_in_the_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with operations_rig(tmp_path) as at:
        path = at.file("m.gguf", ONE)

        def full(*_: object, **__: object) -> None:
            raise NoSpace("the disk is full")

        with monkeypatch.context() as patched:
            patched.setattr(writing, "write", full)
            with pytest.raises(NoSpace):
                await provision(at, path)
        await at.services.store.add(at.file("t.gguf", ONE), name="m")
        assert ensured(await shown(at, "m")) == []
        assert (await provision(at, path)).name != "m"


async def test_a_name_that_another_tool_takes_at_the_last_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not take the lock, and comes between the record of the outcome and the manifest."""
    async with operations_rig(tmp_path) as at:
        write, other = writing.write, at.file("t.gguf", TWO)
        await at.services.store.add(other, name="t")
        manifests = Path(at.services.store.layout.manifests_dir)

        def late(layout: Layout, name: ModelName, document: dict[str, Any], *, replace: bool) -> None:
            if name.text == "m":
                (manifests / "m.json").write_bytes((manifests / "t.json").read_bytes())
            write(layout, name, document, replace=replace)

        monkeypatch.setattr(writing, "write", late)
        with Server(lambda asked: file_reply(asked, ONE)) as web:
            for ref in (at.file("m.gguf", ONE), f"{web.url}/m.gguf"):
                (manifests / "m.json").unlink(missing_ok=True)
                made = await provision(at, ref)
                assert made.name.startswith("m-")
                assert ensured(await shown(at, "m")) == []
                assert ensured(await shown(at, made.name)) == ["unchecked"]
