"""One module for each verb: `configure(parser)` adds its arguments, `run(session, args)` returns the exit code.

A module is imported when its verb is called. The table of verbs is in `modelclient.ctl.command_line`.
"""
