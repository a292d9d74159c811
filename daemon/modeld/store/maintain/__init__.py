"""What is done with models and blobs that are there: verify, count, sweep, recover."""
