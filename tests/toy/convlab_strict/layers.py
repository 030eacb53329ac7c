"""The layer: a framework's own kind of object; here, where there is none, a callable with a weight and a bias."""

from typing import Any, Unpack

import numpy as np

from convlab.contract.layer import LayerArguments, LayerSpec
from convlab.contract.native_layer import NativeLayer
from convlab.correlation.corr2d import corr2d

from .ops import ops


class Conv2D:
    """`corr2d` with a weight and a bias; with `out_channels` it needs `in_channels`."""

    def __init__(self, *sizes: Any, **arguments: Unpack[LayerArguments]) -> None:
        options, _ = NativeLayer().arguments(sizes, arguments)
        self.spec = LayerSpec(**options)
        dtype = self.spec.dtype or "float32"
        self.weight = ops.asarray(self.spec.seeded(), dtype)
        self.bias = ops.asarray(np.zeros(self.spec.bias_shape), dtype) if self.spec.use_bias else None

    def __call__(self, X: Any) -> Any:
        """corr2d(X, weight, bias=bias) with the layer's geometry."""
        return corr2d(X, self.weight, bias=self.bias, backend="strict", **self.spec.call)
