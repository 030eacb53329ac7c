"""Attention as both linen and nnx keep it: a kernel for the queries, the keys and the values, (C, heads, C / heads)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from convlab.errors import UnsupportedError
from convlab.models.layers.attention import Attention

from ..ops import ops

_NAMES = ("query", "key", "value", "out")


def first_pixel(x: Array) -> Array:
    """The first pixel of each image (N, H, W, C), as a row of numbers."""
    return x[:, 0, 0]


def with_token(token: Array, x: Array) -> Array:
    """The pixels of images (N, H, W, C), row by row, as one column, with the same pixel before them."""
    n, channels = x.shape[0], x.shape[3]
    first = jnp.broadcast_to(token, (n, 1, 1, channels))
    return jnp.concatenate([first, x.reshape(n, -1, 1, channels)], axis=1)


def options(layer: Attention) -> dict[str, Any]:
    """The arguments that linen's and nnx's attention share."""
    return {
        "num_heads": layer.heads,
        "param_dtype": layer.dtype,
        "use_bias": layer.biased,
        "dropout_rate": layer.rate,
        "broadcast_dropout": False,
        "deterministic": True,
    }


def arrays(layer: Attention) -> dict[str, dict[str, np.ndarray]]:
    """The kernels and biases, by the dense layer and their names."""
    kernels, biases = layer.by_head()
    trees = {name: {"kernel": kernel} for name, kernel in zip(_NAMES, kernels, strict=True)}
    for name, bias in zip(_NAMES, biases or (), strict=False):
        trees[name]["bias"] = bias
    return trees


def read_attention(module: Any, trees: Mapping[str, Mapping[str, Any]]) -> Attention:
    """A `PixelAttention` with these kernels and biases, as `arrays` has them."""
    if module.normalize_qk:
        raise UnsupportedError("it normalises its queries and keys")
    kernels = [ops.to_numpy(trees[name]["kernel"]) for name in _NAMES]
    biases = [ops.to_numpy(trees[name]["bias"]) for name in _NAMES] if module.use_bias else None
    dtype = ops.dtype(trees["query"]["kernel"])
    return Attention.of_heads(kernels, biases, module.num_heads, module.dropout_rate, dtype)
