"""What model files say about themselves: format, header, configuration, and what speaks against them."""
