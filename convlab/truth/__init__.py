"""What the right result is, how far rounding may take one from it, and why a wrong one is wrong."""
