"""A model as readable source in its framework's idiom."""
