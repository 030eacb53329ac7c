"""Linen's attention, of the pixels of images, and what makes pixels the tokens of a sequence."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from convlab.geometry.geometry import Pair
from convlab.models.layers import attention as layers
from convlab.models.layers.layer import Layer
from convlab.models.layers.windows import distances

from ..ops import ops
from ..shared.attention import (
    cut_windows,
    join_windows,
    query_key_value,
    read_attention,
    read_windows,
    scaled_directions,
    window_bias,
    with_token,
)


class PixelAttention(nn.MultiHeadDotProductAttention):
    """`nn.MultiHeadDotProductAttention` of the pixels of images (N, H, W, C) to one another."""

    def __call__(self, x: Array, *, deterministic: bool | None = None) -> Array:  # type: ignore[override]
        """The image, each pixel computed from all."""
        pixels = x.reshape(x.shape[0], -1, x.shape[3])
        y: Array = super().__call__(pixels, deterministic=deterministic)
        return y.reshape(x.shape)


def takes_tokens(layer: Any) -> bool:
    """Whether it is linen's own attention, of arrays (N, L, C)."""
    return isinstance(layer, nn.MultiHeadDotProductAttention) and not isinstance(layer, PixelAttention)


def of_pixels(layer: nn.Module) -> nn.Module:
    """Linen's own attention, bound, as that of pixels with its variables; another layer as it is."""
    if not takes_tokens(layer):
        return layer
    names = (each.name for each in dataclasses.fields(layer) if each.name not in ("parent", "name"))
    other = PixelAttention(**{name: getattr(layer, name) for name in names})
    bound: nn.Module = other.bind(layer.variables)
    return bound


class WindowAttention(nn.Module):
    """Attention of the pixels of each window of images (N, H, W, C) to one another: Swin, arXiv:2103.14030, 2111.09883.

    Attributes:
        heads: how many there are.
        window: its rows and columns; the image is padded with zeros to a multiple of them.
        shift: how far up and to the left the windows lie; pixels that only then share one don't meet.
        dropout_rate: the share of the weights that training sets to 0.
        use_bias: whether the dense layers have biases.
        cosine: whether the scores are the cosines of queries and keys, times a learned number for each head.
        grid: whether a window's pixels are spread evenly over the image (MaxViT, arXiv:2204.01697), unshifted.
        deterministic: whether nothing is set to 0.
        param_dtype: of its numbers.
    """

    heads: int
    window: Pair
    shift: Pair = (0, 0)
    dropout_rate: float = 0.0
    use_bias: bool = True
    cosine: bool = False
    grid: bool = False
    deterministic: bool | None = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, deterministic: bool | None = None) -> Array:
        """The image, each pixel computed from those of its window."""
        fixed = nn.merge_param("deterministic", self.deterministic, deterministic) or not self.dropout_rate
        channels, where = x.shape[3], (self.window, self.shift, self.grid)
        dense = functools.partial(nn.Dense, use_bias=self.use_bias, param_dtype=self.param_dtype)
        windows = cut_windows(x, *where)
        queries, keys, values = query_key_value(dense(3 * channels, name="qkv")(windows), self.heads)
        shape = distances(self.window), self.heads
        if self.cosine:
            scale = self.param("scale", nn.initializers.constant(10.0), (self.heads,), self.param_dtype)
            queries, keys = scaled_directions(queries, keys, scale)
        table = self.param("table", nn.initializers.normal(0.02), shape, self.param_dtype)
        means = nn.dot_product_attention(
            queries,
            keys,
            values,
            bias=window_bias(table, x, *where),
            broadcast_dropout=False,
            dropout_rng=None if fixed else self.make_rng("dropout"),
            dropout_rate=self.dropout_rate,
            deterministic=fixed,
        )
        return join_windows(dense(channels, name="proj")(means.reshape(windows.shape)), x, *where)


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
        size: the rows and columns of the images that it takes, or of others with as many pixels.
        param_dtype: of its numbers.
    """

    size: Pair
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """The images (N, H, W, C), each with the same numbers added."""
        shape = *self.size, x.shape[3]
        embedding = self.param("embedding", nn.initializers.normal(0.02), shape, self.param_dtype)
        return x + embedding.reshape(x.shape[1:])


def _number(layer: nn.Module, name: str) -> tuple[Any, str]:
    array = layer.variables["params"][name]
    return ops.to_numpy(array), ops.dtype(array)


def _embedding(layer: PositionEmbedding) -> Layer:
    array, dtype = _number(layer, "embedding")
    return layers.PositionEmbedding(array.transpose(2, 0, 1), dtype)


def _windows(layer: WindowAttention) -> Layer:
    values = layer.variables["params"]
    return read_windows(layer, values["qkv"], values["proj"], values["table"], values.get("scale"))


def gradients_of(layer: nn.Module, slopes: Any) -> dict[str, Any]:
    """The gradients by the arrays of attention, from those by a layer's parameters."""
    other = layer.unbind()[0].bind({"params": slopes})
    return layers.gradients_read(READERS[type(other)](other))  # type: ignore[arg-type]  # one of attention


ATTENTION = (nn.MultiHeadDotProductAttention, WindowAttention)
READERS: dict[type, Callable[[Any], Layer]] = {
    **dict.fromkeys(
        (PixelAttention, nn.SelfAttention, nn.MultiHeadAttention, nn.MultiHeadDotProductAttention),
        lambda layer: read_attention(layer, layer.variables["params"]),
    ),
    WindowAttention: _windows,
    ClassToken: lambda layer: layers.ClassToken(*_number(layer, "token")),
    PositionEmbedding: _embedding,
}
