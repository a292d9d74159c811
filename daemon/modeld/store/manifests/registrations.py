"""Models that are registered before their bytes are here: the document of each, under its name.

A manifest never exists before its blob, because other tools read these files. So each registration is a small file of
the private part, and outlives the catalogue. It ends when the name gets a manifest.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from typing import Any, Final

import msgspec

from modeld.store.disk import durable
from modeld.store.disk.durable import store_faults
from modeld.store.disk.layout import Layout
from modeld.store.manifests.coming import ComingModel, named
from modeld.store.names import ModelName
from modelwire.errors import WireError
from modelwire.knowledge.document import ModelDocument, decoded
from modelwire.limits import DOCUMENT
from modelwire.values import ModelView

_MAX_FILE: Final = DOCUMENT + 64 * 1024
"""Of a registration as it is read: the document, indented by another tool perhaps, and what is known beside it."""

_SUFFIX: Final = ".json"


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """`written` is the document as it was given, with the fields that modeld does not know: as JSON, which takes a
    twentieth of the memory that it takes when it is decoded."""

    name: str
    written: msgspec.Raw = msgspec.field(name="model")
    owner_uid: int | None = None

    @property
    def model(self) -> dict[str, Any]:
        return msgspec.json.decode(self.written, type=dict[str, Any])

    @property
    def document(self) -> ModelDocument:
        return decoded(bytes(self.written))


class Registrations:
    """Reads look into a dict, from any thread; `load`, `add` and `end` block, and change it in the publisher's turn."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._known: dict[str, Registration] = {}
        """By the key of the name."""
        self._models: dict[str, ComingModel] = {}
        self.damaged: tuple[str, ...] = ()
        """Why files are no registrations."""

    def load(self) -> None:
        """Reads the files. One whose name has a manifest is left over from a publication, and is removed."""
        damaged = []
        with store_faults("read", self._layout.registered), contextlib.suppress(FileNotFoundError):
            for file in sorted(os.listdir(self._layout.registered)):
                path = f"{self._layout.registered}/{file}"
                try:
                    found = _read(path)
                    if os.path.lexists(self._layout.manifest(ModelName.parse(found.name))):
                        durable.remove(path)
                    else:
                        self._keep(found)
                except (OSError, ValueError, RecursionError, msgspec.MsgspecError, WireError) as fault:
                    damaged.append(f"{path}: {fault.message if isinstance(fault, WireError) else fault}")
        self.damaged = tuple(damaged)

    def of(self, name: ModelName) -> Registration | None:
        """Of exactly this name, in whichever spelling."""
        return self._known.get(name.key)

    def find(self, text: str) -> Registration | None:
        """Of the name that a client means, by the rules for models that have a manifest."""
        found = named(text, self.models())
        return None if found is None else self.of(found.name)

    def models(self) -> tuple[ComingModel, ...]:
        return tuple(self._models.copy().values())

    def all(self) -> tuple[Registration, ...]:
        return tuple(self._known.copy().values())

    def add(self, registration: Registration) -> None:
        """Durable on return."""
        path = self._layout.registration(ModelName.parse(registration.name))
        with store_faults("write the registration", path):
            durable.make_directories(self._layout.registered, below=self._layout.root)
            temporary = f"{self._layout.staging}/registered-{secrets.token_hex(8)}"
            durable.write_file(temporary, path, msgspec.json.encode(registration) + b"\n")
            durable.sync_directory(self._layout.registered)
            durable.sync_directory(self._layout.private)
        self._keep(registration)

    def end(self, name: ModelName) -> None:
        """Durable on return."""
        known = self.of(name)
        if known is None:
            return
        path = self._layout.registration(ModelName.parse(known.name))
        with store_faults("remove the registration", path):
            durable.remove(path)
            durable.sync_directory(self._layout.registered)
        self._known.pop(name.key, None)
        self._models.pop(name.key, None)

    def _keep(self, registration: Registration) -> None:
        model = _coming(registration)
        self._known[model.name.key] = registration
        self._models[model.name.key] = model


def _read(path: str) -> Registration:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is no regular file")
        data = file.read(_MAX_FILE + 1)
    if len(data) > _MAX_FILE:
        raise ValueError(f"it has more than {_MAX_FILE} bytes")
    found = msgspec.json.decode(data, type=Registration)
    found = msgspec.structs.replace(found, written=msgspec.Raw(msgspec.json.format(found.written, indent=-1)))
    if ModelName.parse(found.name).stem + _SUFFIX != os.path.basename(path):
        raise ValueError(f"it is of the name {found.name!r}")
    return found


def _coming(registration: Registration) -> ComingModel:
    document = registration.document
    view = ModelView(
        name=registration.name,
        format=document.format,
        blob=f"sha256:{document.sha256}" if document.sha256 else "",
        size_bytes=document.size_bytes,
        state="available",
        license=document.license or None,
        owner=registration.owner_uid,
        reason="it is registered, and its bytes are not here",
    )
    return ComingModel(ModelName.parse(registration.name), view, lambda: registration.document)
