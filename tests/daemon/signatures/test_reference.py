"""What the reference package signed is verified, and does not hold for another signer, time or file."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from modeld.signatures.faults import FilesDiffer, MissingPackage
from modeld.signatures.verification import TrustedKey, TrustedRoots, signed_model
from rigs.signed_models import AT, CURVES, FIXTURES, MODEL, WITH_CERTIFICATES, WITH_KEYS, Fixture, bundle, pem
from rigs.verifying import refusal, refused, verify_fixture

ALL = [*WITH_KEYS, *WITH_CERTIFICATES]
BY_RECORD = [fixture for fixture in ALL if "blake" not in fixture.bundle and "shards" not in fixture.bundle]
OF_SEVERAL = [fixture for fixture in ALL if "one-file" not in fixture.bundle]


def name(fixture: Fixture) -> str:
    return fixture.bundle


@pytest.mark.parametrize("fixture", ALL, ids=name)
def test_it_is_verified(fixture: Fixture) -> None:
    found, read = verify_fixture(fixture)
    not_signed = set(fixture.files) - set(found.verified)
    assert not_signed == set(found.not_signed)
    if fixture.files is not MODEL:
        assert not_signed <= {"model.sig"}
    else:
        empty = {"empty.txt"} if "shards" in fixture.bundle else set()
        assert not_signed == {"model.sig", "notes/scratch.txt", ".gitattributes", ".github/workflow.yml"} | empty
    assert read == ([] if fixture in BY_RECORD else list(found.verified))


def test_all_fixtures_are_used() -> None:
    assert {path.stem for path in FIXTURES.glob("*.json")} == {name(fixture) for fixture in ALL} | {"key-blake3"}


def test_a_hash_that_python_lacks_is_named() -> None:
    fault = refused(lambda: verify_fixture(Fixture("key-blake3", "p256")))
    assert isinstance(fault, MissingPackage)
    assert fault.rule == "blake3"


def test_a_signer_is_named() -> None:
    by_key = signed_model(bundle("key-p256"), TrustedKey(pem("p256")))
    assert by_key.subject is None
    assert by_key.signer in bundle("key-p256").decode()
    assert signed_model(bundle("certificate"), TrustedRoots(pem("root"), AT)).subject == "CN=Signer"


@pytest.mark.parametrize("fixture", WITH_KEYS, ids=name)
@pytest.mark.parametrize("other", [*CURVES, "old-p256"])
def test_another_key_is_refused(fixture: Fixture, other: str) -> None:
    if other != fixture.trusted:
        assert refusal(bundle(fixture.bundle), TrustedKey(pem(other))) == ("InvalidSignature", "key")


@pytest.mark.parametrize("fixture", WITH_CERTIFICATES, ids=name)
def test_another_root_is_refused(fixture: Fixture) -> None:
    other = TrustedRoots(pem("other-root"), AT)
    assert refusal(bundle(fixture.bundle), other) == ("InvalidSignature", "certificate_untrusted")


@pytest.mark.parametrize("fixture", WITH_CERTIFICATES, ids=name)
@pytest.mark.parametrize(
    ("at", "rule"),
    [
        (datetime(2099, 1, 1, 0, 0, 1, tzinfo=UTC), "certificate_expired"),
        (datetime(2130, 1, 1, tzinfo=UTC), "certificate_expired"),
        (datetime(2024, 12, 31, 23, 59, 59, tzinfo=UTC), "certificate_not_yet_valid"),
    ],
)
def test_certificates_hold_for_their_time(fixture: Fixture, at: datetime, rule: str) -> None:
    assert refusal(bundle(fixture.bundle), TrustedRoots(pem(fixture.trusted), at)) == ("InvalidSignature", rule)


def test_a_key_and_a_certificate_do_not_stand_for_each_other() -> None:
    for fixture, trusted in (
        (WITH_KEYS[0], TrustedRoots(pem("root"), AT)),
        (WITH_CERTIFICATES[0], TrustedKey(pem("p256"))),
    ):
        assert refusal(bundle(fixture.bundle), trusted) == ("InvalidSignature", "signer")


def differing(fixture: Fixture, files: dict[str, bytes]) -> FilesDiffer:
    fault = refused(lambda: verify_fixture(fixture, files))
    assert isinstance(fault, FilesDiffer)
    return fault


def without(fixture: Fixture, path: str) -> dict[str, bytes]:
    return {each: content for each, content in fixture.files.items() if each != path}


@pytest.mark.parametrize("fixture", ALL, ids=name)
def test_a_missing_file_is_named(fixture: Fixture) -> None:
    fault = differing(fixture, without(fixture, "weights.bin"))
    assert fault.rule == "missing"
    assert fault.missing == (("." if "one-file" in fixture.bundle else "weights.bin"),)


@pytest.mark.parametrize("fixture", OF_SEVERAL, ids=name)
@pytest.mark.parametrize(
    "path", ["more.bin", "a/.gitattributes", "Notes/x", "notes.txt", "model.sig.txt", "a/config.json/x"]
)
def test_a_file_more_is_named(fixture: Fixture, path: str) -> None:
    fault = differing(fixture, {**fixture.files, path: b"more"})
    assert fault.rule == "unsigned"
    assert fault.unsigned == (path,)
    assert repr(path) in str(fault)


@pytest.mark.parametrize("fixture", ALL, ids=name)
def test_a_renamed_file_is_named(fixture: Fixture) -> None:
    moved = {**without(fixture, "weights.bin"), "other.bin": fixture.files["weights.bin"]}
    if "one-file" in fixture.bundle:
        assert verify_fixture(fixture, moved)[0].verified == ("other.bin",)
        return
    fault = differing(fixture, moved)
    if fixture in BY_RECORD:
        assert fault.rule == "renamed"
        assert fault.renamed == (("weights.bin", "other.bin"),)
    else:
        assert fault.rule == "missing"
        assert (fault.missing, fault.unsigned) == (("weights.bin",), ("other.bin",))


def changes(content: bytes) -> Iterator[bytes]:
    """Each byte changed; and bytes more and fewer."""
    for at in range(len(content)):
        yield content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
    yield content + b"\0"
    yield content + content
    yield content[:-1]
    yield b""


@pytest.mark.parametrize("fixture", ALL, ids=name)
def test_each_changed_byte_of_a_file_is_found(fixture: Fixture) -> None:
    for path in ("weights.bin",) if "one-file" in fixture.bundle else ("weights.bin", "überall/weights-2.bin"):
        for changed in changes(fixture.files[path]):
            fault = differing(fixture, {**fixture.files, path: changed})
            if changed or fixture.bundle != "key-one-file-shards":
                assert (fault.rule, fault.changed) == ("changed", (path,))
            else:
                assert (fault.rule, fault.missing) == ("missing", (".",)), "an empty file has no shards"
