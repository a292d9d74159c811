"""model.pull: the bytes that a reference stands for, fetched once for all jobs that want them, under a name."""
