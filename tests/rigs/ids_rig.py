"""Files that are registered under ids, in a daemon in this process."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

from modelwire.requests import (
    ModelAdd,
    ModelResolve,
    ModelShow,
)
from modelwire.values import Added, ModelView
from rigs.operations_rig import MINE, NotingCall, OperationsRig

CONTENT = b"GGUF\3\0\0\0 the bytes of a model"
DIGITS = sha256(CONTENT).hexdigest()
ID = "my-org/my model"


async def register(at: OperationsRig, id_: str = ID, file: str = "m.gguf", caller: Any = MINE, **fields: Any) -> Added:
    path = fields.pop("path", None) or at.file(file, fields.pop("content", CONTENT))
    added = await at.ask(ModelAdd(path=path, known_as=id_, **fields), caller)
    assert isinstance(added, Added)
    return added


async def show(at: OperationsRig, name: str, caller: Any = MINE) -> ModelView:
    view = await at.ask(ModelShow(name=name), caller)
    assert isinstance(view, ModelView)
    return view


async def path_of(at: OperationsRig, text: str, caller: Any = MINE) -> str:
    resolved: Any = await at.operations.slow[ModelResolve](NotingCall(caller), ModelResolve(name=text))
    return str(resolved.name)


def manifest(at: OperationsRig, name: str) -> Path:
    return Path(at.services.store.layout.manifests_dir, f"{name}.json")


def rewrite(at: OperationsRig, name: str, **changes: Any) -> None:
    """As another tool does it."""
    path = manifest(at, name)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
