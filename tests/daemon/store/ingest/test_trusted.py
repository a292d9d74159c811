"""Adds of files for which a signature is required: what gets a name, what is refused, and that nothing passes by."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from modeld.progress import JobProgress, Stopped
from modeld.signatures.faults import SignatureFault
from modeld.store import Digest
from modeld.store.blobs.blobs import require_blob
from modeld.store.ingest import trusted
from modelwire.errors import Untrusted, WireError
from rigs.signed_shop import FILES, ONE, Shop
from rigs.signers import Json, new_key, public_pem, resources_of, statement


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    made = Shop(tmp_path)
    yield made
    made.close()


async def test_a_signed_directory_gets_a_name_and_its_proof_joins_the_history(shop: Shop) -> None:
    signature = shop.of(FILES)
    added = await shop.add(shop.put({**FILES, "model.sig": signature}))
    assert {file.path for file in added.files} == {*FILES, "model.sig"}
    (proof,) = await shop.outcomes()
    assert proof["signature"] == f"sha256:{hashlib.sha256(signature).hexdigest()}"
    assert proof["signer"] == hashlib.sha256(public_pem(shop.key)).hexdigest()
    assert (proof["by"], proof["read"]) == ("key", False)
    assert proof["content"] == shop.store.index.find("x").usable().content
    assert proof["required_by"].startswith("rule 1 ")


async def test_what_no_rule_matches_needs_none(shop: Shop, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(ONE)
    await shop.add(str(other))
    assert await shop.outcomes() == []


async def test_a_signature_that_the_request_gives(shop: Shop) -> None:
    await shop.refused(shop.put(FILES), "missing")
    await shop.add(shop.put(FILES), shop.of(FILES))
    assert len(await shop.outcomes()) == 1


@pytest.mark.parametrize("name", ["one.gguf.sig", "model.sig"])
@pytest.mark.parametrize("listed", [".", "one.gguf"])
async def test_a_signature_beside_one_file(shop: Shop, name: str, listed: str) -> None:
    path = shop.one()
    (shop.models / name).write_bytes(shop.of({listed: ONE, **({} if listed == "." else {"two.gguf": b"2"})}))
    assert not (await shop.add(path)).files


async def test_a_signature_beside_a_set_of_shards(shop: Shop) -> None:
    files = {f"m-0000{number}-of-00002.gguf": ONE + bytes([number]) for number in (1, 2)}
    path = [shop.one(content, name) for name, content in files.items()][-1]
    await shop.refused(path, "missing")
    (shop.models / "model.sig").write_bytes(shop.of(files))
    assert len((await shop.add(path)).files) == 2


async def test_the_nearest_signature_counts(shop: Shop) -> None:
    path = shop.one()
    (shop.models / "model.sig").write_bytes(shop.of({".": ONE}))
    (shop.models / "one.gguf.sig").write_bytes(shop.of({".": b"another"}))
    await shop.refused(path, "changed")


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"config.json": b"{}"}, "changed"),
        ({"new.py": b"import os"}, "unsigned"),
        ({".": b""}, "missing"),
        ({"sub/.hidden": b""}, None),
    ],
    ids=["changed", "unsigned", "missing", "hidden"],
)
async def test_files_that_differ(shop: Shop, change: dict[str, bytes], rule: str | None) -> None:
    signature = shop.of(FILES)
    files = dict(list(FILES.items())[1:]) if "." in change else {**FILES, **change}
    path = shop.put({**files, "model.sig": signature})
    if rule is None:
        await shop.add(path)  # what an add leaves out is not published
    else:
        fault = await shop.refused(path, rule)
        assert fault.details[rule] == [*dict.fromkeys(["config.json"] if rule != "unsigned" else change)]


async def test_a_signer_who_is_not_named(shop: Shop) -> None:
    await shop.refused(shop.put({**FILES, "model.sig": shop.of(FILES, new_key())}), "key")
    await shop.refused(shop.put(FILES, "n"), "key", shop.of(FILES, new_key()))


@pytest.mark.parametrize(("content", "rule"), [(b"", "empty"), (b"{", "json"), (b"{}", "structure"), (b"\xff", "json")])
async def test_a_signature_that_is_none(shop: Shop, content: bytes, rule: str) -> None:
    await shop.refused(shop.put({**FILES, "model.sig": content}), rule)


async def test_a_signature_that_is_too_long_is_not_read_to_its_end(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shop.one()
    with (shop.models / "one.gguf.sig").open("wb") as file:
        file.truncate(1 << 40)
    assert "bytes" in (await shop.refused(path, "size")).message


async def test_a_key_that_was_taken_away_verifies_nothing_any_more(shop: Shop) -> None:
    path = shop.put({**FILES, "model.sig": shop.of(FILES)})
    os.rename(shop.pem, f"{shop.pem}.away")
    assert "no such file" in (await shop.refused(path, "signer")).message
    os.rename(f"{shop.pem}.away", shop.pem)
    await shop.add(path)
    shop.pem.write_bytes(public_pem(new_key()))
    with pytest.raises(Untrusted):
        await shop.add(path)
    assert (await shop.store.models.show("x")).name == "x", "what has its name keeps it"


async def test_without_the_package_nothing_gets_a_name(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> object:
        raise SignatureFault("cryptography", "verifying signatures needs the package `cryptography`")

    monkeypatch.setattr("modeld.signatures.rules.signed_model", missing)
    fault = await shop.refused(shop.put({**FILES, "model.sig": shop.of(FILES)}), "cryptography")
    assert "extra" in str(fault.hint)


@pytest.mark.parametrize("how", ["copy", "move", "link"])
async def test_no_way_to_add_passes_by(shop: Shop, how: Any) -> None:
    path = shop.put(FILES)
    await shop.refused(path, "missing", how=how)
    await shop.refused(path, "changed", shop.of({**FILES, "config.json": b"{}"}), how=how)
    assert sorted(os.listdir(path)) == sorted(FILES), "a move that was refused takes nothing away"
    await shop.add(path, shop.of(FILES), how=how)
    assert os.path.exists(path) is (how != "move")


async def test_bytes_that_are_here_already_and_a_replacement_do_not_pass_by(shop: Shop, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(ONE)
    await shop.store.add(str(other), name="here", formats="force_format")
    path = shop.one()
    await shop.refused(path, "missing")
    await shop.refused(path, "missing", sha256=hashlib.sha256(ONE).hexdigest())
    for replace in (False, True):
        with pytest.raises(Untrusted):
            await shop.store.add(path, name="here", formats="force_format", replace=replace)


async def test_copies_and_new_names_of_a_model_need_no_signature(shop: Shop) -> None:
    await shop.add(shop.one(), shop.of({".": ONE}))
    await shop.store.renaming.copy("x", "y")
    await shop.store.renaming.move("y", "z")
    assert (await shop.store.models.show("z")).name == "z"


@pytest.mark.parametrize("hidden", [".github/evil.gguf", ".git/evil.gguf", "left-out/evil.gguf"])
async def test_what_signers_leave_out_is_let_in_by_nobody(shop: Shop, hidden: str) -> None:
    """A source that is not the signer's could put anything there."""
    blob = (await shop.store.add(_file(shop.room, ONE), name="there", formats="force_format")).blob
    content = _blob(shop, blob)
    for files in ({hidden: content}, {hidden: content, "m.gguf": content}):
        for payload in (
            statement(resources_of({"m.gguf": ONE}), ignore_paths=["left-out"]),
            statement(resources_of({".": ONE}), ignore_paths=["left-out"]),
        ):
            origin = trusted.Origin(reference="r", spellings=(f"local:{shop.models}/x",), signature=shop.sign(payload))
            with pytest.raises(Untrusted) as caught:
                _check(shop, origin, files)
            assert caught.value.details["rule"] == "unsigned"


