"""The content-addressed store. It knows nothing of jobs, sockets or events: callers use `store.Store`."""
