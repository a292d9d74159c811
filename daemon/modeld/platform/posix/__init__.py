"""Linux and macOS. Where the two differ, the function chooses at run time."""
