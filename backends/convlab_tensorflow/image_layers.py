"""Layers of images NHWC that Keras hasn't got: a scale for each channel, and what moves pixels and channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras.saving import register_keras_serializable

from convlab.geometry.checks import pair
from convlab.geometry.geometry import Pair
from convlab.models.layers.formulas import FORMULAS
from convlab.models.layers.spatial import per_axis


@register_keras_serializable(package="convlab")
class ChannelAffine(keras.layers.Layer):  # type: ignore[misc]
    """x * gamma + beta, with one number of each for each channel, the last axis; Keras's `Rescaling` isn't trained.

    Args:
        scale, shift: whether there is a gamma, and whether there is a beta.
        shared: whether there is one number for all channels.
    """

    def __init__(self, scale: bool = True, shift: bool = True, shared: bool = False, **names: Any) -> None:
        super().__init__(**names)
        self.scale, self.shift, self.shared = scale, shift, shared
        self.gamma = self.beta = None

    def build(self, input_shape: Any) -> None:
        """Make the weights."""
        channels = (1 if self.shared else input_shape[-1],)
        if self.scale:
            self.gamma = self.add_weight(shape=channels, initializer="ones", name="gamma")
        if self.shift:
            self.beta = self.add_weight(shape=channels, initializer="zeros", name="beta")
        super().build(input_shape)

    def call(self, x: Any) -> Any:
        """The image with its channels scaled and shifted."""
        y = x if self.gamma is None else x * keras.ops.cast(self.gamma, x.dtype)
        return y if self.beta is None else y + keras.ops.cast(self.beta, x.dtype)

    def get_config(self) -> dict[str, Any]:
        """See `keras.layers.Layer`."""
        return {**super().get_config(), "scale": self.scale, "shift": self.shift, "shared": self.shared}


class Moving(keras.layers.Layer):  # type: ignore[misc]
    """A layer without weights that has numbers for options."""

    data_format = "channels_last"
    options: tuple[str, ...] = ()

    def get_config(self) -> dict[str, Any]:
        """See `keras.layers.Layer`."""
        return {**super().get_config(), **{name: getattr(self, name) for name in self.options}}


@register_keras_serializable(package="convlab")
class Chunk(Moving):
    """One of some equal parts of the channels.

    Args:
        index: which part, from 0.
        count: how many there are.
    """

    options = ("index", "count")

    def __init__(self, index: int, count: int, **names: Any) -> None:
        super().__init__(**names)
        self.index, self.count = index, count

    def call(self, x: Any) -> Any:
        """These channels."""
        size = x.shape[-1] // self.count
        return x[..., self.index * size : (self.index + 1) * size]


@register_keras_serializable(package="convlab")
class ChannelSlice(Moving):
    """Some of the channels that follow one another.

    Args:
        start: the first.
        stop: the one behind the last; 0 for all up to the last.
    """

    options = ("start", "stop")

    def __init__(self, start: int, stop: int = 0, **names: Any) -> None:
        super().__init__(**names)
        self.start, self.stop = start, stop

    def call(self, x: Any) -> Any:
        """These channels."""
        return x[..., self.start : self.stop or None]


@register_keras_serializable(package="convlab")
class ChannelPool(Moving):
    """The greatest channel, or the mean or the sum of all, of each pixel.

    Args:
        function: "max", "average" or "sum".
    """

    options = ("function",)

    def __init__(self, function: str, **names: Any) -> None:
        super().__init__(**names)
        self.function = function

    def call(self, x: Any) -> Any:
        """The image of one channel."""
        reduce = {"max": keras.ops.max, "average": keras.ops.mean, "sum": keras.ops.sum}[self.function]
        return reduce(x, axis=-1, keepdims=True)


@register_keras_serializable(package="convlab")
class GlobalSum(Moving):
    """The sum of each channel.

    Args:
        keepdims: whether the result is an image of one pixel, or a row of numbers.
        rank: how many axes the images have beside those of images and channels.
    """

    options = ("keepdims", "rank")

    def __init__(self, keepdims: bool = False, rank: int = 2, **names: Any) -> None:
        super().__init__(**names)
        self.keepdims, self.rank = keepdims, rank

    def call(self, x: Any) -> Any:
        """The sums."""
        return keras.ops.sum(x, axis=[*range(1, self.rank + 1)], keepdims=self.keepdims)


@register_keras_serializable(package="convlab")
class Subsample(Moving):
    """Some of the image's rows and columns: the first, and then each so many further on.

    Args:
        start: the first row and column.
        step: how far the next ones are.
    """

    options = ("start", "step")

    def __init__(self, start: int | Pair, step: int | Pair, **names: Any) -> None:
        super().__init__(**names)
        self.start, self.step = pair("start", start, 0), pair("step", step, 1)

    def call(self, x: Any) -> Any:
        """These rows and columns."""
        return x[:, self.start[0] :: self.step[0], self.start[1] :: self.step[1]]


@register_keras_serializable(package="convlab")
class ChannelShuffle(Moving):
    """The first channel of each group, then the second of each, and so on.

    Args:
        groups: how many groups there are.
    """

    options = ("groups",)

    def __init__(self, groups: int, **names: Any) -> None:
        super().__init__(**names)
        self.groups = groups

    def call(self, x: Any) -> Any:
        """The channels in another order."""
        return of_parts(lambda grouped: keras.ops.swapaxes(grouped, -2, -1), x, self.groups)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The same."""
        return input_shape


