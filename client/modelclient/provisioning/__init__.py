"""The client's side of provisioning: the file that says which models a machine needs, and the file that hands a model's
path to an engine."""
