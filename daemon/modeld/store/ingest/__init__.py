"""How local files come in: from the path that somebody names to a blob under a published name."""
