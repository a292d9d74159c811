"""No byte of a bundle can change without the signature failing: what is not signed is known, and checked.

Bits are flipped one at a time. What no single bit makes is in `test_bundle`: whitespace, the order of the fields, and
`keyid` as null or left out change bytes and mean the same, and so does the other form of each ECDSA signature.
"""

from __future__ import annotations

from collections import Counter

import pytest

from modeld.signatures.faults import SignatureFault
from modeld.signatures.verification import signed_model
from rigs.rough_peers import scaled
from rigs.signed_models import WITH_CERTIFICATES, WITH_KEYS, Fixture, bundle
from rigs.verifying import trusted_by

# A flipped byte of a certificate can make what `cryptography` warns of.
pytestmark = pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")

ALL = [*WITH_KEYS, *WITH_CERTIFICATES]
ONE_OF_EACH = ("key-p256", "old-key-p256", "certificate-with-root")

CASE = 0x20
"""Makes the other letter of hexadecimal digits, of base64, and of names."""


def flipped(fixture: Fixture, bits: list[int]) -> None:
    data, trusted = bundle(fixture.bundle), trusted_by(fixture)
    signed_model(data, trusted)
    rules: Counter[str] = Counter()
    for at in range(len(data)):
        for bit in {CASE, *(1 << (at + bit) % 8 for bit in bits)}:
            changed = data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]
            with pytest.raises(SignatureFault) as caught:
                signed_model(changed, trusted)
            rules[caught.value.rule] += 1
    assert rules["signature"] > len(data) // 4, "most of it is what is signed"


@pytest.mark.parametrize("fixture", [each for each in ALL if each.bundle in ONE_OF_EACH], ids=lambda each: each.bundle)
def test_each_byte_counts(fixture: Fixture) -> None:
    flipped(fixture, [0])


@pytest.mark.torture
@pytest.mark.parametrize("fixture", ALL, ids=lambda each: each.bundle)
def test_each_bit_counts(fixture: Fixture) -> None:
    flipped(fixture, list(range(scaled(8, 2))))
