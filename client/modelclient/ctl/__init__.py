"""The `modelctl` command: `door` answers the plain `path NAME` within milliseconds, `command` does everything."""
