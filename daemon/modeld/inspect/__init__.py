"""Facts found in the bytes of a model file: its format."""
