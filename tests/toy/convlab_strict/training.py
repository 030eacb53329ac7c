"""Gradient descent: without autograd, with the gradient that convlab can compute on any backend."""

from typing import Any

import numpy as np

from convlab.geometry import Pair
from convlab.reproducible import descend

from .ops import ops


class Descent:
    """`convlab.learn.Descent` on images (N, 1, H, W)."""

    def __init__(self, x: Any, y: Any, size: Pair, init: np.ndarray | None) -> None:
        init = np.random.default_rng().uniform(-1, 1, size) if init is None else init
        self.x, self.y = x, y
        self.weight = ops.asarray(np.reshape(init, (1, 1, *size)), ops.dtype(x))

    def step(self, lr: float) -> Any:
        """The loss before the step."""
        loss, self.weight = descend(ops, self.x, self.y, self.weight, ops.asarray(np.array(lr), "float64"))
        return loss

    @property
    def kernel(self) -> Any:
        """(h, w)."""
        return self.weight[0, 0, :, :]
