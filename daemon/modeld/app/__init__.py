"""The composition root: settings in, a running daemon, an exit code out. `modeld.app.run` has the entry."""
