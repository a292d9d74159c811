"""The moving of bytes: connections, their number and pace, one fetch for everybody who asks."""
