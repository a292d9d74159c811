"""Ids of models: how a file is registered under one, and what a text means that is no name."""

from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from modeld.operations.model_add import Add
from modeld.operations.model_ids import NAMES
from modeld.store import Digest, ModelName, Requester
from modeld.store.names import LONGEST_ID, MOST_IDS
from modelwire.encoding import encode
from modelwire.errors import (
    AlreadyExists,
    DigestMismatch,
    InvalidName,
    InvalidRequest,
    NotFound,
    Offline,
    PermissionDenied,
    QuotaExceeded,
)
from modelwire.limits import MAX_REPLY
from modelwire.operations import OPERATIONS
from modelwire.replies import Result
from modelwire.requests import (
    LeaseAcquire,
    ModelAdd,
    ModelCopy,
    ModelFit,
    ModelList,
    ModelMove,
    ModelPin,
    ModelProvision,
    ModelPull,
    ModelRemove,
    ModelRepair,
    ModelResolve,
    ModelShow,
    ModelUnpin,
    ModelVerify,
    ModelVerifySignature,
    Request,
)
from rigs.ids_rig import CONTENT, DIGITS, ID, manifest, path_of, register, rewrite, show
from rigs.operations_rig import ANOTHER, MINE, NotingCall, operations_rig

GIVES_A_NAME = {ModelAdd: "name", ModelPull: "name", ModelProvision: "name"}
"""Requests whose field names a model that is to be made."""


def test_every_field_with_the_name_of_a_model_is_known() -> None:
    for row in OPERATIONS.values():
        if row.capability in ("jobs", "events", "core"):
            continue
        named = {"name", "names", "source"} & set(row.request.__struct_fields__)
        known = {NAMES[row.request]} if row.request in NAMES else {GIVES_A_NAME.get(row.request, "name")}
        assert named <= known, row.name


