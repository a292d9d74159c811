"""Benchmarks: each row beside its reference, in the same run, as a ratio with the target next to it."""
