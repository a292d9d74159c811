"""Files in xet storage, read by hf-xet in a child process: what it needs in memory is never the daemon's."""
