"""The daemon. Rooms import downward only; pyproject.toml has the order, and `make check` holds the code to it."""
