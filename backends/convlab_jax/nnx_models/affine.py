"""Numbers for each channel where nnx has none: a scale and a shift, and the slopes of a PReLU."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array


class Constant(nnx.Variable[Any]):
    """An array that training leaves as it is."""


class ChannelAffine(nnx.Module):
    """x * scale + bias, with one number of each for each channel.

    Args:
        channels: how many there are; 1 for one number for all.
        use_scale, use_bias: whether there is a scale, and whether there is a bias.
        trained: whether they are `nnx.Param`, or `Constant`.
        param_dtype: of the numbers.
    """

    def __init__(
        self,
        channels: int,
        *,
        use_scale: bool = True,
        use_bias: bool = True,
        trained: bool = True,
        param_dtype: Any = jnp.float32,
    ) -> None:
        kind: Any = nnx.Param if trained else Constant
        self.trained = trained
        self.scale = kind(jnp.ones(channels, param_dtype)) if use_scale else None
        self.bias = kind(jnp.zeros(channels, param_dtype)) if use_bias else None

    def __call__(self, x: Array) -> Array:
        """The image (N, H, W, C), or rows (N, C), with its channels scaled and shifted."""
        y = x if self.scale is None else x * self.scale[...]
        return y if self.bias is None else y + self.bias[...]


class ChannelPReLU(nnx.Module):
    """x where it is above 0, negative_slope * x below; nnx's `PReLU` has one slope for all channels.

    Args:
        channels: how many there are.
        param_dtype: of the slopes.
    """

    def __init__(self, channels: int, *, param_dtype: Any = jnp.float32) -> None:
        self.negative_slope = nnx.Param(jnp.full(channels, 0.01, param_dtype))

    def __call__(self, x: Array) -> Array:
        """The function of each number."""
        return jnp.where(x >= 0, x, jnp.asarray(self.negative_slope[...], x.dtype) * x)
