"""The right result, how far rounding may take another one from it, and why a wrong one is wrong."""
