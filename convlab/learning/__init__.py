"""`learn_kernel`."""
