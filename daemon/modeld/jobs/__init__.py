"""Admitted work: durable, shared by all requests for the same, followed from any connection."""
