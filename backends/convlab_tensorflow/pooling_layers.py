"""Adaptive pooling, which Keras has from its version 3.15 on, for images of known sizes alone; means with a border."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras.saving import register_keras_serializable

from convlab.models.layers.spatial import per_axis

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


@register_keras_serializable(package="convlab")
class PaddedAverage(Moving):
    """The mean of each window, with a border that Keras's own layer hasn't got.

    Args:
        pool_size, strides: of the windows, a number, or one for each axis.
        padding: "same", a border of zeros that counts; or what doesn't count: a number, one for each axis, or a pair
            for each axis.
        rank: how many axes the images have beside those of images and channels.
    """

    options = ("pool_size", "strides", "padding", "rank")

    def __init__(self, pool_size: Any, strides: Any, padding: Any = "same", rank: int = 2, **names: Any) -> None:
        super().__init__(**names)
        self.pool_size, self.strides, self.rank = per_axis(pool_size, rank), per_axis(strides, rank), rank
        each = () if isinstance(padding, str) else per_axis(padding, rank)
        self.padding = padding if isinstance(padding, str) else tuple(per_axis(ends, 2) for ends in each)

    def call(self, x: Any) -> Any:
        """The means."""
        ones = keras.ops.ones_like(x[:1, ..., :1])
        if self.padding == "same":
            means = keras.ops.average_pool(x, self.pool_size, self.strides, "same")
            share = keras.ops.full((*self.pool_size, 1, 1), 1 / math.prod(self.pool_size), x.dtype)
            return means * keras.ops.conv(ones, share, self.strides, "same")
        widths = ((0, 0), *self.padding, (0, 0))
        means, shares = (
            keras.ops.average_pool(keras.ops.pad(each, widths), self.pool_size, self.strides) for each in (x, ones)
        )
        return means / shares

    def compute_output_shape(self, input_shape: Any) -> Any:
        """As many pixels as there are windows."""
        n, *size, channels = input_shape
        sizes: list[int | None] = []
        for axis, pixels in enumerate(size):
            k, s = self.pool_size[axis], self.strides[axis]
            more = k - 1 if self.padding == "same" else sum(self.padding[axis])
            sizes.append(None if pixels is None else (pixels + more - k) // s + 1)
        return n, *sizes, channels
