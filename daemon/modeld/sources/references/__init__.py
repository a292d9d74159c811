"""What people write to say where a model is, parsed once into a typed value."""
