"""Bytes under their digests: hashed and written once, then found, checked, set apart when they are wrong."""
