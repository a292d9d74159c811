"""A Hugging Face hub: its references, its API, and its files by plain HTTP or from xet storage."""
