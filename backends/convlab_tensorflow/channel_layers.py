"""Layers of images NHWC whose channels meet, or become those of squares of pixels."""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

import keras
from keras.saving import register_keras_serializable

from .image_layers import Moving, of_parts


@register_keras_serializable(package="convlab")
class LocalResponseNorm(Moving):
    """x / (k + alpha / size * the sum of the squares of `size` channels about each) ** beta.

    `tf.nn.local_response_normalization(x, size // 2, k, alpha / size, beta)` is the same for an odd size.

    Args:
        size: how many channels.
        alpha, beta, k: see above.
    """

    options = ("size", "alpha", "beta", "k")

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0, **names: Any) -> None:
        super().__init__(**names)
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def call(self, x: Any) -> Any:
        """The image, normalised."""
        channels, before = x.shape[-1], self.size // 2
        widths = [[0, 0]] * (len(x.shape) - 1)
        squares = keras.ops.pad(x * x, [*widths, [before, self.size - 1 - before]])
        sums = reduce(keras.ops.add, [squares[..., start : start + channels] for start in range(self.size)])
        return x / (self.k + self.alpha / self.size * sums) ** self.beta


@register_keras_serializable(package="convlab")
class PartsSoftmax(Moving):
    """The channels in equal parts: a softmax over the parts, for each channel of a part.

    Args:
        parts: how many there are.
    """

    options = ("parts",)

    def __init__(self, parts: int, **names: Any) -> None:
        super().__init__(**names)
        self.parts = parts

    def call(self, x: Any) -> Any:
        """The shares."""
        return of_parts(lambda grouped: keras.ops.softmax(grouped, axis=-2), x, self.parts)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The same."""
        return input_shape


@register_keras_serializable(package="convlab")
class GatedLinearUnit(Moving):
    """The first half of the channels times the sigmoid of the second half."""

    def call(self, x: Any) -> Any:
        """The image of half as many channels."""
        values, gates = keras.ops.split(x, 2, axis=-1)
        return values * keras.ops.sigmoid(gates)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Half as many channels."""
        *size, channels = input_shape
        return *size, None if channels is None else channels // 2


@register_keras_serializable(package="convlab")
class PixelUnshuffle(Moving):
    """Squares of pixels as the channels of one; `tf.nn.space_to_depth` has TensorFlow's order alone.

    Args:
        factor: the rows and columns of the square.
        channels_last: whether the channels of one pixel stay together, as in TensorFlow, or those of one channel, as in
            PyTorch.
    """

    options = ("factor", "channels_last")

    def __init__(self, factor: int, channels_last: bool = False, **names: Any) -> None:
        super().__init__(**names)
        self.factor, self.channels_last = factor, channels_last

    def call(self, x: Any) -> Any:
        """The smaller image."""
        _, rows, columns, _ = keras.ops.shape(x)
        r, channels = self.factor, x.shape[-1]
        squares = keras.ops.reshape(x, (-1, rows // r, r, columns // r, r, channels))
        squares = keras.ops.transpose(squares, (0, 1, 3, 2, 4, 5) if self.channels_last else (0, 1, 3, 5, 2, 4))
        return keras.ops.reshape(squares, (-1, rows // r, columns // r, channels * r**2))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """So many times fewer rows and columns."""
        n, rows, columns, channels = input_shape
        smaller = [None if size is None else size // self.factor for size in (rows, columns)]
        return n, *smaller, channels * self.factor**2


@register_keras_serializable(package="convlab")
class Anchors(Moving):
    """The channels of each pixel in equal parts, which become pixels side by side.

    Args:
        count: how many parts there are.
    """

    options = ("count",)

    def __init__(self, count: int, **names: Any) -> None:
        super().__init__(**names)
        self.count = count

    def call(self, x: Any) -> Any:
        """The image, (N, H, W * count, C / count)."""
        _, rows, columns, channels = keras.ops.shape(x)
        return keras.ops.reshape(x, (-1, rows, columns * self.count, channels // self.count))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """So many times the columns."""
        n, rows, columns, channels = input_shape
        return n, rows, None if columns is None else columns * self.count, channels // self.count


@register_keras_serializable(package="convlab")
class ConcatenatePixels(Moving):
    """The pixels of images, one image after another, as images of one column."""

    def call(self, values: Any) -> Any:
        """The image, (N, pixels, 1, C)."""
        columns = [keras.ops.reshape(x, (-1, math.prod(keras.ops.shape(x)[1:3]), 1, x.shape[-1])) for x in values]
        return keras.ops.concatenate(columns, axis=1)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Of images whose sizes may be unknown."""
        pixels = [_pixels(shape) for shape in input_shape]
        return input_shape[0][0], None if None in pixels else sum(pixels), 1, input_shape[0][-1]  # type: ignore[arg-type]


@register_keras_serializable(package="convlab")
class Tokens(Moving):
    """The pixels of images as the tokens of a sequence, (N, H * W, C)."""

    def call(self, x: Any) -> Any:
        """The tokens."""
        return keras.ops.reshape(x, (-1, math.prod(keras.ops.shape(x)[1:3]), x.shape[-1]))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """As many tokens as pixels."""
        return input_shape[0], _pixels(input_shape), input_shape[-1]


def _pixels(shape: Any) -> int | None:
    """How many pixels images of a shape have; None where that is unknown."""
    return None if None in shape[1:3] else math.prod(shape[1:3])
