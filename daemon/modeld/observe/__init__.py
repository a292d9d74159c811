"""What the daemon reports about itself: its own log, the service manager, redaction of secrets, unforeseen errors."""
