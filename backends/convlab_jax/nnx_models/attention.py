"""Nnx's attention, of the pixels of images, and what makes pixels the tokens of a sequence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from convlab.geometry.geometry import Pair
from convlab.models.layers import attention as layers
from convlab.models.layers.layer import Layer

from ..ops import ops
from ..shared.attention import read_attention, with_token


class PixelAttention(nnx.MultiHeadAttention):
    """`nnx.MultiHeadAttention` of the pixels of images (N, H, W, C) to one another."""

    def __call__(self, x: Array) -> Array:  # type: ignore[override]
        """The image, each pixel computed from all."""
        pixels = x.reshape(x.shape[0], -1, x.shape[3])
        return super().__call__(pixels, decode=False).reshape(x.shape)


class ClassToken(nnx.Module):
    """The pixels of images (N, H, W, C), row by row, as one column, with a learned pixel before them.

    Args:
        channels: how many there are.
        param_dtype: of its numbers.
    """

    def __init__(self, channels: int, *, param_dtype: Any = jnp.float32) -> None:
        self.token = nnx.Param(jnp.zeros(channels, param_dtype))

    def __call__(self, x: Array) -> Array:
        """The images (N, 1 + H * W, 1, C)."""
        return with_token(self.token[...], x)


class PositionEmbedding(nnx.Module):
    """x + embedding, with a learned number for each channel of each pixel.

    Args:
        channels: how many there are.
        size: the rows and columns of the images that it takes.
        param_dtype: of its numbers.
    """

    def __init__(self, channels: int, size: Pair, *, param_dtype: Any = jnp.float32) -> None:
        self.embedding = nnx.Param(jnp.zeros((*size, channels), param_dtype))

    def __call__(self, x: Array) -> Array:
        """The images (N, H, W, C), each with the same numbers added."""
        return x + self.embedding[...]


def _attention(layer: PixelAttention) -> Layer:
    trees = {}
    for name in ("query", "key", "value", "out"):
        dense = getattr(layer, name)
        trees[name] = {"kernel": dense.kernel[...], **({} if dense.bias is None else {"bias": dense.bias[...]})}
    return read_attention(layer, trees)


def _embedding(layer: PositionEmbedding) -> Layer:
    array = layer.embedding[...]
    return layers.PositionEmbedding(ops.to_numpy(array).transpose(2, 0, 1), ops.dtype(array))


READERS: dict[type, Callable[[Any], Layer]] = {
    PixelAttention: _attention,
    ClassToken: lambda layer: layers.ClassToken(ops.to_numpy(layer.token[...]), ops.dtype(layer.token[...])),
    PositionEmbedding: _embedding,
}
