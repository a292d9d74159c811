"""What is known of a model beside its bytes: the document that describes it, what it needs, and where it stands.

Pure rules, the same for the daemon and for its clients.
"""
