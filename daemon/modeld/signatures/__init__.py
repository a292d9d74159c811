"""Signatures of models: whether a bundle holds, whom it names, and whether the files are those that were signed."""
