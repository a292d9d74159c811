"""Stands in the daemon's place where a test needs one that starts badly. What it does is in STAND_IN."""
