"""What bytes say about themselves: today the format of a model file."""
