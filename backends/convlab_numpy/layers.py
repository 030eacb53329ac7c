"""convlab's layer for NumPy: a callable with a weight and a bias."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Unpack

import numpy as np

from convlab.corr import corr2d
from convlab.geometry import Pair
from convlab.layers import LayerOptions, LayerSpec


class Conv2D:
    """`corr2d` with a weight and a bias. Without a seed the initial weight is drawn from NumPy's global generator.

    >>> layer = Conv2D((1, 2), seed=0)
    >>> layer.weight = np.array([[1.0, -1.0]])
    >>> layer(np.array([[1.0, 0.0, 0.0]]))
    array([[1., 0.]])
    """

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

    def __call__(self, X: Any) -> np.ndarray:
        """corr2d(X, weight, bias=bias) with the layer's geometry."""
        if self.weight is None:
            self.spec = self.spec.fit(np.shape(X))
            self._build()
        return np.asarray(corr2d(X, self.weight, bias=self.bias, backend="numpy", **self.spec.call))

    def __repr__(self) -> str:
        return f"Conv2D({self.spec})"
