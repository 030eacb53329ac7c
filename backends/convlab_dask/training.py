"""The chapter's gradient descent, with the gradient written out: each step reads the images once, chunk by chunk."""

from __future__ import annotations

from typing import Any

import dask
import dask.array as da
import numpy as np

from convlab.geometry import Geometry, Pair

from .ops import ops


class Descent:
    def __init__(self, x: da.Array, y: da.Array, size: Pair, init: np.ndarray | None) -> None:
        self.x, self.y, self.geometry = x, y, Geometry(size)
        if init is None:
            bound = 1 / np.sqrt(size[0] * size[1])
            init = np.random.uniform(-bound, bound, size)
        self.weight = np.array(init, x.dtype)

    def step(self, lr: float) -> float:
        (h, w), (rows, columns) = self.weight.shape, self.y.shape[2:]
        x = self.x.astype("float64")
        kernel = da.from_array(self.weight.astype("float64")[None, None])
        error = ops.conv(x, kernel, self.geometry) - self.y
        met: Any = [[x[..., p : p + rows, q : q + columns] for q in range(w)] for p in range(h)]
        gradient = [[2 * (error * window).sum() for window in line] for line in met]
        loss, slope = dask.compute((error * error).sum(), gradient)
        self.weight = (self.weight - lr * np.array(slope)).astype(self.weight.dtype)
        return float(loss)

    @property
    def kernel(self) -> da.Array:
        return da.from_array(self.weight)
