"""Files in xet storage, read by hf-xet in a child process, so that its memory is not the daemon's."""
