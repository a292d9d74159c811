"""One module for each verb: `configure(parser)` adds its arguments, `run(session, args)` gives the exit code.

A module is imported when its verb is called. Which verbs there are stands in `modelclient.ctl.options`.
"""
