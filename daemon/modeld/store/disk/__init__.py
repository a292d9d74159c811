"""Where things lie in a store, and the system calls on them: paths, syncs, links, listings, locks, room."""
