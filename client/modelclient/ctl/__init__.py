"""The `modelctl` command: `fast_path` answers the plain `path NAME` within milliseconds, `command` does everything."""
