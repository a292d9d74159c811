"""Admitted work: durable, shared by everyone who asks for the same, followed from any connection."""
