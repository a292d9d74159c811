"""Maintenance of models and blobs: verify, usage, sweep, recovery."""