async def test_a_file_becomes_known_by_an_id(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        added = await register(at, sha256=DIGITS)
        assert (added.name, added.blob) == ("m", f"sha256:{DIGITS}")
        assert json.loads(manifest(at, "m").read_text())["ids"] == [ID]
        view = await show(at, ID)
        assert (view.name, view.ids) == ("m", (ID,))
        (past,) = [each for each in view.history if each.outcome == "registered"]
        assert (past.actual, past.peer) == (f"sha256:{DIGITS}", MINE.uid)
        assert past.details == {"id": ID, "path": str(at.room / "m.gguf")}


REQUESTS: list[Request] = [
    LeaseAcquire(name=ID),
    ModelCopy(source=ID, destination="copy"),
    ModelFit(name=ID),
    ModelMove(source=ID, destination="moved"),
    ModelPin(name=ID),
    ModelProvision(ref=ID),
    ModelPull(ref=ID),
    ModelRemove(name=ID),
    ModelRepair(names=(ID,)),
    ModelResolve(name=ID),
    ModelShow(name=ID),
    ModelUnpin(name=ID),
    ModelVerify(names=("m", ID)),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: type(request).__name__)
async def test_the_id_is_accepted_wherever_a_model_is_named(tmp_path: Path, request_: Request) -> None:
    async with operations_rig(tmp_path) as at:
        await register(at)
        done: Any = await at.operations.slow[type(request_)](NotingCall(MINE), request_)
        names = {
            each
            for each in (getattr(done, "source", None), getattr(done, "name", None))
            if isinstance(each, str)  # the source of a pull is the name too
        }
        if isinstance(request_, ModelVerify):
            assert [each.name for each in done.models] == ["m"]
        elif isinstance(request_, ModelRepair):
            assert done.checked == 1
        else:
            assert "m" in names


async def test_a_signature_is_verified_by_the_id(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        await register(at)
        request = ModelVerifySignature(name=ID, signature="{}", key="no key")
        with pytest.raises(Exception, match="'m'"):
            await at.ask(request)


async def test_every_request_of_the_table_is_tried() -> None:
    assert {type(each) for each in REQUESTS} | {ModelVerifySignature} == {*NAMES, ModelPull, ModelProvision}


async def test_an_id_of_no_model_is_no_name_either(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        with pytest.raises(InvalidName) as fault:
            await show(at, "no/model")
        assert "No model is known by it" in (fault.value.hint or "")
        await register(at)
        await at.ask(ModelRemove(name=ID))
        with pytest.raises(InvalidName):
            await show(at, ID)


@pytest.mark.parametrize("operation", [ModelCopy, ModelMove])
async def test_an_id_is_no_new_name(tmp_path: Path, operation: type[ModelCopy | ModelMove]) -> None:
    async with operations_rig(tmp_path) as at:
        await register(at)
        await at.services.store.add(at.file("b.gguf", CONTENT), name="b")
        with pytest.raises(InvalidName):
            await at.ask(operation(source="b", destination=ID))
        with pytest.raises(InvalidName):
            await at.ask(ModelAdd(path=at.file("c.gguf"), name=ID))


async def test_a_rename_keeps_it_and_a_copy_has_none(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        await register(at)
        await at.ask(ModelCopy(source="m", destination="copy"))
        assert (await show(at, "copy")).ids == ()
        await at.ask(ModelMove(source="m", destination="moved"))
        assert await path_of(at, ID) == "moved"


async def test_an_update_of_the_name_keeps_it(tmp_path: Path) -> None:
    """As a rename does: users of the id follow the name to its new version."""
    async with operations_rig(tmp_path) as at:
        await register(at)
        await register(at, "its/own", file="v2.gguf", content=CONTENT + b"!")
        point, mine = at.services.store.pointing.point, Requester(peer=MINE.uid)
        newer = (await show(at, "v2")).blob
        await point("m", "v2", newer, requester=mine)
        assert (await show(at, ID)).blob == (await show(at, "v2")).blob
        assert ((await show(at, "m")).ids, (await show(at, "v2")).ids) == ((ID,), ("its/own",))
        await point("v2", "m", newer, requester=mine)
        await point("new", "m", newer, requester=mine)
        assert (await show(at, "new")).ids == ()


async def test_other_bytes_under_the_name_do_not_have_it(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        await register(at)
        await at.ask(ModelAdd(path=at.file("new.gguf", CONTENT + b"!"), name="m", replace=True))
        assert (await show(at, "m")).ids == ()
        with pytest.raises(InvalidName):
            await show(at, ID)


async def test_an_id_that_is_a_name_is_the_name(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        assert (await register(at, "llama:8b")).name == "llama:8b"
        assert (await show(at, "llama:8b")).ids == ()
        with pytest.raises(InvalidRequest, match="is a valid name"):
            await register(at, "llama:8b", name="other")
        assert (await register(at, "llama:8b", name="llama:8b")).reused
        with pytest.raises(AlreadyExists, match="cannot be registered as 'llama:8b'"):
            await register(at, "llama:8b", file="n.gguf", content=CONTENT + b"!")


async def test_again(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        await register(at)
        before = manifest(at, "m").read_bytes()
        assert (await register(at, path=str(at.room / "m.gguf"))).reused
        assert (await register(at, file="same bytes.gguf")).name == "m"
        assert manifest(at, "m").read_bytes() == before
        with pytest.raises(AlreadyExists, match="cannot be registered as 'my-org/my model'") as fault:
            await register(at, file="other.gguf", content=CONTENT + b"!")
        assert fault.value.details["existing"] == f"sha256:{DIGITS}"
        with pytest.raises(AlreadyExists, match="is the id of 'm' already"):
            await register(at, file="other.gguf", name="other")
        assert manifest(at, "m").read_bytes() == before


async def test_other_bytes_than_those_of_the_digest(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        await at.services.store.add(at.file("here.gguf", CONTENT), name="here")
        with pytest.raises(DigestMismatch) as fault:
            await register(at, content=CONTENT + b"!", sha256=DIGITS)
        assert fault.value.exit_code == 6
        assert os.listdir(at.services.store.layout.manifests_dir) == ["here.json"]
        assert os.access(at.room / "m.gguf", os.R_OK)


async def test_a_taken_name_gets_a_suffix_of_the_id(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        await at.services.store.add(at.file("first.gguf", CONTENT), name="m")
        own = sha256(f"{MINE.uid} {ID}".encode()).hexdigest()[:8]
        assert (await register(at, content=CONTENT + b"!")).name == f"m-{own}"
        assert (await register(at, content=CONTENT + b"!", file="again.gguf")).name == f"m-{own}"
        assert (await show(at, "m")).blob == f"sha256:{DIGITS}"


async def test_the_id_is_added_to_a_model_of_the_same_bytes(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        await at.ask(ModelAdd(path=at.file("m.gguf", CONTENT), name="m", license="mit"))
        rewrite(at, "m", note="another tool's")
        before = json.loads(manifest(at, "m").read_text())
        assert (await register(at, name="m", path=at.file("again.gguf", CONTENT))).name == "m"
        assert json.loads(manifest(at, "m").read_text()) == before | {"ids": [ID]}
        await register(at, "a/second", name="m")
        assert (await show(at, "a/second")).ids == (ID, "a/second")


async def test_they_are_not_without_number_or_length(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        for number in range(MOST_IDS):
            await register(at, f"id/{number}", name="m")
        with pytest.raises(QuotaExceeded, match=f"'m' has {MOST_IDS} ids"):
            await register(at, "one/more", name="m")
        for wrong in ("", "  ", "a/\0", "a/\n", "a/" + "x" * LONGEST_ID):
            with pytest.raises(InvalidRequest, match="known_as"):
                await register(at, wrong)
        assert (await register(at, "local:/" + "x" * 4094, name="long")).name == "long"


@pytest.mark.parametrize("field", [None, "no list", 7, {"a": 1}, [1, None, "good/id", ["x"], "", "a-name", "bad\n/"]])
async def test_what_other_tools_write_into_the_field(tmp_path: Path, field: Any) -> None:
    async with operations_rig(tmp_path) as at:
        await at.ask(ModelAdd(path=at.file("m.gguf", CONTENT), name="m"))
        rewrite(at, "m", ids=field)
        known = ("good/id",) if isinstance(field, list) else ()
        assert (await show(at, "m")).ids == known
        for id_ in known:
            assert await path_of(at, id_) == "m"
        with pytest.raises(NotFound):
            await path_of(at, "a-name")
        await at.ask(ModelPin(name="m"))
        assert json.loads(manifest(at, "m").read_text())["ids"] == field, "it is kept"
        await register(at, name="m")
        assert (await show(at, ID)).ids == (*known, ID)


async def test_a_reference_with_a_place_of_its_own_keeps_its_meaning(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        path = at.file("m.gguf", CONTENT)
        await register(at, f"local:{path}", path=path)
        os.unlink(path)
        assert (await at.ask(ModelPull(ref=path))).name == "m"
        other = at.file("m.gguf", CONTENT + b"!")
        assert (await at.ask(ModelPull(ref=f"local:{other}", name="other"))).blob != f"sha256:{DIGITS}"
        await register(at, "hf:org/repo/m.gguf", name="hub")
        with pytest.raises(Offline):
            await at.ask(ModelPull(ref="hf:org/repo/m.gguf", name="x", offline=True))


async def test_who_may_not_link(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        with pytest.raises(PermissionDenied, match="cannot be linked") as fault:
            await at.ask(ModelAdd(path=at.file("m.gguf", CONTENT), known_as=ID, link=True), ANOTHER)
        assert "modelctl add" in (fault.value.hint or "")


async def test_a_job_took_place_when_the_model_has_the_id(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        added = await at.ask(ModelAdd(path=at.file("m.gguf", CONTENT), name="m"))
        request = ModelAdd(path=str(at.room / "m.gguf"), name="m", known_as=ID)
        assert not at.of(Add).took_place(request, added)
        await register(at, name="m")
        assert at.of(Add).took_place(request, added)


async def test_what_was_registered_is_not_taken_for_what_a_reference_gave(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        await register(at, "hf:org/repo/m.gguf")
        history = at.services.store.history
        digest = Digest(DIGITS)
        assert not await history.made_for(ModelName.parse("m"), "hf:org/repo/m.gguf", digest)


async def test_a_list_with_many_long_ids_fits_into_replies(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        await at.ask(ModelAdd(path=at.file("m.gguf", CONTENT), name="m"))
        long = ["\u2603/" + str(number) + "x" * (LONGEST_ID - 10) for number in range(MOST_IDS)]
        document = json.loads(manifest(at, "m").read_text()) | {"ids": long}
        for number in range(80):
            manifest(at, f"n{number}").write_text(json.dumps(document))
        seen, after = [], None
        while True:
            page = await at.ask(ModelList(after=after))
            assert len(encode(Result(id="1", value=page))) < MAX_REPLY
            seen += [view.name for view in page.models]
            if (after := page.next) is None:
                break
        assert len(seen) == 81
        assert (await show(at, "n7")).ids == tuple(long)
