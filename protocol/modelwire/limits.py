"""Every number that bounds the wire, with the reason for it.

They are announced in `hello` where a peer needs to know them, and the configuration may
lower or raise those that protect the daemon from its peers.
"""

MIB = 1024 * 1024

PROTOCOL_MIN = 1
PROTOCOL_MAX = 1

MAX_REQUEST = 1 * MIB
"""A request is a name, a path, a few options: 1 MiB is three orders above the largest real one."""

MAX_REPLY = 8 * MIB
"""A list of 10,000 models takes about 4 MiB; longer lists are paged by the daemon."""

MAX_ID_BYTES = 64
"""Room for a UUID with a prefix; more would let a peer store text in the daemon's tables."""

LICENSE = 1024
"""Characters of a license's name or address. Every list of models holds it, so it must not be the license's text."""

DOCUMENT = 16 * 1024
"""Bytes of the document of a model: one that lists the thousand classes of a detector has 20,000."""

CREDENTIALS = 4096
"""Characters that a pull may bring to authenticate itself: a signed token has about a thousand."""

SIGNATURE = 768 * 1024
"""Characters of a model's signature, which lists 1,500 files. With its key it fits into a request; the quotes and the
line ends that JSON escapes are few, for nearly all of it is base64."""

SIGNERS = 192 * 1024
"""Characters of a public key, or of root certificates: a hundred of them, where all that browsers trust take 220 KB."""

FILES_OFFERED = 64
"""Descriptors with one line: the kernel takes at most 253 in a message, and a client whose limit is the usual 1,024 has
these open at a time, however many files the model has."""

DESCRIPTORS_PER_PEER = 1024
"""Open files that one user has handed over, over all connections and jobs: as many as a process of theirs could have
open by the usual limit, and a sixty-fourth of what the service's unit gives the daemon."""

LEASES_PER_PEER = 256
"""Of one user: several for each of its connections."""

PURPOSE = 200
"""Characters of a lease's purpose, which each list of models repeats."""

LEASE_SECONDS = 3600.0
"""The life of a detached lease of which nobody says how long it is."""

LONGEST_LEASE_SECONDS = 30 * 86_400.0
"""A program that needs a model for longer acquires another lease before this one ends."""

CONNECTIONS_PER_PEER = 64
REQUESTS_PER_PEER = 64
"""In flight, over all the peer's connections. Reads are answered at once and never count."""

WAITING_PER_PEER = 16
WAITING_TOTAL = 64
"""A longer queue only hides that the machine cannot keep up: refuse early, with a hint when to return."""

WRITE_STALL_SECONDS = 60.0
"""A reply that is not taken for this long ends that connection, and only that one."""

REPLY_SECONDS = 30.0
"""A client's patience with a plain answer. Reads take microseconds; a daemon that is silent for this long is stuck."""

READ_STALL_SECONDS = 30.0
"""Half a request that does not go on for this long is dropped: even a person who types frames by hand is faster."""

WATCHER_QUEUE = 256
"""Events a watcher may be behind before `lagged`; the log fills the gap."""

PROGRESS_INTERVAL_SECONDS = 0.1
"""At most ten progress replies a second for each request: a person reads no faster."""
