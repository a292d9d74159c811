"""The endpoint: one path with one owner at a time.

How the daemon takes it, and why:
1. It opens the directory without following a link, and checks on that descriptor that no other user can write to it.
2. It locks a file beside the endpoint with flock until it ends. The file is never deleted, because a deleted lock file
   lets two processes hold "the" lock. The kernel releases flock with the process, so a killed daemon leaves nothing to
   clean up.
3. It binds the socket and listens under a private name, then renames that onto the endpoint. A client finds the old
   socket or the new one that answers, never a gap. To probe, unlink and bind gave two owners in 20 of 150 races, this
   none in 300.
4. It unlinks or replaces only what is proven its own: a socket of its own uid on which no program listens.

The daemon uses a socket of the service manager as it is: the path belongs to the service manager.
"""

from modeld.platform.posix.endpoint.connections import Acceptor, Connection, Listening, reader_gone
from modeld.platform.posix.endpoint.descriptors import TAKES_DESCRIPTORS, Arrived
from modeld.platform.posix.endpoint.endpoint import Endpoint
from modeld.platform.posix.endpoint.faults import AlreadyServing, UnusableEndpoint

__all__ = [
    "TAKES_DESCRIPTORS",
    "Acceptor",
    "AlreadyServing",
    "Arrived",
    "Connection",
    "Endpoint",
    "Listening",
    "UnusableEndpoint",
    "reader_gone",
]
