"""Where models come from: how each kind of place is written, described and read.

A kind is one module, or one package when it is big: its reference with the parser, its source, its mirrors, and the
rule of `credentials` that it follows. `kinds` lists them all, `parse` reads a text, `sources` gives the source of a
reference. A source is made once for an endpoint, with the HTTP client of the daemon. It reads credentials when it
needs them, keeps none on disk, and gives them to the host that they belong to.
"""
