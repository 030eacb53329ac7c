"""convlab's layer as a `flax.nnx.Module`: `lab.nnx.Conv2D`."""

from __future__ import annotations

from typing import Any, Unpack

import jax
from flax import nnx

from convlab.contract.layer import LayerArguments, LayerSpec
from convlab.contract.native_layer import NativeLayer
from convlab.errors import GeometryError

from .layers import KEYWORDS, REFUSED, correlated, dtypes_of, initial_bias, initial_weight

NATIVE = NativeLayer(
    "flax.nnx.Conv",
    ("in_features", "out_features", "kernel_size", "strides", *KEYWORDS, "preferred_element_type"),
    own=("rngs", "param_dtype", "kernel_init", "bias_init", "kernel_metadata", "bias_metadata"),
    refused=REFUSED,
)


class Arguments(LayerArguments, total=False):
    """The keyword arguments of `Conv2D`: convlab's, and those of `flax.nnx.Conv`."""

    in_features: int
    out_features: int
    strides: Any
    kernel_dilation: Any
    feature_group_count: int
    param_dtype: Any
    kernel_init: Any
    bias_init: Any
    kernel_metadata: Any
    bias_metadata: Any
    rngs: nnx.Rngs | None


class Conv2D(nnx.Module):
    """`corr2d` with `nnx.Param`s `weight` and `bias`; see `convlab.Conv2D` for the arguments.

    Those of `flax.nnx.Conv` are taken too: `Conv2D(3, 8, kernel_size=(3, 3), rngs=rngs)`, and initialisers; see
    `convlab_jax.layers.Conv2D`. nnx builds layers at once, so with `out_channels` it needs `in_channels`; without a
    seed it needs `rngs`.

    >>> import jax.numpy as jnp
    >>> layer = Conv2D(3, in_channels=1, out_channels=4, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((1, 1, 5, 5))).shape
    (1, 4, 3, 3)
    """

    def __init__(self, *sizes: Any, **arguments: Unpack[Arguments]) -> None:
        options, own = NATIVE.arguments(sizes, arguments)
        spec, rngs = LayerSpec(**options), own.get("rngs")
        if spec.lazy:
            raise GeometryError(
                "in_channels: got None, expected a number: nnx layers are built at once.",
                hint="the linen layer, lab.Conv2D, infers it.",
            )
        if spec.seed is None and rngs is None:
            raise GeometryError(
                "rngs: got None without a seed, expected flax.nnx.Rngs.", hint="rngs=nnx.Rngs(0), or seed=0."
            )
        held, self.dtype = dtypes_of(spec, own.get("param_dtype"))
        key = None if rngs is None or spec.seed is not None else rngs.params()
        weight = initial_weight(spec, own.get("kernel_init"))(key, held)
        self.spec = spec
        self.weight = nnx.Param(weight, **(own.get("kernel_metadata") or {}))
        self.bias = _bias(spec, own, held, rngs) if spec.use_bias else None

    def __call__(self, X: Any) -> jax.Array:
        """corr2d(X, weight, bias=bias) with the layer's geometry."""
        bias = None if self.bias is None else self.bias[...]
        return correlated(self.spec, X, self.weight[...], bias, self.dtype)


def _bias(spec: LayerSpec, own: dict[str, Any], dtype: str, rngs: nnx.Rngs | None) -> nnx.Param[Any]:
    initializer = own.get("bias_init")
    key = rngs.params() if rngs is not None and initializer is not None else None
    return nnx.Param(initial_bias(spec, initializer)(key, dtype), **(own.get("bias_metadata") or {}))
