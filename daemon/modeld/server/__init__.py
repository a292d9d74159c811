"""Serves the wire: accepts peers, serves their connections, and limits each user."""

from modeld.server.server import Server

__all__ = ["Server"]
