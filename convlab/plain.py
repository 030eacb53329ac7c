"""A layer for backends that have no layers of their own: a callable with a weight and a bias."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Unpack

import numpy as np

from .corr import corr2d
from .geometry import Pair
from .layers import LayerOptions, LayerSpec


class PlainConv2D:
    """`corr2d` with a weight and a bias, NumPy arrays both; a subclass names its backend.

    Without a seed the initial weight is drawn from NumPy's global generator.
    """

    backend: ClassVar[str]

    def __init__(self, kernel_size: int | Pair, **options: Unpack[LayerOptions]) -> None:
        self.spec = LayerSpec(kernel_size, **options)
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
