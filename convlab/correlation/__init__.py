"""One call of `corr2d`: its arguments, checks, integers, gradients, and calls that repeat."""
