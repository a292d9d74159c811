"""A store whose rules want signatures, and models that a key has signed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from modeld.config import StoreSettings
from modeld.signatures.rules import Rule, Rules
from modeld.store import Store
from modeld.store.catalog.catalog import Catalog
from modelwire.errors import NotFound, Untrusted
from modelwire.units import Size
from modelwire.values import Added
from rigs.signers import Json, new_key, public_pem, resources_of, signed_with_key, statement

FILES = {"config.json": b'{"model_type": "tiny"}', "model.safetensors": b"\2\0\0\0\0\0\0\0{}", "empty.txt": b""}
ONE = b"GGUF\3\0\0\0 one file"


class Shop:
    """A store that wants all that lies in `models` to be signed by `key`."""

    def __init__(self, room: Path) -> None:
        self.room, self.key = room, new_key()
        self.models = room / "models"
        self.models.mkdir()
        self.pem = room / "key.pem"
        self.pem.write_bytes(public_pem(self.key))
        self.catalog = Catalog.open(str(room / "catalog.sqlite"))
        self.rules = Rules([Rule(1, [f"local:{self.models}/*"], [str(self.pem)], [])])
        settings = StoreSettings(min_free=Size(0))
        self.store = Store.open(str(room / "store"), settings, self.catalog, rules=self.rules)

    def close(self) -> None:
        self.store.close()
        self.catalog.close()

    def put(self, files: Mapping[str, bytes], name: str = "m") -> str:
        for path, content in files.items():
            file = self.models / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        return str(self.models / name)

    def one(self, content: bytes = ONE, name: str = "one.gguf") -> str:
        (self.models / name).write_bytes(content)
        return str(self.models / name)

    def sign(self, payload: Json, key: EllipticCurvePrivateKey | None = None) -> bytes:
        return json.dumps(signed_with_key(key or self.key, payload)).encode()

    def of(self, files: Mapping[str, bytes], key: EllipticCurvePrivateKey | None = None, **how: Any) -> bytes:
        return self.sign(statement(resources_of(files), **how), key)

    async def add(self, path: str, signature: bytes | None = None, **options: Any) -> Added:
        return await self.store.add(path, name="x", formats="force_format", signature=signature, **options)

    async def refused(self, path: str, rule: str, signature: bytes | None = None, **options: Any) -> Untrusted:
        """Nothing got a name, no reader sees anything, and nothing is left in the staging directory."""
        with pytest.raises(Untrusted) as caught:
            await self.add(path, signature, **options)
        fault = caught.value
        assert fault.details["rule"] == rule, fault.message
        assert fault.details["required_by"] == 1
        assert f"rule 1 of [[trust.require]], 'local:{self.models}/*'" in fault.message
        assert fault.hint
        await self.nothing_is_left()
        return fault

    async def nothing_is_left(self) -> None:
        assert not os.path.exists(self.store.layout.staging) or os.listdir(self.store.layout.staging) == []
        with pytest.raises(NotFound):
            await self.store.models.show("x")

    async def outcomes(self, name: str = "x") -> list[dict[str, Any]]:
        history = (await self.store.models.show(name)).history
        return [dict(each.details or {}) for each in history if each.outcome == "signed"]
