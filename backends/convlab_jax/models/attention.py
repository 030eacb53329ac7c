"""Linen's attention, of the pixels of images, and what makes pixels the tokens of a sequence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from convlab.models.layers import attention as layers
from convlab.models.layers.layer import Layer

from ..ops import ops
from ..shared.attention import read_attention, with_token


class PixelAttention(nn.MultiHeadDotProductAttention):
    """`nn.MultiHeadDotProductAttention` of the pixels of images (N, H, W, C) to one another."""

    def __call__(self, x: Array, *, deterministic: bool | None = None) -> Array:  # type: ignore[override]
        """The image, each pixel computed from all."""
        pixels = x.reshape(x.shape[0], -1, x.shape[3])
        return super().__call__(pixels, deterministic=deterministic).reshape(x.shape)


class ClassToken(nn.Module):
    """The pixels of images (N, H, W, C), row by row, as one column, with a learned pixel before them.

    Attributes:
        param_dtype: of its numbers.
    """

    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """The images (N, 1 + H * W, 1, C)."""
        return with_token(self.param("token", nn.initializers.zeros, (x.shape[3],), self.param_dtype), x)


class PositionEmbedding(nn.Module):
    """x + embedding, with a learned number for each channel of each pixel.

    Attributes:
        param_dtype: of its numbers.
    """

    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """The images (N, H, W, C), each with the same numbers added."""
        return x + self.param("embedding", nn.initializers.normal(0.02), x.shape[1:], self.param_dtype)


def _number(layer: nn.Module, name: str) -> tuple[Any, str]:
    array = layer.variables["params"][name]
    return ops.to_numpy(array), ops.dtype(array)


def _embedding(layer: PositionEmbedding) -> Layer:
    array, dtype = _number(layer, "embedding")
    return layers.PositionEmbedding(array.transpose(2, 0, 1), dtype)


READERS: dict[type, Callable[[Any], Layer]] = {
    PixelAttention: lambda layer: read_attention(layer, layer.variables["params"]),
    ClassToken: lambda layer: layers.ClassToken(*_number(layer, "token")),
    PositionEmbedding: _embedding,
}
