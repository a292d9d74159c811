"""A download that is not yet whole: its extents, its journal, what is proven of it."""
