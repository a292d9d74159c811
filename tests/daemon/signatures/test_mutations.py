"""Damaged bundles: each is verified as before, or raises one of the room's own errors."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

import pytest

from modeld.signatures.bundle import read_bundle
from modeld.signatures.faults import SignatureFault
from modeld.signatures.statement import read_statement
from modeld.signatures.verification import TrustedKey, signed_model
from rigs.rough_peers import scaled
from rigs.signed_models import WITH_CERTIFICATES, WITH_KEYS, bundle
from rigs.signers import new_key, public_pem, signed_with_key
from rigs.verifying import trusted_by

pytestmark = pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")

KEY = new_key()

WORDS: tuple[Any, ...] = ("", ".", "a:0:1", "\ud800", "\0", "é" * 5000)
VALUES: tuple[Any, ...] = (None, True, 0, -1, 2**70, 1e400, 0.5, *WORDS, [], {}, [[]], {"": None}, [None] * 50)


def shaken(chance: random.Random, document: Any) -> Any:
    """With one value or name replaced, doubled, or taken out somewhere."""
    if not isinstance(document, dict | list) or not document or chance.random() < 0.1:
        return chance.choice(VALUES)
    if isinstance(document, dict):
        name = chance.choice(sorted(document))
        changed = {key: value for key, value in document.items() if key != name}
        if chance.random() < 0.8:
            changed[name if chance.random() < 0.9 else name + "x"] = shaken(chance, document[name])
        return changed
    at = chance.randrange(len(document))
    middle = chance.choice(([], [document[at]] * 2, [shaken(chance, document[at])]))
    return [*document[:at], *middle, *document[at + 1 :]]


def torn(chance: random.Random, data: bytes) -> bytes:
    """With bytes replaced, taken out, doubled, or put in."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(changed) + 1)
        changed[at : at + chance.randint(0, 4)] = chance.choice(
            (
                b"",
                bytes([chance.randrange(256)]),
                bytes(changed[at : at + 30]),
                b'"',
                b"{",
                b"[",
                b"\\u0000",
                b"\xf0\x9f",
            )
        )
    return bytes(changed)


def is_taken(call: Any) -> bool:
    try:
        call()
    except SignatureFault as fault:
        reason = str(fault)
    else:
        return True
    assert 0 < len(reason) < 2_000
    return False


def damage_certificates(chance: random.Random, document: Any) -> Any:
    for each in document["verificationMaterial"]["x509CertificateChain"]["certificates"]:
        each["rawBytes"] = base64.b64encode(torn(chance, base64.b64decode(each["rawBytes"])) or b"0").decode()
    return document


def run(count: int, seed: int) -> None:
    chance = random.Random(seed)
    fixtures = (*WITH_KEYS, *WITH_CERTIFICATES)
    taken = 0
    for _ in range(count):
        fixture = chance.choice(fixtures)
        data, trusted = bundle(fixture.bundle), trusted_by(fixture)
        payload = read_bundle(data).payload
        before = signed_model(data, trusted)
        for changed in (torn(chance, data), json.dumps(shaken(chance, json.loads(data))).encode()):
            if is_taken(lambda changed=changed, trusted=trusted: signed_model(changed, trusted)):
                assert signed_model(changed, trusted) == before
                taken += 1
        if fixture in WITH_CERTIFICATES:
            damaged = json.dumps(damage_certificates(chance, json.loads(data))).encode()
            is_taken(lambda damaged=damaged, trusted=trusted: signed_model(damaged, trusted))
        # As a trusted signer could sign it.
        for changed in (torn(chance, payload), json.dumps(shaken(chance, json.loads(payload))).encode()):
            is_taken(lambda changed=changed: read_statement(changed))
        resigned = json.dumps(signed_with_key(KEY, changed)).encode()
        is_taken(lambda resigned=resigned: signed_model(resigned, TrustedKey(public_pem(KEY))))
    assert taken < count // 5, "what is taken differs in whitespace, or in a field that may be left out"


def test_damaged_bundles_raise_only_the_rooms_own_errors() -> None:
    run(700, 1)


@pytest.mark.torture
def test_very_many_damaged_bundles() -> None:
    run(scaled(50_000, 3_000), 2)
