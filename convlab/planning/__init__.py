"""Which algorithm computes a correlation fastest, and computing it."""
