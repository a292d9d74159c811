"""What the fields of requests may hold: the types with their bounds."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from modelwire import limits
from modelwire.units import LARGEST, LONGEST, SLOWEST_RATE

Count = Annotated[int, msgspec.Meta(ge=0, le=LARGEST)]
"""How many, or the number of an event: never negative, and within what a database column or a C library holds."""

MOST_TOKENS: Final = 2**40
"""Of a context. The longest today have 10 million."""

Context = Annotated[int, msgspec.Meta(ge=1, le=MOST_TOKENS)]

HeaderKeys = Annotated[tuple[Annotated[str, msgspec.Meta(max_length=256)], ...], msgspec.Meta(max_length=64)]
"""Keys of a header, or patterns: each is compared with all keys."""

Rate = Annotated[int, msgspec.Meta(ge=SLOWEST_RATE, le=LARGEST)]
"""Bytes a second."""

RateLimit = Annotated[int, msgspec.Meta(ge=0, le=LARGEST)]
"""The same where a limit can be taken away: 0 is no limit, as in most programs that limit a rate."""

Megabytes = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""Of 1024 x 1024 bytes, as requirements of models and drivers of graphics cards count memory."""

MOST_SLOTS: Final = 64
Slots = Annotated[int, msgspec.Meta(ge=1, le=MOST_SLOTS)]
"""Jobs at the same time; with none nothing would ever run."""

Places = Annotated[int, msgspec.Meta(ge=0, le=65536)]
"""Jobs that may wait."""

Seconds = Annotated[float, msgspec.Meta(ge=0, le=LONGEST)]

Token = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
"""Room for any UUID or hash; it is stored with the job for as long as that is kept."""

SignatureText = Annotated[str, msgspec.Meta(max_length=limits.SIGNATURE)]

SignersText = Annotated[str, msgspec.Meta(min_length=1, max_length=limits.SIGNERS)]

Offer = Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=limits.FILES_OFFERED)]
"""Paths in the model of files that are handed over: there is one descriptor for each."""

Reason = Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]
"""A sentence of a program about what failed: it is stored, and shown on a line."""
