"""events.subscribe: the activity log from a point on, then live."""
