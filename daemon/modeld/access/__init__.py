"""The role of each user. `modeld.platform` identifies the user of a connection; this room decides the role."""
