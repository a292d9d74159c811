"""What this machine offers to models: memory, graphics cards, processors and providers."""
