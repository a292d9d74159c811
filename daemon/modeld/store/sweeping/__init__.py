"""Removing what nothing holds any more."""
