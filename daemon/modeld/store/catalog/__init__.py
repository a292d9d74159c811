"""What the store remembers beside its files: losing it costs history, never content."""
