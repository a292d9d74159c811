"""What a reference names is ensured to be here, and each outcome is recorded, whatever it is."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modeld.store import Requester
from modelwire.errors import DigestMismatch, InvalidDigest, InvalidRequest, NotFound, SourceNotFound, WireError
from modelwire.knowledge.document import built
from modelwire.requests import ModelList, ModelProvision, ModelPull, ModelRegister, ModelShow
from modelwire.values import ModelView, Provenanced, Provisioned
from rigs.operations_rig import ANOTHER, OperationsRig, operations_rig
from rigs.scripted_server import Server, file_reply

ONE, TWO = b"GGUF\3\0\0\0 the bytes of one", b"GGUF\3\0\0\0 the bytes of two"
OTHER = "0" * 64


def hex_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def provision(at: OperationsRig, ref: str, **fields: Any) -> Provisioned:
    made = await at.ask(ModelProvision(ref=ref, **fields))
    assert isinstance(made, Provisioned)
    return made


async def shown(at: OperationsRig, name: str) -> ModelView:
    view = await at.ask(ModelShow(name=name))
    assert isinstance(view, ModelView)
    return view


async def recorded_mismatches(at: OperationsRig) -> list[tuple[str | None, str, str | None]]:
    """All that the history has, in their order: the model, the expected and the actual digest."""
    query = "SELECT model, expected, actual FROM outcomes WHERE outcome = 'mismatch' ORDER BY id"
    rows = await at.catalog.read(lambda db: db.execute(query).fetchall())
    return [(model or None, expected[7:], actual and actual[7:]) for model, expected, actual in rows]


def outcomes(view: ModelView) -> list[Provenanced]:
    return [each for each in view.history if each.details is not None]


async def test_a_file_without_an_expected_digest(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        path = at.file("m.gguf", ONE)
        made = await provision(at, path)
        assert (made.id, made.name, made.outcome, made.warning) == (f"local:{path}", "m", "unchecked", None)
        assert made.digest == f"sha256:{hex_of(ONE)}"
        assert Path(made.local_path).read_bytes() == ONE
        (outcome,) = outcomes(await shown(at, "m"))
        assert (outcome.outcome, outcome.expected, outcome.actual) == ("unchecked", None, made.digest)


async def test_the_record_of_an_outcome(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        path = at.file("m.gguf", ONE)
        made = await provision(at, path, sha256=hex_of(ONE))
        assert made.outcome == "match"
        (outcome,) = outcomes(await shown(at, "m"))
        assert (outcome.outcome, outcome.expected, outcome.actual) == ("match", made.digest, made.digest)
        assert outcome.details == {"id": made.id, "path": made.local_path, "algo": "sha256", "strict": True}
        assert (outcome.job, outcome.peer) == (made.job, 1000)
        assert outcome.tool is not None
        assert outcome.time


async def test_other_bytes_are_refused_when_strict(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        path = at.file("m.gguf", ONE)
        with pytest.raises(DigestMismatch):
            await provision(at, path, sha256=OTHER)
        assert Path(path).read_bytes() == ONE, "a user's own file stays where it is"
        with pytest.raises(NotFound):
            await shown(at, "m")
        await provision(at, path)
        (unchecked,) = outcomes(await shown(at, "m"))
        assert unchecked.outcome == "unchecked", "there was no model when the bytes were refused"
        assert (await shown(at, "m")).catalogue_state == "active"
        with pytest.raises(DigestMismatch):
            await provision(at, path, sha256=OTHER)
        _, refused = outcomes(await shown(at, "m"))
        assert (refused.outcome, refused.expected, refused.actual, refused.source) == (
            "mismatch",
            f"sha256:{OTHER}",
            f"sha256:{hex_of(ONE)}",
            f"local:{path}",
        )
        assert refused.details is not None
        kept = str(refused.details.get("path"))
        assert refused.details == {"id": f"local:{path}", "path": kept, "algo": "sha256", "strict": True}
        assert Path(kept).read_bytes() == ONE, "in the quarantine"
        assert (await shown(at, "m")).catalogue_state == "active"
        assert await recorded_mismatches(at) == [(None, OTHER, hex_of(ONE)), ("m", OTHER, hex_of(ONE))]


async def test_bytes_that_are_refused_for_the_name_of_another_model_are_not_in_its_history(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        path = at.file("m.gguf", ONE)
        await at.services.store.add(at.file("t.gguf", TWO), name="m")
        await at.services.store.add(at.file("t.gguf", ONE), name="same")
        with pytest.raises(DigestMismatch):
            await provision(at, path, sha256=hex_of(TWO))
        for name in ("m", "same"):
            assert [each.outcome for each in (await shown(at, name)).history] == ["added"]
        assert await recorded_mismatches(at) == [(None, hex_of(TWO), hex_of(ONE))]
        made = await provision(at, path)
        with pytest.raises(DigestMismatch):
            await provision(at, path, sha256=hex_of(TWO))
        assert (await recorded_mismatches(at))[1:] == [(made.name, hex_of(TWO), hex_of(ONE))]


async def test_a_mismatch_with_a_registered_digest(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        manifest = msgspec.to_builtins(
            built("m", "M", "llm", sha256=hex_of(TWO), download_url="https://unused.example/m")
        )
        await at.ask(ModelRegister(manifest=manifest))
        with pytest.raises(DigestMismatch) as fault:
            await provision(at, "m", sha256=OTHER)
        assert fault.value.details == {
            "name": "m",
            "expected_sha256": OTHER,
            "registered_sha256": hex_of(TWO),
        }, "nothing was read"
        assert await recorded_mismatches(at) == [(None, OTHER, None)]


async def test_other_bytes_than_those_of_a_registered_digest(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        with Server(lambda asked: file_reply(asked, ONE)) as web:
            url = f"{web.url}/m.gguf"
            manifest = msgspec.to_builtins(built("m", "M", "llm", sha256=hex_of(TWO), download_url=url))
            await at.ask(ModelRegister(manifest=manifest))
            for strict in (True, False):
                with pytest.raises(DigestMismatch):
                    await provision(at, "m", strict=strict)
            assert len([asked for asked in web.asked if asked.method == "GET"]) == 1
        # The second time nothing is read: that source is known to have other bytes.
        assert await recorded_mismatches(at) == [(None, hex_of(TWO), hex_of(ONE)), (None, hex_of(TWO), None)]


async def test_a_mismatch_of_a_name_that_stands_for_the_default_tag(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        await at.services.store.add(at.file("m.gguf", ONE), name="m:latest")
        with pytest.raises(DigestMismatch):
            await provision(at, "m", sha256=OTHER)
        await provision(at, "m", sha256=hex_of(ONE))
        assert [each.outcome for each in outcomes(await shown(at, "m:latest"))] == ["mismatch", "match"]
        assert await recorded_mismatches(at) == [("m:latest", OTHER, hex_of(ONE))]


@pytest.mark.parametrize("strict", [True, False])
async def test_a_digest_is_of_one_file(tmp_path: Path, strict: bool) -> None:
    async with operations_rig(tmp_path) as at:
        directory = tmp_path / "several"
        directory.mkdir()
        (directory / "a.gguf").write_bytes(ONE)
        (directory / "config.json").write_bytes(b"{}")
        await at.services.store.add(str(directory), name="s")
        first = (await shown(at, "s")).blob.removeprefix("sha256:")
        for ref in ("s", str(directory)):
            with pytest.raises(InvalidRequest, match=r"\$\.sha256: .* is a model of 2 files, and a digest is of one"):
                await provision(at, ref, sha256=first, strict=strict)
        with pytest.raises(InvalidRequest, match="a digest is of one"):
            await at.ask(ModelPull(ref="s", sha256=first))
        assert (await provision(at, "s")).outcome == "unchecked"
        assert await recorded_mismatches(at) == []


async def test_other_bytes_are_stored_with_a_warning_when_not_strict(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        path = at.file("m.gguf", ONE)
        made = await provision(at, path, sha256=OTHER, strict=False)
        assert (made.outcome, made.digest) == ("mismatch", f"sha256:{hex_of(ONE)}")
        assert made.warning is not None
        assert made.digest in made.warning
        assert OTHER in made.warning
        assert Path(made.local_path).read_bytes() == ONE
        view = await shown(at, "m")
        assert (view.state, view.catalogue_state) == ("ready", "failed")
        assert view.node is not None
        assert (view.node["status"], view.node["local_path"]) == ("ready", made.local_path)
        assert OTHER in (view.reason or "")
        (listed,) = (await at.ask(ModelList())).models
        assert (listed.catalogue_state, listed.reason) == ("failed", view.reason)
        await provision(at, path, sha256=hex_of(ONE))
        view = await shown(at, "m")
        assert (view.catalogue_state, view.reason) == ("active", None)


async def test_a_name_follows_its_own_reference_and_no_other(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        path = at.file("m.gguf", ONE)
        first = await provision(at, path)
        at.file("m.gguf", TWO)
        again = await provision(at, path)
        assert (first.name, again.name) == ("m", "m")
        assert Path(again.local_path).read_bytes() == TWO
        (tmp_path / "other").mkdir()
        other = tmp_path / "other" / "m.gguf"
        other.write_bytes(ONE)
        apart = await provision(at, str(other))
        assert apart.name.startswith("m-")
        assert (await provision(at, str(other))).name == apart.name
        assert (await shown(at, "m")).blob == again.digest


async def test_a_model_that_a_user_has_named_is_not_replaced(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        path = at.file("m.gguf", ONE)
        await at.services.store.add(path, name="m")
        made = await provision(at, path)
        assert made.name != "m"
        at.file("m.gguf", TWO)
        assert (await provision(at, path)).name == made.name
        assert (await shown(at, "m")).blob == made.digest


async def test_a_name_in_the_store(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        await at.services.store.add(at.file("m.gguf", ONE), name="m:tag")
        made = await provision(at, "m:tag", sha256=hex_of(ONE))
        assert (made.id, made.name, made.outcome) == ("m:tag", "m:tag", "match")
        with pytest.raises(DigestMismatch):
            await provision(at, "m:tag", sha256=OTHER)
        assert (await provision(at, "m:tag", sha256=OTHER, strict=False)).outcome == "mismatch"
        assert [each.outcome for each in outcomes(await shown(at, "m:tag"))] == ["match", "mismatch", "mismatch"]


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"ref": "/nothing.gguf"}, SourceNotFound),
        ({"ref": "nothing"}, NotFound),
        ({"ref": ""}, WireError),
        ({"ref": "nothing", "sha256": "no"}, InvalidDigest),
    ],
)
async def test_what_is_not_there(tmp_path: Path, fields: dict[str, Any], fault: type[WireError]) -> None:
    async with operations_rig(tmp_path) as at:
        with pytest.raises(fault):
            await at.ask(msgspec.convert(fields, ModelProvision, str_keys=True))


async def test_a_long_name_keeps_room_for_what_is_its_own(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        long = "n" * 128
        await at.services.store.add(at.file("m.gguf", ONE), name=long)
        made = await provision(at, at.file(f"{long}.gguf", TWO))
        assert len(made.name) == 109
        assert made.name.startswith("n" * 100 + "-")


async def test_a_file_that_has_changed_is_read_although_the_expected_bytes_are_here(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        path = at.file("m.gguf", ONE)
        await provision(at, path, sha256=hex_of(ONE))
        at.file("m.gguf", TWO)
        with pytest.raises(DigestMismatch):
            await provision(at, path, sha256=hex_of(ONE))
        last = outcomes(await shown(at, "m"))[-1]
        assert (last.outcome, last.actual) == ("mismatch", f"sha256:{hex_of(TWO)}")


async def test_the_name_follows_also_after_a_mismatch(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        path = at.file("m.gguf", ONE)
        await provision(at, path, sha256=hex_of(ONE))
        at.file("m.gguf", TWO)
        with pytest.raises(DigestMismatch):
            await provision(at, path, sha256=hex_of(ONE))
        assert (await provision(at, path, sha256=hex_of(TWO))).name == "m"


async def test_a_mismatch_stays_until_the_same_reference_matches(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        path = at.file("m.gguf", ONE)
        await provision(at, path, sha256=OTHER, strict=False)
        with pytest.raises(DigestMismatch):
            await provision(at, path, sha256=OTHER)
        await provision(at, path)
        await provision(at, "m", sha256=hex_of(ONE))
        assert (await shown(at, "m")).catalogue_state == "failed"
        await provision(at, path, sha256=hex_of(ONE))
        assert (await shown(at, "m")).catalogue_state == "active"


async def test_what_another_user_expects_says_nothing_of_a_model(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        await at.services.store.add(at.file("m.gguf", ONE), name="m", requester=Requester(peer=1000))
        await at.ask(ModelProvision(ref="m", sha256=OTHER, strict=False), ANOTHER)
        assert (await shown(at, "m")).catalogue_state == "active"


async def test_a_license_is_kept(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        path = at.file("m.gguf", ONE)
        await provision(at, path)
        await at.services.store.add(path, name="m", license="mit", replace=True)
        assert (await provision(at, path)).name == "m"
        assert (await shown(at, "m")).license == "mit"
