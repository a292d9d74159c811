"""The store's paths and the system calls on them: syncs, links, listings, locks, free space."""
