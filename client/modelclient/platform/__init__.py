"""What operating systems do differently, and the one place that chooses an implementation for this machine.

No other module of the client names a socket, a descriptor, a lock or the state of a process. The interfaces are in
`modelclient.platform.interface`; another system implements them in modules of its own and is chosen here.
"""

from __future__ import annotations

from modelclient.platform import posix

TYPE_CHECKING = False  # typing's own takes longer to import than all that the fast path of the command needs
if TYPE_CHECKING:
    from modelclient.platform.interface import Commands, Files, Starting, Streams, System

system: System = posix


def starting() -> Starting:
    """How a daemon is started. Imported when it is needed: a client that finds a daemon does not pay for it."""
    from modelclient.platform import posix_starting

    return posix_starting


def streams() -> Streams:
    """How an anyio program reads and writes. Imports anyio."""
    from modelclient.platform import posix_streams

    return posix_streams


def commands() -> Commands:
    """How a command is run."""
    from modelclient.platform import posix_command

    return posix_command


def files() -> Files:
    """How small files are written so that they last."""
    from modelclient.platform import posix_files

    return posix_files