async def test_files_of_git_at_the_top_need_no_signature_and_are_no_model_alone(shop: Shop) -> None:
    content = _blob(shop, (await shop.store.add(_file(shop.room, ONE), name="there", formats="force_format")).blob)
    origin = trusted.Origin(reference="r", spellings=(f"local:{shop.models}/x",), signature=shop.of({"m.gguf": ONE}))
    assert _check(shop, origin, {"m.gguf": content, ".gitattributes": content}) is not None
    for files in ({".gitattributes": content}, {"sub/.gitattributes": content, "m.gguf": content}):
        with pytest.raises(Untrusted):
            _check(shop, origin, files)


async def test_another_signature_among_the_files_is_a_file_like_others(shop: Shop) -> None:
    await shop.refused(shop.put({**FILES, "model.sig": b"{}"}), "unsigned", shop.of(FILES))


async def test_bytes_without_a_place_are_those_of_a_model_that_is_here(shop: Shop) -> None:
    there = shop.room / "there"
    there.mkdir()
    for path, content in {"m.gguf": ONE, "model.sig": ONE + b"!"}.items():
        (there / path).write_bytes(content)
    signed, unsigned = (hashlib.sha256(content).hexdigest() for content in (ONE, ONE + b"!"))
    origin = trusted.Origin(reference="mine", spellings=("mine",), placeless=True)
    await shop.store.add(str(there), name="there", formats="force_format")
    assert _check(shop, origin, {"mine": _blob(shop, f"sha256:{signed}")}) is None
    for digest, named in ((unsigned, True), (signed, False)):
        if not named:
            await shop.store.renaming.remove("there")
        with pytest.raises(Untrusted) as caught:
            _check(shop, origin, {"mine": _blob(shop, f"sha256:{digest}")})
        assert caught.value.details == {"reference": "mine", "rule": "unnamed", "blobs": [f"sha256:{digest}"]}
        assert caught.value.hint
    placed = trusted.Origin(reference="https://h/m", spellings=("https://h/m",))
    assert _check(shop, placed, {"mine": _blob(shop, f"sha256:{signed}")}) is None


