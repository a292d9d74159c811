"""model.pull: what a reference means, fetched once for everybody who asks for it, and published under a name."""
