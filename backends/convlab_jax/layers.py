"""convlab's layer as a `flax.linen.Module`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from convlab.contract.layer import LayerSpec
from convlab.correlation.corr2d import corr2d
from convlab.geometry.geometry import DataFormat, Padding, PaddingMode, Pair

from .ops import ops


class Conv2D(nn.Module):
    """`corr2d` with parameters `weight` and `bias`; see `convlab.Conv2D` for the fields.

    >>> layer = Conv2D((1, 2), seed=0)
    >>> X = jnp.ones((6, 8))
    >>> params = layer.init(jax.random.key(0), X)
    >>> layer.apply(params, X).shape
    (6, 7)
    """

    kernel_size: int | Pair
    in_channels: int | None = None
    out_channels: int | None = None
    stride: int | Pair = 1
    padding: Padding = 0
    padding_mode: PaddingMode = "zeros"
    dilation: int | Pair = 1
    groups: int = 1
    use_bias: bool = True
    data_format: DataFormat = "NCHW"
    dtype: Any = None
    seed: int | None = None
    reproducible: bool = False
    padding_value: float = 0.0
    origin: int | Pair | None = None

    def __post_init__(self) -> None:
        for name in ("kernel_size", "stride", "padding", "dilation", "origin"):
            object.__setattr__(self, name, _tuple(getattr(self, name)))
        spec_of(self)  # it refuses options that don't go together
        super().__post_init__()

    @nn.compact
    def __call__(self, X: Any) -> jax.Array:
        """corr2d(X, weight, bias=bias) with the layer's geometry."""
        spec = spec_of(self).fit(jnp.shape(X))
        dtype = spec.dtype or "float32"
        weight = self.param("weight", initial_weight(spec), dtype)
        bias = self.param("bias", initial_bias(spec), dtype) if spec.use_bias else None
        y: jax.Array = corr2d(X, weight, bias=bias, backend="jax", **spec.call)
        return y


def spec_of(layer: Conv2D) -> LayerSpec:
    """The fields of a layer as a `LayerSpec`."""
    return LayerSpec(**{each.name: getattr(layer, each.name) for each in fields(LayerSpec)})


def initial_weight(spec: LayerSpec) -> Callable[[Any, str], jax.Array]:
    """Flax's customary initial values (LeCun normal, drawn in float32 at most), or the seed's."""

    def draw(key: Any, dtype: str) -> jax.Array:
        if spec.seed is not None:
            return ops.asarray(spec.seeded(), dtype)
        shape = spec.weight_shape()
        oihw = len(shape) == 4 and spec.data_format == "NCHW"
        init = nn.initializers.lecun_normal(in_axis=1 if oihw else -2, out_axis=0 if oihw else -1, batch_axis=())
        drawn = init(key, shape if len(shape) == 4 else (*shape, 1, 1), "float32")
        return ops.cast(jnp.reshape(drawn, shape), dtype)

    return draw


def initial_bias(spec: LayerSpec) -> Callable[[Any, str], jax.Array]:
    """Zeros for a bias."""
    return lambda key, dtype: ops.asarray(np.zeros(spec.bias_shape), dtype)


def _tuple(value: Any) -> Any:
    """Lists as tuples, so that modules are hashable."""
    return tuple(_tuple(item) for item in value) if isinstance(value, (list, tuple)) else value
