"""What the daemon asks of the operating system beyond Python's portable calls. Nothing outside of this room names a
module, a constant, a system call or a path that one system has and another has not; `make check` holds the code to it.

One package for each family of systems: `posix` is Linux and macOS. This file is the only place that chooses between
them, and callers write `from modeld.platform import locks`. A further family, Windows for one, is a package beside
`posix` with the same modules and a branch here:

accounts    names and groups of users; blocks, so `modeld.access` asks in a thread of its own
children    what a child process does about its parent, and the pipe between them
durable     reads and writes at an offset, syncs, allocation, clones, a name that replaces nothing
endpoint    owning the path at which clients connect, and the connections that come there
files       an open file: a second name for it, opening it anew, its access list, who has it open for writing
locks       a file locked for as long as a process lives, with its holder's words in it
notify      one datagram for the service manager
peers       who is at the other end of a connection; `UserId` is what the system knows a user by
polling     whether a descriptor is ready, now or within a time

The modules raise OSError and say nothing about what a failure means to a client: their callers do. `endpoint` does say
it, because what keeps a path from being an endpoint differs from system to system.

All of it is imported at once, also by a child process that needs one function: so nothing here imports asyncio,
dataclasses or secrets, which would cost each child up to 6 MB and 40 ms.
"""

from modeld.platform.posix import accounts, children, durable, endpoint, files, locks, notify, peers, polling

__all__ = ["accounts", "children", "durable", "endpoint", "files", "locks", "notify", "peers", "polling"]
