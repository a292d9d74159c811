"""Where bytes come from: each module knows one kind of source, and only how to describe and to open.

A source is made once for an endpoint, with the HTTP client of the daemon and with where its credentials are found. It
reads credentials when it needs them, keeps none on disk, and gives them to the host that they belong to.
"""
