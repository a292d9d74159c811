"""What is done with models that are there: naming, removing, verifying, counting, recovering."""
