"""A model in another framework."""
