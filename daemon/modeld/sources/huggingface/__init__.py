"""A Hugging Face hub: its references, what it is asked, and the two ways to its bytes."""
