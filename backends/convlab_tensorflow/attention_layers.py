"""Keras's attention, of the pixels of images NHWC, and what makes pixels the tokens of a sequence."""

from __future__ import annotations

from typing import Any

import keras
from keras.saving import register_keras_serializable

from convlab.geometry.checks import pair
from convlab.geometry.geometry import Pair
from convlab.models.layers.windows import SHORTEST, distances, relative_places, windows_of


@register_keras_serializable(package="convlab")
class PixelAttention(keras.layers.MultiHeadAttention):  # type: ignore[misc]
    """`keras.layers.MultiHeadAttention` of the pixels of images to one another, with attention_axes=(1, 2)."""

    def build(self, input_shape: Any) -> None:
        """Make the weights."""
        super().build(input_shape, input_shape)

    def call(self, x: Any, training: Any = None) -> Any:
        """The image, each pixel computed from all."""
        return super().call(x, x, training=training)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The same."""
        return input_shape

    def compute_output_spec(self, x: Any, training: Any = None) -> Any:
        """The same."""
        return keras.KerasTensor(x.shape, dtype=self.compute_dtype)


@register_keras_serializable(package="convlab")
class WindowAttention(keras.layers.Layer):  # type: ignore[misc]
    """Attention of the pixels of each window to one another: Swin, arXiv:2103.14030, 2111.09883.

    Args:
        num_heads: how many heads there are.
        window: its rows and columns; the image is padded with zeros to a multiple of them.
        shift: how far up and to the left the windows lie; pixels that only then share one don't meet.
        dropout: the share of the weights that training sets to 0.
        use_bias: whether the dense layers have biases.
        cosine: whether the scores are the cosines of queries and keys, times a learned number for each head.
        grid: whether a window's pixels are spread evenly over the image (MaxViT, arXiv:2204.01697), unshifted.
    """

    def __init__(
        self,
        num_heads: int,
        window: int | Pair,
        shift: int | Pair = 0,
        dropout: float = 0.0,
        use_bias: bool = True,
        cosine: bool = False,
        grid: bool = False,
        **names: Any,
    ) -> None:
        super().__init__(**names)
        self.num_heads, self.window, self.shift = num_heads, pair("window", window, 1), pair("shift", shift, 0)
        self.dropout, self.use_bias, self.cosine, self.grid = dropout, use_bias, cosine, grid
        self.drops = keras.layers.Dropout(dropout, dtype=self.dtype_policy)

    def build(self, input_shape: Any) -> None:
        """Make the weights."""
        channels = input_shape[-1]
        for name, outputs in (("qkv", 3 * channels), ("proj", channels)):
            dense = keras.layers.Dense(outputs, use_bias=self.use_bias, dtype=self.dtype_policy, name=name)
            dense.build((None, None, None, channels))
            setattr(self, name, dense)
        shape = distances(self.window), self.num_heads
        self.table = self.add_weight(shape=shape, initializer="zeros", name="relative_position_bias_table")
        if self.cosine:
            ten = keras.initializers.Constant(10.0)
            self.scale = self.add_weight(shape=(self.num_heads,), initializer=ten, name="scale")
        super().build(input_shape)

    def call(self, x: Any, training: Any = None) -> Any:
        """The image, each pixel computed from those of its window."""
        _, rows, columns, channels = x.shape
        if rows is None or columns is None:
            raise ValueError("its windows depend on the image's size: give keras.Input rows and columns.")
        ops, windows = keras.ops, windows_of((rows, columns), self.window, self.shift, self.grid)
        ends = (0, windows.padded[0] - rows), (0, windows.padded[1] - columns)
        pixels = ops.reshape(ops.pad(x, ((0, 0), *ends, (0, 0))), (-1, windows.padded[0] * windows.padded[1], channels))
        count, size = windows.places.shape
        cut = ops.reshape(ops.take(pixels, windows.places.ravel(), axis=1), (-1, count, size, channels))
        parts = ops.reshape(self.qkv(cut), (-1, count, size, 3, self.num_heads, channels // self.num_heads))
        queries, keys, values = ops.unstack(ops.transpose(parts, (3, 0, 1, 4, 2, 5)), 3, axis=0)
        if self.cosine:
            queries = _directions(queries) * ops.reshape(ops.cast(self.scale, x.dtype), (-1, 1, 1))
            keys = _directions(keys)
        else:
            queries = queries * (channels // self.num_heads) ** -0.5
        scores = ops.matmul(queries, ops.swapaxes(keys, -1, -2))
        weights = ops.softmax(scores + self._bias(windows.mask, x.dtype), axis=-1)
        means = ops.matmul(self.drops(weights, training=training), values)
        joined = ops.reshape(ops.swapaxes(means, 2, 3), (-1, count, size, channels))
        y = ops.take(ops.reshape(self.proj(joined), (-1, count * size, channels)), windows.back, axis=1)
        return ops.reshape(y, (-1, rows, columns, channels))

    def _bias(self, mask: Any, dtype: Any) -> Any:
        """What is added to the scores, (windows, heads, pixels, pixels)."""
        table = keras.ops.take(keras.ops.cast(self.table, dtype), relative_places(self.window), axis=0)
        return keras.ops.transpose(table, (2, 0, 1)) + keras.ops.cast(mask[:, None], dtype)

    def compute_output_spec(self, x: Any, training: Any = None) -> Any:
        """The same."""
        return keras.KerasTensor(x.shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """See `keras.layers.Layer`."""
        names = ("num_heads", "window", "shift", "dropout", "use_bias", "cosine", "grid")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _directions(vectors: Any) -> Any:
    """Vectors divided by their lengths."""
    squares = keras.ops.sum(keras.ops.square(vectors), axis=-1, keepdims=True)
    return vectors * keras.ops.rsqrt(keras.ops.maximum(squares, SHORTEST**2))


@register_keras_serializable(package="convlab")
class ClassToken(keras.layers.Layer):  # type: ignore[misc]
    """The pixels of images, row by row, as one column, with a learned pixel before them."""

    def build(self, input_shape: Any) -> None:
        """Make the weights."""
        self.token = self.add_weight(shape=(input_shape[-1],), initializer="zeros", name="token")
        super().build(input_shape)

    def call(self, x: Any) -> Any:
        """The images (N, 1 + H * W, 1, C)."""
        pixels = keras.ops.reshape(x, (keras.ops.shape(x)[0], -1, 1, x.shape[-1]))
        first = keras.ops.zeros_like(pixels[:, :1]) + keras.ops.cast(self.token, x.dtype)
        return keras.ops.concatenate([first, pixels], axis=1)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """One row more than there were pixels."""
        n, rows, columns, channels = input_shape
        return n, None if None in (rows, columns) else 1 + rows * columns, 1, channels


@register_keras_serializable(package="convlab")
class PositionEmbedding(keras.layers.Layer):  # type: ignore[misc]
    """x + embedding, with a learned number for each channel of each pixel.

    Args:
        size: the rows and columns of the images that it takes, or of others with as many pixels.
    """

    def __init__(self, size: int | Pair, **names: Any) -> None:
        super().__init__(**names)
        self.size = pair("size", size, 1)

    def build(self, input_shape: Any) -> None:
        """Make the weights."""
        self.embedding = self.add_weight(shape=(*self.size, input_shape[-1]), initializer="zeros", name="embedding")
        super().build(input_shape)

    def call(self, x: Any) -> Any:
        """The images, each with the same numbers added."""
        return x + keras.ops.reshape(keras.ops.cast(self.embedding, x.dtype), keras.ops.shape(x)[1:])

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The same."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """See `keras.layers.Layer`."""
        return {**super().get_config(), "size": self.size}


@register_keras_serializable(package="convlab")
class DotProductAttention(keras.layers.Layer):  # type: ignore[misc]
    """The mean of the values of all pixels, for each pixel of the queries: of three images NHWC.

    Args:
        heads: how many there are; channels that follow one another form a head.
        scale: what products of queries and keys are multiplied by.
    """

    def __init__(self, heads: int, scale: float, **names: Any) -> None:
        super().__init__(**names)
        self.heads, self.scale = heads, scale

    def call(self, inputs: Any) -> Any:
        """The image."""
        ops = keras.ops
        n, rows, columns, _ = ops.shape(inputs[0])
        by_head = (ops.reshape(each, (n, -1, self.heads, each.shape[-1] // self.heads)) for each in inputs)
        queries, keys, values = (ops.transpose(each, (0, 2, 1, 3)) for each in by_head)
        weights = ops.softmax(ops.matmul(queries, ops.transpose(keys, (0, 1, 3, 2))) * self.scale, axis=-1)
        means = ops.transpose(ops.matmul(weights, values), (0, 2, 1, 3))
        return ops.reshape(means, (n, rows, columns, inputs[2].shape[-1]))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """See `keras.layers.Layer`."""
        query, _, value = input_shape
        return (*query[:-1], value[-1])

    def get_config(self) -> dict[str, Any]:
        """See `keras.layers.Layer`."""
        return {**super().get_config(), "heads": self.heads, "scale": self.scale}


@register_keras_serializable(package="convlab")
class FirstPixel(keras.layers.Layer):  # type: ignore[misc]
    """The first pixel of each image, as a row of numbers."""

    def call(self, x: Any) -> Any:
        """The rows."""
        return x[:, 0, 0]