def of_parts(function: Callable[[Any], Any], x: Any, count: int) -> Any:
    """A function of the channels in equal parts, (..., parts, channels of a part), as one of images."""
    _, *size, channels = keras.ops.shape(x)
    grouped = keras.ops.reshape(x, (-1, *size, count, x.shape[-1] // count))
    return keras.ops.reshape(function(grouped), (-1, *size, channels))


@register_keras_serializable(package="convlab")
class PixelShuffle(Moving):
    """The channels of each pixel as a square of pixels; `tf.nn.depth_to_space` has TensorFlow's order alone.

    Args:
        factor: the rows and columns of the square.
        channels_last: whether the channels of the result come last, as in TensorFlow, or first, as in PyTorch.
    """

    options = ("factor", "channels_last")

    def __init__(self, factor: int, channels_last: bool = False, **names: Any) -> None:
        super().__init__(**names)
        self.factor, self.channels_last = factor, channels_last

    def call(self, x: Any) -> Any:
        """The larger image."""
        _, rows, columns, _ = keras.ops.shape(x)
        r, channels = self.factor, x.shape[-1] // self.factor**2
        if self.channels_last:
            squares = keras.ops.reshape(x, (-1, rows, columns, r, r, channels))
            squares = keras.ops.transpose(squares, (0, 1, 3, 2, 4, 5))
        else:
            squares = keras.ops.reshape(x, (-1, rows, columns, channels, r, r))
            squares = keras.ops.transpose(squares, (0, 1, 4, 2, 5, 3))
        return keras.ops.reshape(squares, (-1, rows * r, columns * r, channels))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """So many times as many rows and columns."""
        n, rows, columns, channels = input_shape
        larger = [None if size is None else size * self.factor for size in (rows, columns)]
        return n, *larger, channels // self.factor**2


@register_keras_serializable(package="convlab")
class LinearUpSampling(Moving):
    """The image with so many times as many rows and columns, or a sequence or a volume, by linear interpolation.

    Args:
        size: a number, or one for each axis.
        align_corners: whether the corners of both images meet; otherwise pixels are squares, as in `UpSampling2D`.
        rank: how many axes the images have beside those of images and channels.
    """

    options = ("size", "align_corners", "rank")

    def __init__(self, size: Any, align_corners: bool = False, rank: int = 2, **names: Any) -> None:
        super().__init__(**names)
        self.size, self.align_corners, self.rank = per_axis(size, rank), align_corners, rank

    def call(self, x: Any) -> Any:
        """The larger image."""
        for axis, times in enumerate(self.size, 1):
            n = keras.ops.shape(x)[axis]
            weights = linear_weights(n, n * times, self.align_corners, x.dtype)
            last = keras.ops.matmul(keras.ops.moveaxis(x, axis, -1), keras.ops.transpose(weights))
            x = keras.ops.moveaxis(last, -1, axis)
        return x

    def compute_output_shape(self, input_shape: Any) -> Any:
        """So many times as many rows and columns."""
        n, *sizes, channels = input_shape
        larger = [None if size is None else size * factor for size, factor in zip(sizes, self.size, strict=True)]
        return n, *larger, channels


def linear_weights(n: Any, m: Any, align_corners: bool, dtype: Any) -> Any:
    """What each of n rows counts in each of m."""
    if align_corners:
        return aligned_weights(n, m, dtype)
    ops = keras.ops
    centres = (ops.arange(m, dtype=dtype) + 0.5) * ops.cast(n, dtype) / ops.cast(m, dtype) - 0.5
    return weights_at(ops.clip(centres, 0, ops.cast(n - 1, dtype)), n)


def aligned_weights(n: Any, m: Any, dtype: Any) -> Any:
    """What each of n rows counts in each of m, if the corners of both images meet."""
    last = keras.ops.cast(keras.ops.maximum(m - 1, 1), dtype)
    return weights_at(keras.ops.arange(m, dtype=dtype) * keras.ops.cast(n - 1, dtype) / last, n)


def weights_at(places: Any, n: Any) -> Any:
    """What each of n rows counts in rows that lie at places between them."""
    distances = keras.ops.abs(places[:, None] - keras.ops.arange(n, dtype=places.dtype))
    return keras.ops.maximum(1 - distances, 0)


@register_keras_serializable(package="convlab")
class BroadcastLike(Moving):
    """The first of two inputs, images of one pixel, repeated for each pixel of the second."""

    def call(self, inputs: Any) -> Any:
        """The image."""
        x, like = inputs
        return keras.ops.broadcast_to(x, (*keras.ops.shape(like)[:-1], x.shape[-1]))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """See `keras.layers.Layer`."""
        x, like = input_shape
        return (*like[:-1], x[-1])


ELEMENTWISE = ("abs", "sqrt", "exp", "log", "reciprocal")


@register_keras_serializable(package="convlab")
class Elementwise(Moving):
    """A function of each number that Keras can't save as an activation, or not with a parameter.

    Args:
        function: the name of one of `keras.ops`, of `ELEMENTWISE`, or of one of `FORMULAS`.
        parameter: of the function.
    """

    options = ("function", "parameter")

    def __init__(self, function: str, parameter: float = 0.0, **names: Any) -> None:
        super().__init__(**names)
        self.function, self.parameter = function, parameter

    def call(self, x: Any) -> Any:
        """The function of each number."""
        if self.function in FORMULAS:
            return FORMULAS[self.function](keras.ops, x, self.parameter)
        return getattr(keras.ops, self.function)(x)


@register_keras_serializable(package="convlab")
class Clip(Moving):
    """Each number, or the nearest one from the least to the most.

    Args:
        least, most: the limits; None for no limit.
    """

    options = ("least", "most")

    def __init__(self, least: float | None = None, most: float | None = None, **names: Any) -> None:
        super().__init__(**names)
        self.least, self.most = least, most

    def call(self, x: Any) -> Any:
        """The numbers within the limits."""
        y = x if self.least is None else keras.ops.maximum(x, self.least)
        return y if self.most is None else keras.ops.minimum(y, self.most)


@register_keras_serializable(package="convlab")
class Divide(Moving):
    """The first of two inputs by the second, element by element; an image of one pixel counts for each pixel."""

    def call(self, inputs: Any) -> Any:
        """The quotient."""
        x, y = inputs
        return keras.ops.divide(x, y)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """See `keras.layers.Layer`."""
        return keras.layers.Add().compute_output_shape(input_shape)
