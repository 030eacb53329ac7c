"""Keras's attention, of the pixels of images NHWC, and what makes pixels the tokens of a sequence."""

from __future__ import annotations

from typing import Any

import keras
from keras.saving import register_keras_serializable


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
    """x + embedding, with a learned number for each channel of each pixel."""

    def build(self, input_shape: Any) -> None:
        """Make the weights."""
        self.embedding = self.add_weight(shape=input_shape[1:], initializer="zeros", name="embedding")
        super().build(input_shape)

    def call(self, x: Any) -> Any:
        """The images, each with the same numbers added."""
        return x + keras.ops.cast(self.embedding, x.dtype)


@register_keras_serializable(package="convlab")
class FirstPixel(keras.layers.Layer):  # type: ignore[misc]
    """The first pixel of each image, as a row of numbers."""

    def call(self, x: Any) -> Any:
        """The rows."""
        return x[:, 0, 0]
