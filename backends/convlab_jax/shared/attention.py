"""Attention as both linen and nnx keep it: a kernel for the queries, the keys and the values, (C, heads, C / heads)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from convlab.errors import UnsupportedError
from convlab.geometry.geometry import Pair
from convlab.models.layers.attention import Attention, ClassToken, PositionEmbedding
from convlab.models.layers.layer import Layer
from convlab.models.layers.windows import SHORTEST, WindowAttention, relative_places, windows_of

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


def cut_windows(x: Array, window: Pair, shift: Pair, grid: bool) -> Array:
    """The windows of images (N, H, W, C), as (N, windows, pixels of a window, C)."""
    n, rows, columns, channels = x.shape
    windows = windows_of((rows, columns), window, shift, grid)
    ends = (0, windows.padded[0] - rows), (0, windows.padded[1] - columns)
    return jnp.pad(x, ((0, 0), *ends, (0, 0))).reshape(n, -1, channels)[:, windows.places]


def join_windows(windowed: Array, like: Array, window: Pair, shift: Pair, grid: bool) -> Array:
    """The images of windows, of the shape of others."""
    n, rows, columns, channels = like.shape
    back = windows_of((rows, columns), window, shift, grid).back
    return windowed.reshape(n, -1, channels)[:, back].reshape(like.shape)


def query_key_value(qkv: Array, heads: int) -> Array:
    """The queries, keys and values of all heads, (3, N, windows, pixels, heads, channels of a head)."""
    return jnp.moveaxis(qkv.reshape(*qkv.shape[:-1], 3, heads, -1), -3, 0)


def scaled_directions(queries: Array, keys: Array, scale: Array) -> tuple[Array, Array]:
    """Queries and keys whose products over the root of a head's channels are their cosines times a head's number."""
    factor = scale[:, None] * queries.shape[-1] ** 0.5
    return _directions(queries) * factor, _directions(keys)


def _directions(vectors: Array) -> Array:
    squares = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
    return vectors * lax.rsqrt(jnp.maximum(squares, SHORTEST**2))


def window_bias(table: Array, like: Array, window: Pair, shift: Pair, grid: bool) -> Array:
    """What is added to the scores of windows of images (N, H, W, C), (windows, heads, pixels, pixels)."""
    mask = windows_of((like.shape[1], like.shape[2]), window, shift, grid).mask
    return table[relative_places(window)].transpose(2, 0, 1) + jnp.asarray(mask[:, None], table.dtype)


def options(layer: Attention) -> dict[str, Any]:
    """The arguments that linen's and nnx's attention share.

    Raises:
        UnsupportedError: its values haven't as many channels as its keys.
    """
    if layer.value_size != layer.key_size:
        raise UnsupportedError(
            f"Flax's attention has values of as many channels as its keys, this one {layer.value_size} and "
            f"{layer.key_size}."
        )
    return {
        "num_heads": layer.heads,
        **({} if layer.plain else {"qkv_features": layer.heads * layer.key_size}),
        "param_dtype": layer.dtype,
        "use_bias": layer.biased,
        "dropout_rate": layer.rate,
        "broadcast_dropout": False,
        "deterministic": True,
    }


def trees_of(layer: Layer) -> dict[str, Any] | None:
    """The arrays of a layer of attention, or of what makes tokens, as linen and nnx nest them; None for another one."""
    if isinstance(layer, ClassToken):
        return {"token": layer.token}
    if isinstance(layer, PositionEmbedding):
        return {"embedding": layer.embedding.transpose(1, 2, 0)}
    if not isinstance(layer, Attention):
        return None
    names: tuple[str, ...] = _NAMES
    if isinstance(layer, WindowAttention):
        names, kernels = ("qkv", "proj"), [layer.kernel.T, layer.out_kernel.T]
        biases = [*layer.biases()] if layer.biased else None
    else:
        kernels, biases = layer.by_head()
    trees: dict[str, Any] = {name: {"kernel": kernel} for name, kernel in zip(names, kernels, strict=True)}
    for name, bias in zip(names, biases or (), strict=False):
        trees[name]["bias"] = bias
    if isinstance(layer, WindowAttention):
        trees |= {"table": layer.table, **({} if layer.scale is None else {"scale": layer.scale})}
    return trees


def read_attention(module: Any, trees: Mapping[str, Mapping[str, Any]]) -> Attention:
    """A `PixelAttention` with these kernels and biases, as `trees_of` has them."""
    if module.normalize_qk:
        raise UnsupportedError("it normalises its queries and keys")
    kernels = [ops.to_numpy(trees[name]["kernel"]) for name in _NAMES]
    biases = [ops.to_numpy(trees[name]["bias"]) for name in _NAMES] if module.use_bias else None
    dtype = ops.dtype(trees["query"]["kernel"])
    return Attention.of_heads(kernels, biases, module.num_heads, module.dropout_rate, dtype)


def window_options(layer: WindowAttention) -> dict[str, Any]:
    """The arguments that linen's and nnx's attention of windows share."""
    return {
        "heads": layer.heads,
        "window": layer.window,
        "shift": layer.shift,
        "dropout_rate": layer.rate,
        "use_bias": layer.biased,
        "cosine": layer.cosine,
        "grid": layer.grid,
        "param_dtype": layer.dtype,
        "deterministic": True,
    }


def read_windows(
    module: Any, qkv: Mapping[str, Any], proj: Mapping[str, Any], table: Any, scale: Any = None
) -> WindowAttention:
    """A `WindowAttention` of linen's or nnx's with these arrays."""
    kernel, out_kernel = (ops.to_numpy(tree["kernel"]).T for tree in (qkv, proj))
    bias, out_bias = (ops.to_numpy(tree["bias"]) if module.use_bias else None for tree in (qkv, proj))
    return WindowAttention(
        kernel,
        out_kernel,
        module.heads,
        bias,
        out_bias,
        module.dropout_rate,
        ops.dtype(table),
        ops.to_numpy(table),
        tuple(module.window),
        tuple(module.shift),
        scale=None if scale is None else ops.to_numpy(scale),
        grid=module.grid,
    )
