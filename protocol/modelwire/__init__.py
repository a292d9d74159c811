"""The wire of modeld: types, frames, errors and the state of a connection. No I/O; nothing but msgspec is imported.

Nothing is imported here either: `modelctl path` needs `modelwire.endpoint` within a millisecond.
"""
