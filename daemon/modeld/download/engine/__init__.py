"""Fetching a file: its attempts, their connections and how many, retries, the bandwidth budget."""
