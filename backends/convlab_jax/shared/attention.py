"""Attention as both linen and nnx keep it: a kernel for the queries, the keys and the values, (C, heads, C / heads)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax

from convlab.errors import UnsupportedError
from convlab.geometry.geometry import Pair
from convlab.models.layers.attention import Attention, ClassToken, PositionEmbedding
from convlab.models.layers.layer import Layer
from convlab.models.layers.windows import SHORTEST, WindowAttention, relative_places, windows_of

from ..ops import ops

# Flax's own functions of attention, and the options by which they compute something else.
_PLAIN = (nn.dot_product_attention, nnx.dot_product_attention)
_OTHERS = (
    *("normalize_qk", "decode", "qk_attn_weights_einsum_cls", "attn_weights_value_einsum_cls"),
    *("qkv_dot_general", "out_dot_general", "qkv_dot_general_cls", "out_dot_general_cls"),
)
_NAMES = ("query", "key", "value", "out")


def first_pixel(x: Array) -> Array:
    """The first pixel of each image (N, H, W, C), as a row of numbers."""
    return x[:, 0, 0]


def attend(query: Array, key: Array, value: Array, heads: int, scale: float) -> Array:
    """The mean of the values of all pixels, for each pixel of the queries: all three are images (N, H, W, C)."""
    n, *size, _ = query.shape
    queries, keys, values = (each.reshape(n, -1, heads, each.shape[-1] // heads) for each in (query, key, value))
    weights = nn.softmax(scale * jnp.einsum("nphc,nqhc->nhpq", queries, keys))
    return jnp.einsum("nhpq,nqhc->nphc", weights, values).reshape(n, *size, -1)


def with_token(token: Array, x: Array) -> Array:
    """The pixels of images (N, H, W, C), row by row, as one column, with the same pixel before them."""
    n, channels = x.shape[0], x.shape[3]
    first = jnp.broadcast_to(token, (n, 1, 1, channels))
    return jnp.concatenate([first, x.reshape(n, -1, 1, channels)], axis=1)


def class_token(x: Array, token: tuple[float, ...] = (), dtype: str = "float32") -> Array:
    """The pixels of images (N, H, W, C), row by row, as one column, with the same numbers before them."""
    return with_token(jnp.asarray(token, dtype), x)


def positions(x: Array, numbers: tuple[float, ...] = (), size: Pair = (1, 1), dtype: str = "float32") -> Array:
    """Images (N, H, W, C), or others with as many pixels, with a number for each channel of each pixel added."""
    return x + jnp.asarray(numbers, dtype).reshape(x.shape[1:])


def read_class_token(token: Any = (), dtype: str = "float32") -> ClassToken:
    """The layer that `class_token` is."""
    return ClassToken(np.asarray(token, _held(dtype)), dtype)


def read_positions(numbers: Any = (), size: Pair = (1, 1), dtype: str = "float32") -> PositionEmbedding:
    """The layer that `positions` is."""
    embedding = np.asarray(numbers, _held(dtype)).reshape(*size, -1).transpose(2, 0, 1)
    return PositionEmbedding(np.ascontiguousarray(embedding), dtype)


def _held(dtype: str) -> str:
    return "float32" if dtype == "bfloat16" else dtype


def first_token(x: Array) -> Array:
    """The first of tokens (N, L, C), as a row of numbers."""
    return x[:, 0]


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
    """Attention with these kernels and biases, as `trees_of` has them.

    Raises:
        UnsupportedError: it computes something else than attention does.
    """
    if module.attention_fn not in _PLAIN:
        raise UnsupportedError("its attention_fn isn't Flax's own")
    shared = getattr(module, "num_kv_heads", None) or module.num_heads
    if shared != module.num_heads:
        raise UnsupportedError(f"its {module.num_heads} heads share {shared} keys and values")
    for option in _OTHERS:
        if getattr(module, option, None):
            raise UnsupportedError(f"it has {option}={getattr(module, option)!r}"[:100])
    kept = ops.dtype(trees["query"]["kernel"])
    if module.dtype is not None and np.dtype(module.dtype).name != kept:
        raise UnsupportedError(f"it keeps {kept} and computes in {np.dtype(module.dtype).name}")
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
