"""Which source is asked next, and which is left alone for a while."""
