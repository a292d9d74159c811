"""The document of an update command: a version of a model for some machines, and what to go back to when it fails."""

from __future__ import annotations

import hashlib
import uuid
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec

from modelwire.errors import InvalidDigest, InvalidRequest
from modelwire.knowledge.document import ModelDocument, document_in, document_of
from modelwire.vocabulary import clamp_priority

LONGEST: Final = 64 * 1024
"""Bytes of a command: its document has 16 KiB at most, the ids of a thousand machines take twice as much."""

_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
"""Host names are no longer."""


class UpdateCommand(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All fields are required but the rollback. A field that is not known is refused: it may forbid what the others
    ask for."""

    command_id: str
    manifest: dict[str, Any]
    target_nodes: tuple[_Id, ...]
    """Ids or labels of machines; all of them when it is empty."""

    priority: int
    auto_load: bool
    timestamp: str
    rollback_model_id: _Id | None = None

    @property
    def document(self) -> ModelDocument:
        return document_of(self.manifest, where="$.command.manifest")

    @property
    def content(self) -> str:
        """Equal for the same command, whatever the order of its fields."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()


def command_of(given: Any) -> UpdateCommand:
    """Of decoded JSON. Raises InvalidRequest with the path of the field, and InvalidDigest."""
    if (size := len(msgspec.json.encode(given))) > LONGEST:
        raise InvalidRequest(
            f"$.command: it has {size} bytes, {LONGEST} are allowed",
            hint="Name groups of machines by a label of theirs.",
        )
    try:
        command = msgspec.convert(given, UpdateCommand)
    except msgspec.ValidationError as fault:
        text = str(fault)
        where = text.replace("`$", "`$.command") if "`$" in text else f"$.command: {text}"
        raise InvalidRequest(
            where,
            hint=f"A command has the fields {', '.join(UpdateCommand.__struct_fields__)}; the last may be left out.",
        ) from None
    _check_id(command.command_id)
    _check_time(command.timestamp)
    if not document_in(command.manifest, "$.command.manifest").sha256:
        raise InvalidDigest(
            "$.command.manifest.sha256 is empty: a machine takes no bytes that the command does not name",
            hint="Write the SHA-256 of the file into the document of the model.",
            details={"rule": "length"},
        )
    return msgspec.structs.replace(
        command, command_id=command.command_id.lower(), priority=clamp_priority(command.priority)
    )


def _check_id(text: str) -> None:
    try:
        parsed = uuid.UUID(text)
    except ValueError:
        parsed = None
    if parsed is None or parsed.version != 4 or str(parsed) != text.lower():
        raise InvalidRequest(
            f"$.command.command_id: {text[:80]!r} is no UUID of version 4",
            hint="Give each command one of its own: `modelctl template ID --update` makes one.",
        )


def _check_time(text: str) -> None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise InvalidRequest(
            f"$.command.timestamp: {text[:80]!r} is no time with its zone", hint="Write it as 2026-01-31T12:00:00Z."
        )
