"""All changes of names: publications, copies, moves and removals, one after the other."""
