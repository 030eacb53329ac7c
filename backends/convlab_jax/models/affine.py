"""A scale and a shift for each channel, which linen has in its normalisations alone."""

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
        param_dtype: of the numbers.
    """

    use_scale: bool = True
    use_bias: bool = True
    trained: bool = True
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """The image (N, H, W, C), or rows (N, C), with its channels scaled and shifted."""
        y = x * self._numbers("scale", nn.initializers.ones, x) if self.use_scale else x
        return y + self._numbers("bias", nn.initializers.zeros, x) if self.use_bias else y

    def _numbers(self, name: str, start: Any, x: Array) -> Array:
        shape, dtype = (x.shape[-1],), self.param_dtype
        if self.trained:
            return jnp.asarray(self.param(name, start, shape, dtype))
        return jnp.asarray(self.variable("constants", name, start, None, shape, dtype).value)
