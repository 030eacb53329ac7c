"""Layers that resize images NHWC as `keras.layers.Resizing` doesn't."""

from __future__ import annotations

from typing import Any

import keras
from keras.saving import register_keras_serializable

from convlab.geometry.checks import pair
from convlab.geometry.geometry import Pair

from .image_layers import Moving, linear_weights


@register_keras_serializable(package="convlab")
class Resize(Moving):
    """The image with so many rows and columns.

    Args:
        size: how many.
        method: one of `convlab.models.layers.resizing.METHODS`.
        align_corners: for "bilinear", whether the corners of both images meet.
    """

    options = ("size", "method", "align_corners")

    def __init__(self, size: int | Pair, method: str, align_corners: bool = False, **names: Any) -> None:
        super().__init__(**names)
        self.size, self.method, self.align_corners = pair("size", size, 1), method, align_corners

    def call(self, x: Any) -> Any:
        """The image of that size."""
        return resized(x, self.size, self.method, self.align_corners)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """See `keras.layers.Layer`."""
        return input_shape[0], *self.size, input_shape[-1]


@register_keras_serializable(package="convlab")
class ResizeLike(Moving):
    """The first of two inputs with the rows and columns of the second.

    Args:
        method: one of `convlab.models.layers.resizing.METHODS`.
        align_corners: for "bilinear", whether the corners of both images meet.
    """

    options = ("method", "align_corners")

    def __init__(self, method: str, align_corners: bool = False, **names: Any) -> None:
        super().__init__(**names)
        self.method, self.align_corners = method, align_corners

    def call(self, inputs: Any) -> Any:
        """The image of that size."""
        x, like = inputs
        return resized(x, keras.ops.shape(like)[1:3], self.method, self.align_corners)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """See `keras.layers.Layer`."""
        x, like = input_shape
        return (*like[:-1], x[-1])


def resized(x: Any, size: Any, method: str, align_corners: bool) -> Any:
    """Images with so many rows and columns; sizes may be tensors."""
    ops, before = keras.ops, keras.ops.shape(x)[1:3]
    if method != "bilinear":
        for axis, (n, m) in enumerate(zip(before, size, strict=True), 1):
            i = ops.arange(m)
            x = ops.take(x, i * n // m if method == "nearest" else (2 * i + 1) * n // (2 * m), axis=axis)
        return x
    rows, columns = (linear_weights(n, m, align_corners, x.dtype) for n, m in zip(before, size, strict=True))
    return ops.einsum("yi,nijc,xj->nyxc", rows, x, columns)
