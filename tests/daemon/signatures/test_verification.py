"""Nothing of what is signed is read before its signature holds; without the package, the extra is named."""

from __future__ import annotations

import sys

import pytest

from modeld.signatures.faults import MissingPackage
from modeld.signatures.verification import TrustedKey, signed_model
from rigs.signed_models import bundle, pem
from rigs.signers import new_key, public_pem, signed_with_key
from rigs.verifying import refusal, refused


def test_what_is_signed_is_read_only_after_the_signature_holds() -> None:
    key = new_key()
    for payload in (b"{", b"\xff", b"[]", b'{"a":' * 10_000):
        document = signed_with_key(key, payload)
        assert refusal(document, TrustedKey(public_pem(key)))[1] in ("json", "structure")
        document["dsseEnvelope"]["signatures"] = signed_with_key(key, b"other")["dsseEnvelope"]["signatures"]
        assert refusal(document, TrustedKey(public_pem(key))) == ("InvalidSignature", "signature")


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] == "cryptography"]:
        monkeypatch.delitem(sys.modules, module)
    for module in ("keys", "certificates"):
        monkeypatch.delitem(sys.modules, f"modeld.signatures.{module}", raising=False)
        monkeypatch.delattr(f"modeld.signatures.{module}", raising=False)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    fault = refused(lambda: signed_model(bundle("key-p256"), TrustedKey(pem("p256"))))
    assert isinstance(fault, MissingPackage)
    assert fault.rule == "cryptography"
    assert "pip install 'modeld[daemon,signatures]'" in str(fault)
