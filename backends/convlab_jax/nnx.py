"""convlab's layer as a `flax.nnx.Module`: `lab.nnx.Conv2D`."""

from __future__ import annotations

from typing import Any, Unpack

import jax
from flax import nnx

from convlab.contract.layer import LayerOptions, LayerSpec
from convlab.correlation.corr2d import corr2d
from convlab.errors import GeometryError
from convlab.geometry.geometry import Pair

from .layers import initial_bias, initial_weight


class Conv2D(nnx.Module):
    """`corr2d` with `nnx.Param`s `weight` and `bias`; see `convlab.Conv2D` for the arguments.

    nnx builds layers at once, so with `out_channels` it needs `in_channels`; without a seed it needs `rngs`.

    >>> import jax.numpy as jnp
    >>> layer = Conv2D(3, in_channels=1, out_channels=4, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((1, 1, 5, 5))).shape
    (1, 4, 3, 3)
    """

    def __init__(
        self, kernel_size: int | Pair, *, rngs: nnx.Rngs | None = None, **options: Unpack[LayerOptions]
    ) -> None:
        spec = LayerSpec(kernel_size, **options)
        if spec.lazy:
            raise GeometryError(
                "in_channels: got None, expected a number: nnx layers are built at once.",
                hint="the linen layer, lab.Conv2D, infers it.",
            )
        if spec.seed is None and rngs is None:
            raise GeometryError(
                "rngs: got None without a seed, expected flax.nnx.Rngs.", hint="rngs=nnx.Rngs(0), or seed=0."
            )
        dtype = spec.dtype or "float32"
        key = None if rngs is None or spec.seed is not None else rngs.params()
        self.spec = spec
        self.weight = nnx.Param(initial_weight(spec)(key, dtype))
        self.bias = nnx.Param(initial_bias(spec)(None, dtype)) if spec.use_bias else None

    def __call__(self, X: Any) -> jax.Array:
        """corr2d(X, weight, bias=bias) with the layer's geometry."""
        bias = None if self.bias is None else self.bias[...]
        y: jax.Array = corr2d(X, self.weight[...], bias=bias, backend="jax", **self.spec.call)
        return y
