"""The composition root: starts the daemon from its settings, serves, stops, and returns the exit code; see `run`."""
