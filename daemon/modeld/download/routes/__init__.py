"""Which source is asked next, and which must not be asked for a while."""
