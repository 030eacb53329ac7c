"""Adaptive pooling, which Keras has from its version 3.15 on, for images whose size is known when it is traced."""

from __future__ import annotations

from typing import Any

import keras
from keras.saving import register_keras_serializable

from .image_layers import Moving


@register_keras_serializable(package="convlab")
class AdaptivePooling(Moving):
    """The greatest number or the mean of so many windows, which lie evenly and may overlap, as in PyTorch.

    Window i of k on an axis of n is from floor(i * n / k) to ceil((i + 1) * n / k).

    Args:
        function: "max" or "average".
        size: how many windows each axis has, or all of them.
        rank: how many axes the images have beside those of images and channels.
    """

    options = ("function", "size", "rank")

    def __init__(self, function: str, size: Any, rank: int = 2, **names: Any) -> None:
        super().__init__(**names)
        self.function, self.rank = function, rank
        self.size = (size,) * rank if isinstance(size, int) else tuple(size)

    def call(self, x: Any) -> Any:
        """The image of that size."""
        for axis, k in enumerate(self.size, 1):
            x = self._along(x, axis, k)
        return x

    def _along(self, x: Any, axis: int, k: int) -> Any:
        ops, n = keras.ops, keras.ops.shape(x)[axis]
        places, windows = ops.arange(n), []
        for i in range(k):
            inside = ops.logical_and(places >= i * n // k, places < -(-(i + 1) * n // k))
            inside = ops.reshape(inside, (-1, *(1,) * (len(x.shape) - axis - 1)))
            if self.function == "max":
                windows.append(ops.max(ops.where(inside, x, ops.cast(float("-inf"), x.dtype)), axis=axis))
            else:
                count = ops.cast(ops.sum(ops.cast(inside, "int32")), x.dtype)
                windows.append(ops.sum(ops.where(inside, x, ops.zeros_like(x)), axis=axis) / count)
        return ops.stack(windows, axis=axis)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """See `keras.layers.Layer`."""
        return input_shape[0], *self.size, input_shape[-1]
