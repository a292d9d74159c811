"""Buckets: `source` describes objects and gives their bytes, `listing` lists a prefix in a child process."""
