"""Manifests, the trees that show models of several files, and the index that resolves names."""
