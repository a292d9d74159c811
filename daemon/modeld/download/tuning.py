"""Every number of the downloads, with its reason. Tests make them small; the daemon uses the defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MIB: Final = 1 << 20

CHUNK: Final = MIB
"""One read, one write, one hash: big enough that calls cost nothing, small enough that 16 connections fit in memory."""

PIECE: Final = 4 * MIB
"""What one line of the journal vouches for: also the most that a resume reads before it trusts."""

SMALLEST_SPLIT: Final = 2 * MIB
"""The least that a slow connection gives away, and that a request asks for where more is wanted; below it another
request costs more than it brings."""

SHORT: Final = 64 * 1024
"""Less is not worth a line of the journal, or a request right after the last: a server may announce a byte at a time.
Servers that give slices of a fixed size give more."""

REQUEST_SECONDS: Final = 2.0
"""A request asks for no more than its connection is likely to bring in this time: no other connection can help with
requested bytes, so this is how long the others may wait for the slowest at the end of a file. Connections of more than
4 MiB/s request whole segments all the same."""

RETAINED: Final = 24 * MIB
"""Bytes kept in memory until they are hashed, over all files; what does not fit is read back from the page cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    connect_seconds: float = 30.0
    stall_seconds: float = 30.0
    """Without a single byte."""

    head_seconds: float = 60.0
    """From the look-up of the name to the end of the head of a file, redirects included, whatever comes meanwhile. A
    server may be silent for half of it."""

    document_seconds: float = 120.0
    """The same for a small document with its body: 8 MiB in it are 70 kB/s."""

    describe_seconds: float = 600.0
    """All that one source is asked until it has described a reference. The longest wait that a source may demand fits
    in, and so does a list of a thousand pages."""

    segment_bytes: int = 8 * MIB
    """What one connection takes at a time, and one request asks for at most. Measured against a server that limits
    each connection, 16 ranges of 8 MiB beat 8 of 16 MiB by a third, and 64 MiB loses to both."""

    short_answer_seconds: float = 0.5
    """Before the next request to a server that gave less than `SHORT`: with all connections 32 requests a second."""

    unjournalled_bytes: int = 8 * MIB
    """How much a connection may have written, but not journalled, when it asks for its next segment. With the segment
    itself these are the 16 MiB that a kill may cost per connection, bytes in the kernel's buffers included."""

    pending_bytes: int = 16 * MIB
    """Over all connections, and more while a sync runs: then the journal is written at once. With what each connection
    has of a piece these are the 64 MiB that a kill may cost in all."""

    piece_seconds: float = 0.5
    """After which a slow connection ends a piece before it is whole, for the same reason."""

    ahead_bytes: int = 512 * MIB
    """How far connections may be ahead of the hash: beyond it the page cache would not hold what is to be hashed."""

    allocated_ahead_bytes: int = 512 * MIB
    """How far the disk's blocks are allocated beyond what is written, or as much again as is written: a size is what
    a server claims. Connections write up to `ahead_bytes` beyond the hash, so this is 1 GiB beyond what has come."""

    first_connections: int = 2
    connections_per_file: int = 16
    connections_per_host: int = 24
    """Over all files and jobs: more than one file uses, less than what servers take for an attack."""

    growth_window_seconds: float = 0.12
    growth_factor: float = 1.15
    """Twice the connections must bring this many times as much, or their number goes back."""

    growth_rest_seconds: float = 15.0
    """After which more connections are tried again: the network may have changed."""

    tries_without_progress: int = 8
    """Rounds of failures that brought nothing, after which a source is given up: with the delays below up to 90 s, in
    which a server can be started again."""

    tries_with_alternative: int = 2
    """The same, when another source can give the bytes."""

    progress_bytes: int = MIB
    """What has to arrive between two failures to reset their count: a few bytes must not keep a source for ever."""

    first_delay_seconds: float = 0.5
    longest_delay_seconds: float = 30.0
    longest_retry_after_seconds: float = 300.0
    """A source that demands a longer wait is given up, and the error says how long."""

    breaker_seconds: float = 30.0
    """How long a host on which three requests failed within a minute is left alone."""

    restarts: int = 3
    """From the first byte, because the file changed at its source."""

    poll_seconds: float = 0.05
    """How often progress is reported and a stop is checked for."""

    journal_seconds: float = 2.0
    """After which pieces are journalled even when no connection waits for it."""


DEFAULT: Final = Tuning()
