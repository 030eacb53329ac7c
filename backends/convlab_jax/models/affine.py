"""Numbers for each channel where linen has none: a scale and a shift, and the slopes of a PReLU."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array


class ChannelAffine(nn.Module):
    """x * scale + bias, with one number of each for each channel.

    Attributes:
        use_scale, use_bias: whether there is a scale, and whether there is a bias.
        trained: whether they are parameters, or constants in the collection "constants".
        shared: whether there is one number for all channels.
        param_dtype: of the numbers.
    """

    use_scale: bool = True
    use_bias: bool = True
    trained: bool = True
    shared: bool = False
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """The image (N, H, W, C), or rows (N, C), with its channels scaled and shifted."""
        y = x * self._numbers("scale", nn.initializers.ones, x) if self.use_scale else x
        return y + self._numbers("bias", nn.initializers.zeros, x) if self.use_bias else y

    def _numbers(self, name: str, start: Any, x: Array) -> Array:
        shape, dtype = (1 if self.shared else x.shape[-1],), self.param_dtype
        if self.trained:
            return jnp.asarray(self.param(name, start, shape, dtype))
        return jnp.asarray(self.variable("constants", name, start, None, shape, dtype).value)


class ChannelPReLU(nn.Module):
    """x where it is above 0, negative_slope * x below; linen's `PReLU` has one slope for all channels.

    Attributes:
        param_dtype: of the slopes.
    """

    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """The function of each number."""
        slope = self.param("negative_slope", nn.initializers.constant(0.01), (x.shape[-1],), self.param_dtype)
        return jnp.where(x >= 0, x, jnp.asarray(slope, x.dtype) * x)
