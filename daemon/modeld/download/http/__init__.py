"""The HTTP client of the sources: its pool, its proxies, its answers, and bodies that move in threads."""
