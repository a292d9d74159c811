"""What each user may do here. `modeld.platform` says who has connected; this room decides what that is worth."""
