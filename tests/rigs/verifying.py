"""Verifies the bundles of `signed_models` and of `signers` as an operation does it: the signature, then the files."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from modeld.signatures.comparison import Comparison, ModelFile, compare
from modeld.signatures.faults import SignatureFault
from modeld.signatures.verification import TrustedKey, TrustedRoots, signed_model
from rigs.signed_models import AT, WITH_CERTIFICATES, Fixture, Shelf, bundle, pem, sha256

Trusted = TrustedKey | TrustedRoots

SIGNATURE = "model.sig"


def trusted_by(fixture: Fixture) -> Trusted:
    trusted = pem(fixture.trusted)
    return TrustedRoots(trusted, AT) if fixture in WITH_CERTIFICATES else TrustedKey(trusted)


def listed(files: dict[str, bytes]) -> list[ModelFile]:
    return [ModelFile(path, len(content), sha256(content)) for path, content in files.items()]


def verify(signature: bytes, trusted: Trusted, files: dict[str, bytes]) -> tuple[Comparison, list[str]]:
    """With the paths of the files that were read."""
    shelf = Shelf(files)
    return compare(signed_model(signature, trusted), listed(files), shelf.chunks_of, SIGNATURE), shelf.read


def verify_fixture(fixture: Fixture, files: dict[str, bytes] | None = None) -> tuple[Comparison, list[str]]:
    return verify(bundle(fixture.bundle), trusted_by(fixture), fixture.files if files is None else files)


def refused(call: Callable[[], object]) -> SignatureFault:
    with pytest.raises(SignatureFault) as caught:
        call()
    return caught.value


def refusal(signature: bytes | dict[str, Any], trusted: Trusted) -> tuple[str, str]:
    """The class and the rule with which a signature is refused."""
    data = signature if isinstance(signature, bytes) else json.dumps(signature).encode()
    fault = refused(lambda: signed_model(data, trusted))
    return type(fault).__name__, fault.rule
