"""The shell around the wire: accepting peers, one connection each, limits for each user."""

from modeld.server.server import Server

__all__ = ["Server"]
