"""A model belongs to the user who named it: who may move, remove and replace it, and what keeps its owner."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from modeld.progress import JobProgress
from modeld.store import Requester
from modeld.store.digest import Digest
from modeld.store.manifests.entries import Entry
from modeld.store.manifests.manifests import Manifest
from modeld.store.manifests.registrations import Registration
from modeld.store.names import ModelName
from modeld.store.publish.owners import check_registrant
from modeld.store.publish.publishing import PublishRequest, judge
from modelwire.errors import AlreadyExists, PermissionDenied
from rigs.maintain_rig import Bench
from rigs.waiting import eventually

ADA, BEN = Requester(peer=1001), Requester(peer=1002)
ADMIN = Requester(peer=1003, all_models=True)

Change = Callable[[Bench, Requester], Awaitable[Any]]

CHANGES: dict[str, Change] = {
    "mv": lambda bench, who: bench.store.renaming.move("m", "n", requester=who),
    "rm": lambda bench, who: bench.store.renaming.remove("m", requester=who),
    "rm --force": lambda bench, who: bench.store.renaming.remove("m", force=True, requester=who),
    "add --replace": lambda bench, who: bench.add("m", b"GGUF other", replace=True, requester=who),
}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


@pytest.fixture(params=CHANGES)
def change(request: pytest.FixtureRequest) -> Change:
    return CHANGES[request.param]


async def test_another_user_cannot_change_what_a_name_stands_for(bench: Bench, change: Change) -> None:
    await bench.add("m", requester=ADA)
    before = Path(bench.manifest("m")).read_bytes()
    with pytest.raises(PermissionDenied, match="by uid 1002: it belongs to uid 1001") as fault:
        await change(bench, BEN)
    hint = fault.value.hint or ""
    assert "shared_names" in hint
    assert ("or use another name" in hint) == (change is CHANGES["add --replace"])
    assert (fault.value.details["owner"], fault.value.details["uid"]) == (1001, 1002)
    assert bench.names() == ["m"]
    assert Path(bench.manifest("m")).read_bytes() == before
    assert bench.staged() == []


@pytest.mark.parametrize("who", [ADA, ADMIN, Requester()], ids=["owner", "admin", "daemon"])
async def test_its_owner_and_an_admin_can(bench: Bench, change: Change, who: Requester) -> None:
    await bench.add("m", requester=ADA)
    manifest = Path(bench.manifest("m"))
    before = manifest.read_bytes()
    await change(bench, who)
    assert not manifest.exists() or manifest.read_bytes() != before


@pytest.mark.parametrize("said", [None, "ada", True, -1, 2**32 - 1, 2**70, 1.0, [1001], {"uid": 1001}])
async def test_a_model_whose_owner_is_not_known_is_for_admins(bench: Bench, change: Change, said: Any) -> None:
    """Of a store from before owners, or of another tool, which may write anything."""
    await bench.add("m", requester=ADA)
    document = bench.document("m") | {"owner_uid": said}
    Path(bench.manifest("m")).write_text(json.dumps(document))
    assert (await bench.store.models.show("m")).owner is None
    with pytest.raises(PermissionDenied, match="does not say who owns it"):
        await change(bench, ADA)
    await change(bench, ADMIN)


async def test_a_damaged_manifest_has_no_owner(bench: Bench) -> None:
    await bench.add("m", requester=ADA)
    Path(bench.manifest("m")).write_text("{")
    for refused in (CHANGES["rm"], CHANGES["add --replace"]):
        with pytest.raises(PermissionDenied, match="does not say who owns it"):
            await refused(bench, ADA)
    await bench.add("m", replace=True, requester=ADMIN)
    assert bench.document("m")["owner_uid"] == ADMIN.peer


async def test_a_lost_catalogue_gives_no_model_away(bench: Bench, change: Change) -> None:
    await bench.add("m", requester=ADA)
    bench.close()
    for file in os.listdir(os.path.dirname(bench.layout.catalog_path)):
        if file.startswith(os.path.basename(bench.layout.catalog_path)):
            os.unlink(os.path.join(os.path.dirname(bench.layout.catalog_path), file))
    bench.open()
    with pytest.raises(PermissionDenied, match="belongs to uid 1001"):
        await change(bench, BEN)
    await change(bench, ADA)


async def test_no_byte_is_read_for_a_replacement_that_is_not_allowed(bench: Bench, tmp_path: Path) -> None:
    """Also of the same size, where only the digest would show another content."""
    await bench.add("m", b"GGUF one", requester=ADA)
    source, read = tmp_path / "other.gguf", JobProgress()
    source.write_bytes(b"GGUF two")
    with pytest.raises(PermissionDenied):
        await bench.store.add(str(source), name="m", replace=True, requester=BEN, progress=read)
    assert read.snapshot().verified_bytes == 0
    assert len(bench.blobs()) == 1


async def test_other_bytes_without_replace_say_whose_the_name_is(bench: Bench) -> None:
    await bench.add("m", requester=ADA)
    with pytest.raises(AlreadyExists) as fault:
        await bench.add("m", b"GGUF other", requester=BEN)
    assert fault.value.hint == "Choose another name: uid 1001 owns it."


async def test_the_same_bytes_under_the_same_name_are_success_for_everybody(bench: Bench) -> None:
    await bench.add("m", requester=ADA)
    before = Path(bench.manifest("m")).read_bytes()
    assert (await bench.add("m", requester=BEN)).reused
    assert Path(bench.manifest("m")).read_bytes() == before


@pytest.mark.parametrize("taken", list(CHANGES))
async def test_the_owner_is_checked_again_in_the_publishers_turn(bench: Bench, tmp_path: Path, taken: str) -> None:
    """Between the first look and the turn another user got the name."""
    await bench.add("m", b"GGUF mine", requester=BEN)
    publishing = bench.store.ingest.publishing
    faults: list[BaseException] = []

    async def change() -> None:
        try:
            await CHANGES[taken](bench, BEN)
        except PermissionDenied as fault:
            faults.append(fault)

    async with anyio.create_task_group() as tasks, publishing.publisher.turn(0):
        tasks.start_soon(change)
        await eventually(lambda: publishing.publisher._waiting)
        document = bench.document("m") | {"owner_uid": ADA.peer}
        fresh = tmp_path / "fresh.json"
        fresh.write_text(json.dumps(document))
        os.replace(fresh, bench.manifest("m"))
    assert len(faults) == 1
    assert bench.document("m")["owner_uid"] == ADA.peer


# -- whose it is


async def test_who_names_a_model_owns_it_and_show_says_so(bench: Bench) -> None:
    await bench.add("m", requester=ADA)
    assert bench.document("m")["owner_uid"] == 1001
    assert (await bench.store.models.show("m")).owner == 1001


async def test_a_copy_belongs_to_who_made_it(bench: Bench) -> None:
    await bench.add("m", requester=ADA)
    planned = bench.store.renaming.plan_copy("m", "n", BEN)
    copied = await bench.store.renaming.copy("m", "n", requester=BEN)
    assert copied == planned, "the plan has the size of the manifest with its owner"
    assert (bench.document("m")["owner_uid"], bench.document("n")["owner_uid"]) == (1001, 1002)


async def test_a_model_that_an_admin_moves_or_replaces_keeps_its_owner(bench: Bench) -> None:
    await bench.add("m", requester=ADA)
    await bench.store.renaming.move("m", "n", requester=ADMIN)
    await bench.add("n", b"GGUF other", replace=True, requester=ADMIN)
    assert bench.document("n")["owner_uid"] == 1001


async def test_a_removed_name_is_free_for_everybody(bench: Bench) -> None:
    await bench.add("m", requester=ADA)
    await bench.store.renaming.remove("m", requester=ADA)
    await bench.add("m", requester=BEN)
    assert bench.document("m")["owner_uid"] == 1002


# -- a name that stands for another one


@pytest.mark.parametrize("verb", ["add", "cp", "mv"])
async def test_no_new_name_hides_the_default_tag_of_another_user(bench: Bench, verb: str) -> None:
    """`x` means `x:latest` while there is no `x`: with one of its own, a user would give others other bytes."""
    await bench.add("x:latest", requester=ADA)
    await bench.add("own", b"GGUF own", requester=BEN)

    async def take(who: Requester) -> None:
        match verb:
            case "add":
                await bench.add("x", b"GGUF hides", requester=who)
            case "cp":
                await bench.store.renaming.copy("own", "x", requester=who)
            case "mv":
                await bench.store.renaming.move("own", "x", requester=who)

    with pytest.raises(PermissionDenied, match="'x:latest' of uid 1001"):
        await take(BEN)
    assert bench.store.index.resolve("x").name == "x:latest"
    await bench.add("x:q4", b"GGUF hides", requester=BEN)
    await take(ADMIN)
    assert bench.store.index.resolve("x").name == "x"


# -- what a pull follows

DIGEST, OTHER = Digest("ab" * 32), Digest("cd" * 32)


def following(who: Requester) -> PublishRequest:
    return PublishRequest(
        name=ModelName.parse("m"),
        provenance="a test",
        order=0,
        progress=JobProgress(),
        replace=True,
        follows=True,
        requester=who,
    )


def standing() -> Entry:
    manifest = Manifest(schema_version=1, blob=DIGEST.text, size_bytes=5, owner_uid=ADA.peer)
    return Entry(ModelName.parse("m"), "/p", (0, 0, 0, 0), True, manifest, None)


def test_a_pull_by_the_reference_of_a_name_replaces_only_for_its_owner() -> None:
    assert judge(standing(), following(ADA), OTHER) is False
    with pytest.raises(PermissionDenied, match="belongs to uid 1001"):
        judge(standing(), following(BEN), OTHER)


def test_a_pull_by_the_reference_of_anothers_name_finds_the_same_bytes() -> None:
    assert judge(standing(), following(BEN), DIGEST) is True


def test_what_nobody_known_has_registered_is_for_admins() -> None:
    registration = Registration(name="m", written=msgspec.Raw(b"{}"), owner_uid=None)
    check_registrant(registration, ADMIN, "removed")
    with pytest.raises(PermissionDenied, match="who registered it is not known") as fault:
        check_registrant(registration, ADA, "removed")
    assert "Ask a user with the role admin to do it" in (fault.value.hint or "")
