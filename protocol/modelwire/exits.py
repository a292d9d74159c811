"""The exit codes of `modelctl` and `modeld`. Which error leads to which stands in the table of `modelwire.errors`."""

FINE = 0
FAILED = 1
USAGE = 2
NOT_FOUND = 3
CREDENTIALS = 4
EXISTS = 5
INTEGRITY = 6
BUSY = 7
SPACE = 8
NO_DAEMON = 9
SOURCE = 10
PERMISSION = 13
INTERRUPTED = 130
BROKEN_PIPE = 141
"""128 + SIGPIPE: what the shell shows for any command whose reader left."""
