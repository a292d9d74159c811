"""What the daemon needs from the operating system beyond Python's portable calls. Nothing outside of this room names a
module, a constant, a system call or a path that some systems lack; `make check` checks that.

Each family of systems has a package: `posix` is for Linux and macOS. This file is the only place that chooses between
them; callers write `from modeld.platform import locks`. Another family, such as Windows, is a package beside `posix`
with the same modules, and a branch here:

accounts    names and groups of users; blocks, so `modeld.access` calls it in a thread of its own
clock       seconds that no setting of the time changes, and a calendar for what expires
children    how a child process depends on its parent, and the pipe between them
durable     reads and writes at an offset, syncs, allocation, clones, renames that replace nothing or exchange two names
endpoint    ownership of the path at which clients connect, and the connections to it
files       an open file: its path, a second name for it, a second descriptor, its access list, who writes to it
graphics    the graphics cards that the kernel lists
hardware    the memory and the processors of the machine
locks       a file that is locked for as long as a process lives, and that describes its holder
memory      what the heap keeps, and gives back
notify      one datagram to the service manager
nvml        NVIDIA cards, by the library of their driver
peers       the user at the other end of a connection; `UserId` is how the system identifies a user
polling     whether a descriptor is ready, now or within a time
priority    how important the work of a thread is to the disk
watches     whether files have changed, without a look at the disk

The modules raise OSError; their callers decide what a failure means to a client. Only `endpoint` raises errors for
clients, because the reasons why a path cannot be an endpoint differ from system to system.

All modules are imported together, also by a child process that needs one function: so nothing here imports asyncio,
dataclasses or secrets, which would cost each child up to 6 MB and 40 ms.
"""

from modeld.platform.posix import (
    accounts,
    children,
    clock,
    durable,
    endpoint,
    files,
    graphics,
    hardware,
    locks,
    memory,
    notify,
    nvml,
    peers,
    polling,
    priority,
    watches,
)

__all__ = [
    "accounts",
    "children",
    "clock",
    "durable",
    "endpoint",
    "files",
    "graphics",
    "hardware",
    "locks",
    "memory",
    "notify",
    "nvml",
    "peers",
    "polling",
    "priority",
    "watches",
]
