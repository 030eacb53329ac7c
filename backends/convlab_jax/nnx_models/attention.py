"""Nnx's attention, of the pixels of images, and what makes pixels the tokens of a sequence."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax import nnx
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


class PixelAttention(nnx.MultiHeadAttention):
    """`nnx.MultiHeadAttention` of the pixels of images (N, H, W, C) to one another."""

    def __call__(self, x: Array) -> Array:  # type: ignore[override]
        """The image, each pixel computed from all."""
        pixels = x.reshape(x.shape[0], -1, x.shape[3])
        y: Array = super().__call__(pixels, decode=False)
        return y.reshape(x.shape)


def takes_tokens(layer: Any) -> bool:
    """Whether it is nnx's own attention, of arrays (N, L, C)."""
    return isinstance(layer, nnx.MultiHeadAttention) and not isinstance(layer, PixelAttention)


def of_pixels(layer: nnx.Module) -> nnx.Module:
    """Nnx's own attention as that of pixels with its variables; another layer as it is."""
    if not takes_tokens(layer):
        return layer
    other = copy.copy(layer)
    other.__class__ = PixelAttention
    return other


class WindowAttention(nnx.Module):
    """Attention of the pixels of each window of images (N, H, W, C) to one another: Swin, arXiv:2103.14030, 2111.09883.

    Args:
        channels: of the images.
        heads: how many there are.
        window: its rows and columns; the image is padded with zeros to a multiple of them.
        shift: how far up and to the left the windows lie; pixels that only then share one don't meet.
        dropout_rate: the share of the weights that training sets to 0.
        use_bias: whether the dense layers have biases.
        cosine: whether the scores are the cosines of queries and keys, times a learned number for each head.
        grid: whether a window's pixels are spread evenly over the image (MaxViT, arXiv:2204.01697), unshifted.
        deterministic: whether nothing is set to 0.
        param_dtype: of its numbers.
        rngs: for the kernels and for what is set to 0.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        window: Pair,
        shift: Pair = (0, 0),
        *,
        dropout_rate: float = 0.0,
        use_bias: bool = True,
        cosine: bool = False,
        grid: bool = False,
        deterministic: bool = False,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        self.channels, self.heads, self.window, self.shift = channels, heads, window, shift
        self.dropout_rate, self.use_bias, self.deterministic = dropout_rate, use_bias, deterministic
        self.cosine, self.grid, self.param_dtype = cosine, grid, param_dtype
        self.qkv = nnx.Linear(channels, 3 * channels, use_bias=use_bias, param_dtype=param_dtype, rngs=rngs)
        self.proj = nnx.Linear(channels, channels, use_bias=use_bias, param_dtype=param_dtype, rngs=rngs)
        self.table = nnx.Param(jnp.zeros((distances(window), heads), param_dtype))
        self.scale = nnx.Param(jnp.full(heads, 10.0, param_dtype)) if cosine else None
        self.rngs = rngs.dropout.fork() if dropout_rate else None

    def __call__(self, x: Array) -> Array:
        """The image, each pixel computed from those of its window."""
        where = self.window, self.shift, self.grid
        windows = cut_windows(x, *where)
        rngs = None if self.deterministic else self.rngs
        # Nnx's function of this name takes no axis of windows beside that of the images.
        queries, keys, values = query_key_value(self.qkv(windows), self.heads)
        if self.scale is not None:
            queries, keys = scaled_directions(queries, keys, self.scale[...])
        means = nn.dot_product_attention(
            queries,
            keys,
            values,
            bias=window_bias(self.table[...], x, *where),
            broadcast_dropout=False,
            dropout_rng=None if rngs is None else rngs(),
            dropout_rate=self.dropout_rate,
            deterministic=rngs is None,
        )
        return join_windows(self.proj(means.reshape(windows.shape)), x, *where)


class ClassToken(nnx.Module):
    """The pixels of images (N, H, W, C), row by row, as one column, with a learned pixel before them.

    Args:
        channels: how many there are.
        param_dtype: of its numbers.
    """

    def __init__(self, channels: int, *, param_dtype: Any = jnp.float32) -> None:
        self.param_dtype = param_dtype
        self.token = nnx.Param(jnp.zeros(channels, param_dtype))

    def __call__(self, x: Array) -> Array:
        """The images (N, 1 + H * W, 1, C)."""
        return with_token(self.token[...], x)


class PositionEmbedding(nnx.Module):
    """x + embedding, with a learned number for each channel of each pixel.

    Args:
        channels: how many there are.
        size: the rows and columns of the images that it takes, or of others with as many pixels.
        param_dtype: of its numbers.
    """

    def __init__(self, channels: int, size: Pair, *, param_dtype: Any = jnp.float32) -> None:
        self.param_dtype = param_dtype
        self.embedding = nnx.Param(jnp.zeros((*size, channels), param_dtype))

    def __call__(self, x: Array) -> Array:
        """The images (N, H, W, C), each with the same numbers added."""
        return x + self.embedding[...].reshape(x.shape[1:])


def _dense(layer: nnx.Module, *names: str) -> dict[str, dict[str, Array]]:
    """The kernels and biases of dense layers inside a layer."""
    trees = {}
    for name in names:
        dense = getattr(layer, name)
        trees[name] = {"kernel": dense.kernel[...], **({} if dense.bias is None else {"bias": dense.bias[...]})}
    return trees


def _windows(layer: WindowAttention) -> Layer:
    scale = None if layer.scale is None else layer.scale[...]
    return read_windows(layer, **_dense(layer, "qkv", "proj"), table=layer.table[...], scale=scale)


def _embedding(layer: PositionEmbedding) -> Layer:
    array = layer.embedding[...]
    return layers.PositionEmbedding(ops.to_numpy(array).transpose(2, 0, 1), ops.dtype(array))


def gradients_of(layer: nnx.Module, slopes: Any) -> dict[str, Any]:
    """The gradients by the arrays of attention, from those by a layer's parameters."""
    other = nnx.clone(layer)
    nnx.update(other, slopes)
    return layers.gradients_read(READERS[type(other)](other))  # type: ignore[arg-type]  # one of attention


ATTENTION = (nnx.MultiHeadAttention, WindowAttention)
READERS: dict[type, Callable[[Any], Layer]] = {
    **dict.fromkeys(
        (PixelAttention, nnx.MultiHeadAttention),
        lambda layer: read_attention(layer, _dense(layer, "query", "key", "value", "out")),
    ),
    WindowAttention: _windows,
    ClassToken: lambda layer: layers.ClassToken(ops.to_numpy(layer.token[...]), ops.dtype(layer.token[...])),
    PositionEmbedding: _embedding,
}
