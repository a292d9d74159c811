"""The daemon. Rooms import downward only; the order stands in pyproject.toml and is checked."""
