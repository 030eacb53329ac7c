"""The chapter's gradient descent, with the gradient written out."""

from __future__ import annotations

import numpy as np

from convlab.geometry import Geometry, Pair

from .ops import ops


class Descent:
    def __init__(self, x: np.ndarray, y: np.ndarray, size: Pair, init: np.ndarray | None) -> None:
        self.x, self.y, self.geometry = x, y, Geometry(size)
        if init is None:
            bound = 1 / np.sqrt(size[0] * size[1])
            init = np.random.uniform(-bound, bound, size)
        self.weight = np.array(init, x.dtype).reshape(1, 1, *size)

    def step(self, lr: float) -> float:
        error = ops.conv(self.x, self.weight, self.geometry) - self.y
        gradient = ops.conv_vjp(self.x, self.weight, 2 * error, self.geometry)[1]
        self.weight = (self.weight - lr * gradient).astype(self.weight.dtype)
        return float((error * error).sum())

    @property
    def kernel(self) -> np.ndarray:
        return self.weight[0, 0]
