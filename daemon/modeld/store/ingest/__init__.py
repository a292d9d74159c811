"""The one way in: a producer stages files, a batch commits them, each new blob is looked at, the model is published."""