@pytest.mark.parametrize("form", ["shards", "blake2b"])
@pytest.mark.parametrize("here", [True, False])
async def test_bytes_are_read_where_the_signature_has_no_sha256_of_them(shop: Shop, form: str, here: bool) -> None:
    content = bytes(range(256)) * 40_000
    if here:
        await shop.store.add(_file(shop.room, content), name="here", formats="force_format")
    path = shop.one(content)
    for signed, good in ((content, True), (content[:-1] + b"x", False)):
        signature = shop.sign(_read_by(form, signed))
        if good:
            await shop.add(path, signature)
            assert [each["read"] for each in await shop.outcomes()] == [True]
            await shop.store.renaming.remove("x")
        else:
            await shop.refused(path, "changed", signature)


async def test_a_stop_while_bytes_are_read_leaves_nothing(shop: Shop) -> None:
    progress, content = JobProgress(), bytes(5_000_000)

    def stop(seen: JobProgress) -> None:
        if seen.current_phase == "verify":
            seen.stop_reason = "cancel"

    with progress.heard_by(stop), pytest.raises(Stopped):
        await shop.add(shop.one(content), shop.sign(_read_by("shards", content)), progress=progress)
    await shop.nothing_is_left()
    await shop.add(shop.one(content), shop.sign(_read_by("shards", content)))


async def test_a_disk_that_fails_while_bytes_are_read_leaves_nothing(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> int:
        raise OSError(errno.EIO, "the disk")

    content = bytes(5_000_000)
    monkeypatch.setattr(trusted, "read_at", fails)
    with pytest.raises(WireError) as caught:
        await shop.add(shop.one(content), shop.sign(_read_by("shards", content)))
    assert caught.value.code == "internal"
    await shop.nothing_is_left()


def _read_by(form: str, content: bytes) -> Json:
    if form == "blake2b":
        digest = hashlib.blake2b(content).hexdigest()
        listed = [{"name": "one.gguf", "algorithm": "blake2b", "digest": digest}]
        return statement(listed, hash_type="blake2b")
    size = 1_000_000
    listed = [
        {
            "name": f"one.gguf:{start}:{min(start + size, len(content))}",
            "algorithm": f"sha256-sharded-{size}",
            "digest": hashlib.sha256(content[start : start + size]).hexdigest(),
        }
        for start in range(0, len(content), size)
    ]
    return statement(listed, method="shards", shard_size=float(size))


def _file(room: Path, content: bytes) -> str:
    path = room / "unruled.gguf"
    path.write_bytes(content)
    return str(path)


def _blob(shop: Shop, text: str) -> Any:
    return require_blob(shop.store.layout, Digest.parse(text))


def _check(shop: Shop, origin: trusted.Origin, files: Mapping[str, Any]) -> trusted.Proof | None:
    return trusted.check_signed(
        shop.store.ingest.rules, origin, files, shop.store.index, shop.store.layout, JobProgress()
    )
