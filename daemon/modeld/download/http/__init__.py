"""The HTTP client of the sources: its pool, its proxies, its answers, and their bodies."""
