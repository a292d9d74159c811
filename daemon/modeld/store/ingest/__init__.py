"""The way into the store: a producer stages files, a batch commits them and inspects each new blob, the model is
published."""
