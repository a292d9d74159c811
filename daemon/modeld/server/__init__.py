"""Serves the wire to peers: accepting them, one connection each, limits for each user."""

from modeld.server.server import Server

__all__ = ["Server"]
