"""One module for each verb. `configure(parser)` adds its arguments, if it has any; `run(session, args)` does the work,
raises an error or returns an exit code, and None for success.

A module is imported when its verb is called. The table of verbs is in `modelclient.ctl.command_line`.
"""
