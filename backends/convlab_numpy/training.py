"""Gradient descent with the gradient written out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from convlab.descent import parameters_state
from convlab.errors import UnsupportedError
from convlab.problem import Problem, tile
from convlab.rules import Rule

from .ops import ops


def draw(shape: tuple[int, ...], groups: int, use_bias: bool, dtype: str) -> tuple[np.ndarray, np.ndarray | None]:
    """`torch.nn.Conv2d`'s distribution, from NumPy's generator."""
    bound = 1 / np.sqrt(np.prod(shape[1:]))
    return np.random.uniform(-bound, bound, shape), np.random.uniform(-bound, bound, shape[:1]) if use_bias else None


class Descent:
    def __init__(
        self,
        problem: Problem,
        pairs: Sequence[Sequence[np.ndarray]],
        kernel: np.ndarray,
        bias: np.ndarray | None,
        optimizer: Any = None,
    ) -> None:
        if optimizer is not None:
            raise UnsupportedError(
                "optimizer: NumPy has none, expected None.", hint="learn on a framework, whose optimisers work."
            )
        self.problem = problem
        self.tiles = [tile(problem, *pair, *[None] * (3 - len(pair))) for pair in pairs]
        self._set(kernel, bias)

    def _set(self, kernel: np.ndarray, bias: np.ndarray | None) -> None:
        dtype = self.problem.dtype
        self.kernel = self.problem.to_oihw(kernel).astype(dtype)
        self.bias = None if bias is None else bias.astype(dtype)

    def run(self, steps: int, lr: float) -> list[float]:
        losses = []
        for _ in range(steps):
            loss, slope, shift = 0.0, np.zeros_like(self.kernel), 0.0
            for x, y, weights, geometry, _ in self.tiles:
                error = Rule("y", geometry, algorithm="auto").compute(ops, x, self.kernel) - y
                if self.bias is not None:
                    error += self.bias[:, None, None]
                seed = error if weights is None else error * weights
                loss += float((seed * error).sum())
                slope += Rule("k", geometry, algorithm="auto").compute(ops, x, 2 * seed)
                shift += 2 * seed.sum((0, 2, 3))
            self.kernel = (self.kernel - lr * slope).astype(self.kernel.dtype)
            self.bias = None if self.bias is None else (self.bias - lr * shift).astype(self.bias.dtype)
            losses.append(loss)
        return losses

    @property
    def found(self) -> tuple[np.ndarray, np.ndarray | None]:
        return self.problem.from_oihw(self.kernel), self.bias

    def state(self) -> dict[str, np.ndarray]:
        return parameters_state(*self.found)

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self._set(state["kernel"], state.get("bias"))
