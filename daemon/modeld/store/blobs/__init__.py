"""Blobs: files named by their digest. Hashing, look-up, verification, quarantine."""
