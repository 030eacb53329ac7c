"""`HostMemory`: what the compiled kernels need of a backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .arrays import Arrays, T


class HostMemory(Arrays[T]):
    """CPU tensors as NumPy arrays in the same memory."""

    def as_host(self, x: T) -> np.ndarray:
        """A CPU tensor's own memory as a NumPy array, without its gradient, for reading; never asked for bfloat16."""
        return self.to_numpy(x)

    def host_empty(self, shape: Sequence[int], dtype: Any) -> np.ndarray:
        """Memory that `from_host` needn't copy."""
        return np.empty(shape, dtype)

    def from_host(self, array: np.ndarray, like: T) -> T:
        """A tensor in a NumPy array's memory, which nothing else will use, of `like`'s framework and device."""
        return self.asarray(array, array.dtype.name, like)
