"""The move of the whole store to another directory, and the removal of the one it was in before."""
