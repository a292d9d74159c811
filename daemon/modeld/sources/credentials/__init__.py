"""User names, passwords and tokens for sources, from the files in which other tools keep them."""
