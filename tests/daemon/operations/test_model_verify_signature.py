"""Signatures of models in the store: what holds, what differs, what is read, and what the history keeps of it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from modeld.progress import FileProgress, JobProgress, Stopped
from modeld.store import Digest
from modeld.store.blobs.blobs import chunks_of_blob
from modeld.store.blobs.hashing import CHUNK
from modelwire.errors import Corrupt, DigestMismatch, NotFound, Unsupported
from modelwire.requests import ModelRemove, ModelShow, ModelVerifySignature
from modelwire.values import Provenanced, SignatureVerified
from rigs.operations_rig import MINE, OperationsRig, operations_rig
from rigs.signed_models import MODEL, WITH_KEYS, Fixture, bundle, pem
from rigs.signers import issue, new_key, public_pem, resources_of, signed_with_chain, signed_with_key, statement, usage

FILES = {"config.json": b'{"model_type": "tiny"}', "model.safetensors": b"\2\0\0\0\0\0\0\0{}"}

SIGNED = [fixture for fixture in WITH_KEYS if not fixture.bundle.startswith("old-")]
"""Old ones list files with a dot before their names, which an add leaves out."""


async def add(at: OperationsRig, files: Mapping[str, bytes], name: str = "m") -> None:
    for path, content in files.items():
        file = at.room / name / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    await at.services.store.add(str(at.room / name), name=name, formats="force_format")


async def verify(at: OperationsRig, signature: bytes | dict[str, Any], name: str = "m", **by: bytes) -> Any:
    text = signature.decode() if isinstance(signature, bytes) else json.dumps(signature)
    pems: dict[str, Any] = {field: content.decode() for field, content in by.items()}
    return await at.ask(ModelVerifySignature(name=name, signature=text, **pems))


async def outcomes(at: OperationsRig, name: str = "m") -> list[Provenanced]:
    history = (await at.ask(ModelShow(name=name))).history
    return [each for each in history if each.outcome in ("signed", "signature_invalid")]


async def test_a_signature_by_a_key_that_holds(tmp_path: Path) -> None:
    key = new_key()
    async with operations_rig(tmp_path) as at:
        await add(at, FILES)
        found = await verify(at, signed_with_key(key, statement(resources_of(FILES))), key=public_pem(key))
        assert isinstance(found, SignatureVerified)
        assert (found.by, found.subject, found.read, found.verified) == ("key", None, False, tuple(sorted(FILES)))
        (outcome,) = await outcomes(at)
        assert (outcome.outcome, outcome.actual, outcome.peer, outcome.job) == ("signed", None, MINE.uid, found.job)
        assert outcome.details is not None
        assert outcome.details["signer"] == found.signer
        assert outcome.details["signature"] == found.signature
        assert outcome.details["read"] is False
        await at.ask(ModelRemove(name="m"))
        await add(at, FILES)
        assert await outcomes(at) == []


async def test_a_certificate_names_its_subject(tmp_path: Path) -> None:
    root, leaf = new_key(), new_key()
    now = datetime.now(UTC)
    years = {"begins": now - timedelta(days=1), "ends": now + timedelta(days=1)}
    top = issue("Root", root, "Root", root, x509.BasicConstraints(ca=True, path_length=None), **years)
    signer = issue("Ada", leaf, "Root", root, usage("digital_signature"), **years)
    signed = signed_with_chain(leaf, statement(resources_of(FILES)), [signer])
    async with operations_rig(tmp_path) as at:
        await add(at, FILES)
        found = await verify(at, signed, roots=top.public_bytes(Encoding.PEM))
        assert (found.by, found.subject) == ("certificate", "CN=Ada")
        with pytest.raises(DigestMismatch) as caught:
            await verify(at, signed, key=public_pem(leaf))
        assert caught.value.details["rule"] == "signer"


@pytest.mark.parametrize("fixture", SIGNED, ids=lambda fixture: fixture.bundle)
async def test_what_model_signing_signs_holds_and_is_read_where_sha256_of_files_is_not_signed(
    tmp_path: Path, fixture: Fixture
) -> None:
    async with operations_rig(tmp_path) as at:
        if fixture.files is MODEL:
            await add(at, fixture.files)
        else:
            (content,) = fixture.files.values()
            await at.services.store.add(at.file("weights.bin", content), name="m", formats="force_format")
        found = await verify(at, bundle(fixture.bundle), key=pem(fixture.trusted))
        assert found.read is ("shards" in fixture.bundle or "blake2b" in fixture.bundle)
        (outcome,) = await outcomes(at)
        assert (outcome.details or {})["read"] is found.read
        assert outcome.actual is None


async def test_the_file_that_is_the_signature_is_not_asked_for(tmp_path: Path) -> None:
    key = new_key()
    signed = json.dumps(signed_with_key(key, statement(resources_of(FILES)))).encode()
    async with operations_rig(tmp_path) as at:
        await add(at, FILES | {"signed/by-ada.json": signed})
        found = await verify(at, signed, key=public_pem(key))
        assert found.not_signed == ("signed/by-ada.json",)


async def test_files_that_differ_are_named_and_recorded(tmp_path: Path) -> None:
    key = new_key()
    others = {"config.json": b"{}", "tokenizer.json": b"[]", "old.json": b"1", "gone.json": b"2"}
    signed = signed_with_key(key, statement(resources_of(FILES | others | {"config.json": b"{ }"})))
    async with operations_rig(tmp_path) as at:
        await add(at, FILES | {"tokenizer.json": b"[]", "new.json": b"1", "more.json": b"3"})
        with pytest.raises(DigestMismatch) as caught:
            await verify(at, signed, key=public_pem(key))
        details = caught.value.details
        assert details["rule"] == "changed"
        assert details["read"] is False
        assert {kind: details[kind] for kind in ("changed", "renamed", "missing", "unsigned")} == {
            "changed": ["config.json"],
            "renamed": [["old.json", "new.json"]],
            "missing": ["gone.json"],
            "unsigned": ["more.json"],
        }
        (outcome,) = await outcomes(at)
        assert outcome.outcome == "signature_invalid"
        assert outcome.details is not None
        assert outcome.details["rule"] == "changed"
        assert outcome.details["signer"] == details["signer"]


async def test_the_history_keeps_no_long_reason(tmp_path: Path) -> None:
    key = new_key()
    signed = signed_with_key(key, statement(resources_of({f"{'a/' * 900}{number}": b"" for number in range(3)})))
    async with operations_rig(tmp_path) as at:
        await add(at, FILES)
        with pytest.raises(DigestMismatch):
            await verify(at, signed, key=public_pem(key))
        (outcome,) = await outcomes(at)
        assert len(str((outcome.details or {})["reason"])) == 500


async def test_another_key_is_refused_and_names_no_signer(tmp_path: Path) -> None:
    key = new_key()
    async with operations_rig(tmp_path) as at:
        await add(at, FILES)
        with pytest.raises(DigestMismatch) as caught:
            await verify(at, signed_with_key(key, statement(resources_of(FILES))), key=public_pem(new_key()))
        assert caught.value.details["rule"] == "key"
        (outcome,) = await outcomes(at)
        assert "signer" not in (outcome.details or {})


@pytest.mark.parametrize(("text", "rule"), [("", "empty"), ("{", "json"), ("{}", "structure")])
async def test_what_cannot_be_verified_is_unsupported_and_recorded_nowhere(
    tmp_path: Path, text: str, rule: str
) -> None:
    async with operations_rig(tmp_path) as at:
        await add(at, FILES)
        with pytest.raises(Unsupported) as caught:
            await verify(at, text.encode(), key=public_pem(new_key()))
        assert caught.value.details["rule"] == rule
        assert await outcomes(at) == []


async def test_no_such_model(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        with pytest.raises(NotFound):
            await verify(at, b"{}", key=public_pem(new_key()))


async def test_a_model_whose_bytes_may_have_changed_is_verified_first(tmp_path: Path) -> None:
    """The manifest still names the signed digests: without a look at the bytes the signature would seem to hold."""
    key = new_key()
    signed = signed_with_key(key, statement(resources_of(FILES)))
    async with operations_rig(tmp_path) as at:
        await add(at, FILES)
        (file,) = [each for each in (await at.ask(ModelShow(name="m"))).files if each.path == "config.json"]
        digest = file.blob.removeprefix("sha256:")
        path = Path(at.services.store.layout.blob(Digest(digest)))
        os.chmod(path, 0o644)
        assert (await verify(at, signed, key=public_pem(key))).verified == tuple(sorted(FILES))
        path.write_bytes(b'{"model_type": "TINY"}')
        with pytest.raises(Corrupt):
            await verify(at, signed, key=public_pem(key))
        assert [each.outcome for each in await outcomes(at)] == ["signed"]


async def test_the_ledger_has_neither_the_signature_nor_the_key(tmp_path: Path) -> None:
    key = new_key()
    signed = signed_with_key(key, statement(resources_of(FILES)))
    async with operations_rig(tmp_path) as at:
        await add(at, FILES)
        found = await verify(at, signed, key=public_pem(key))
        job = await at.services.board.find(found.job)
        assert job.request == ModelVerifySignature(name="m", signature="")


async def test_a_stop_ends_the_reading_of_a_blob_at_the_next_chunk(tmp_path: Path) -> None:
    async with operations_rig(tmp_path) as at:
        content = bytes(CHUNK) + b"and one byte more than one chunk"
        added = await at.services.store.add(at.file("m.bin", content), name="m", formats="force_format")
        layout, progress = at.services.store.layout, JobProgress()
        chunks = chunks_of_blob(layout, Digest.parse(added.blob), FileProgress(progress))
        assert b"".join(bytes(chunk) for chunk in chunks) == content
        assert progress.verified == len(content)
        chunks = chunks_of_blob(layout, Digest.parse(added.blob), FileProgress(progress))
        assert len(next(chunks)) == CHUNK
        progress.stop_reason = "cancel"
        with pytest.raises(Stopped):
            next(chunks)
