"""Adaptive pooling, which Flax hasn't got."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array


@partial(jax.jit, static_argnames=("function", "size"))  # by its name it is known in a model's program
def adaptive_pool(x: Array, function: str, size: Sequence[int]) -> Array:
    """The greatest number or the mean of so many windows of images (N, H, W, C), evenly spread, as in PyTorch.

    Window i of k on an axis of n is from floor(i * n / k) to ceil((i + 1) * n / k).
    """
    reduce = jnp.max if function == "max" else jnp.mean
    for axis, k in enumerate(size, 1):
        n, last = x.shape[axis], jnp.moveaxis(x, axis, -1)
        windows = [reduce(last[..., i * n // k : -(-(i + 1) * n // k)], axis=-1) for i in range(k)]
        x = jnp.stack(windows, axis=axis)
    return x
