"""What all requests have. Unknown fields, unknown operations and wrong types are refused by msgspec."""

from __future__ import annotations

import msgspec

from modelwire.fields import Token
from modelwire.vocabulary import PRIORITY_DEFAULT, OnDisconnect


class Request(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="op", omit_defaults=True
):
    id: str = ""


class Write(Request, frozen=True, kw_only=True):
    """What every admitted operation takes."""

    priority: int = PRIORITY_DEFAULT
    on_disconnect: OnDisconnect = "cancel"
    token: Token | None = None
