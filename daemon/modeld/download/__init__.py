"""Bytes from elsewhere into the store: sources in their order, resumed, verified, within a budget.

The room knows the store and nothing of jobs, operations or sockets. `transfer` is its door, `source` the seam behind
which each kind of source lives.
"""
