"""Downloads into the store: from sources in their order, resumed, verified, within a budget.

The room knows the store and nothing of jobs, operations or sockets. `engine.downloads` is its entry, `source` the
interface that each kind of place in `modeld.sources` implements.
"""
