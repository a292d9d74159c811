"""The one place where what is visible changes, one change after the other."""
