"""What names mean: manifests, the trees that show several files, and the index that answers about them."""
