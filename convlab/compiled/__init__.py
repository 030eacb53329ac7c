"""Kernels that numba compiles, on the memory of CPU tensors."""
