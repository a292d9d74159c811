"""What the daemon can do, one module for each operation: see `registry`."""
