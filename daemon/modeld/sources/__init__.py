"""Where models come from: how each kind of place is written as a reference, described and read.

A kind is one module, or one package when it is big: its reference with the parser, its source, its mirrors, and its
rule for credentials. `kinds` lists all kinds, `parse` parses a reference, `sources` returns the source of a reference.
The daemon makes a source once for an endpoint, with its HTTP client. A source reads credentials when it needs them,
writes none to disk, and sends them only to the host that they are for.
"""
