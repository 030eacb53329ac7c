"""The layer and the training loop of backends that have none of their own: NumPy arrays, gradients written out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Unpack

import numpy as np

from ..contract.layer import LayerArguments, LayerSpec
from ..contract.native_layer import NativeLayer
from ..contract.rule import Rule
from ..correlation.compute import compute
from ..correlation.corr2d import corr2d
from ..reference import ops
from .descent import DescentBase
from .window_sums import PreparedImages


class PlainConv2D:
    """`corr2d` with a weight and a bias, both NumPy arrays; a subclass names its backend.

    Without a seed the initial weight is drawn from NumPy's global generator.
    """

    backend: ClassVar[str]

    def __init__(self, *sizes: Any, **arguments: Unpack[LayerArguments]) -> None:
        options, _ = NativeLayer().arguments(sizes, arguments)
        self.spec = LayerSpec(**options)
        self.weight: np.ndarray | None = None
        self.bias: np.ndarray | None = None
        if not self.spec.lazy:
            self._build()

    def _build(self) -> None:
        spec = self.spec
        if spec.seed is None:
            spec = replace(spec, seed=int(np.random.randint(2**31)))
        dtype = self.spec.dtype or "float32"
        self.weight = spec.seeded().astype(dtype)
        self.bias = np.zeros(spec.bias_shape, dtype) if spec.use_bias else None

    def __call__(self, X: Any) -> Any:
        """corr2d(X, weight, bias=bias) with the layer's geometry."""
        if self.weight is None:
            self.spec = self.spec.fit(np.shape(X))
            self._build()
        return corr2d(X, self.weight, bias=self.bias, backend=self.backend, **self.spec.call)

    def __repr__(self) -> str:
        return f"Conv2D({self.spec})"


def draw(shape: tuple[int, ...], groups: int, use_bias: bool, dtype: str) -> tuple[np.ndarray, np.ndarray | None]:
    """`torch.nn.Conv2d`'s distribution, from NumPy's generator: see `convlab.learning.descent.Descent`."""
    bound = 1 / np.sqrt(np.prod(shape[1:]))
    return np.random.uniform(-bound, bound, shape), np.random.uniform(-bound, bound, shape[:1]) if use_bias else None


def slopes(images: PreparedImages, kernel: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """The squared error of a kernel (OIHW) and its gradients, one number after another, in float64."""
    x, y, weights, geometry, _ = images
    # A descent that diverges overflows without warnings.
    with ops.scope(None):
        error = compute(ops, Rule("y", geometry, algorithm="auto"), x, kernel) - y
        if bias is not None:
            error += bias[:, None, None]
        seed = error if weights is None else error * weights
        slope = compute(ops, Rule("k", geometry, algorithm="auto"), x, 2 * seed)
        shift = [] if bias is None else 2 * seed.sum((0, 2, 3), dtype=np.float64)
        return np.concatenate([[(seed * error).sum(dtype=np.float64)], slope.ravel(), shift])


class PlainDescent(DescentBase):
    """`convlab.learning.descent.Descent` by `slopes`; a subclass adds up those of its images."""

    def set_parameters(self, kernel: np.ndarray, bias: np.ndarray | None) -> None:
        """See `DescentBase.set_parameters`."""
        dtype = self.problem.dtype
        self.kernel = self.problem.to_oihw(kernel).astype(dtype)
        self.bias = None if bias is None else bias.astype(dtype)

    def slopes(self) -> np.ndarray:
        """The squared error and its gradients, as `slopes` gives them, summed over all images."""
        raise NotImplementedError

    def run(self, steps: int, lr: float) -> list[float]:
        """See `convlab.learning.descent.Descent.run`."""
        losses = []
        for _ in range(steps):
            loss, slope, shift = np.split(self.slopes(), [1, 1 + self.kernel.size])
            # A descent that diverges overflows without warnings.
            with np.errstate(over="ignore"):
                self.kernel = (self.kernel - lr * slope.reshape(self.kernel.shape)).astype(self.kernel.dtype)
                self.bias = None if self.bias is None else (self.bias - lr * shift).astype(self.bias.dtype)
            losses.append(float(loss[0]))
        return losses

    @property
    def found(self) -> tuple[np.ndarray, np.ndarray | None]:
        """See `convlab.learning.descent.Descent.found`."""
        return self.problem.from_oihw(self.kernel), self.bias
