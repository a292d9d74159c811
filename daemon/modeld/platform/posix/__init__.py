"""Linux and macOS. Where the two differ, the function that is called decides."""
