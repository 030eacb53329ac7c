"""convlab's layer as a `flax.linen.Module`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import Initializer

from convlab.contract.layer import LayerSpec
from convlab.contract.native_layer import NativeLayer
from convlab.correlation.corr2d import corr2d
from convlab.geometry.geometry import DataFormat, Padding, PaddingMode, Pair

from .ops import ops

# The keyword arguments of Flax's layers, linen and nnx, in linen's order.
KEYWORDS = (
    "padding",
    "input_dilation",
    "kernel_dilation",
    "feature_group_count",
    "use_bias",
    "mask",
    "dtype",
    "param_dtype",
    "precision",
    "kernel_init",
    "bias_init",
    "promote_dtype",
    "conv_general_dilated",
)
_BY_COMPUTING = "convlab computes as `corr2d` does; flax.linen.Conv or flax.nnx.Conv has it."
REFUSED = {
    "input_dilation": "that is a transposed convolution; put zeros between the pixels before the layer.",
    "mask": "multiply the parameter `weight` by the mask.",
    "precision": "convlab computes with jax.lax.Precision.HIGHEST.",
    "promote_dtype": "dtype= and param_dtype= say in which dtypes it computes and keeps its parameters.",
    "conv_general_dilated": _BY_COMPUTING,
    "conv_general_dilated_cls": _BY_COMPUTING,
    "preferred_element_type": _BY_COMPUTING,
}
NATIVE = NativeLayer(
    "flax.linen.Conv",
    ("features", "kernel_size", "strides", *KEYWORDS, "conv_general_dilated_cls"),
    own=("param_dtype", "kernel_init", "bias_init", "parent", "name"),
    refused=REFUSED,
)


class _Fields(nn.Module):
    """The fields of `Conv2D`, which linen's modules are made of."""

    kernel_size: int | Pair
    in_channels: int | None = None
    out_channels: int | None = None
    stride: int | Pair = 1
    padding: Padding = 0
    padding_mode: PaddingMode = "zeros"
    dilation: int | Pair = 1
    groups: int = 1
    use_bias: bool = True
    data_format: DataFormat | None = None
    dtype: Any = None
    seed: int | None = None
    reproducible: bool = False
    padding_value: float = 0.0
    origin: int | Pair | None = None
    param_dtype: Any = None
    kernel_init: Initializer | None = None
    bias_init: Initializer | None = None

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Let `Conv2D`, and the classes that `nn.remat` and others derive from it, take what Flax's layer takes."""
        has_init = "__init__" in vars(cls)
        super().__init_subclass__(**keywords)
        if has_init:
            return
        of_fields = cls.__init__
        further = [each.name for each in fields(cls) if each.name not in _Fields.__dataclass_fields__]
        native = replace(NATIVE, own=(*NATIVE.own, *further))

        @functools.wraps(of_fields)
        def init(self: Any, *sizes: Any, **arguments: Any) -> None:
            options, own = native.arguments(sizes, arguments)
            del options["layout_given"]
            of_fields(self, **options, **own)

        cls.__init__ = init  # type: ignore[method-assign]


class Conv2D(_Fields):
    """`corr2d` with parameters `weight` and `bias`; see `convlab.Conv2D` for the fields.

    Those of `flax.linen.Conv` are taken too: `Conv2D(8, (3, 3), strides=2)`, `kernel_init` and `bias_init`. With
    `param_dtype` the parameters have that dtype, and `dtype` is the one that is computed in. An initialiser is asked
    for an HWIO kernel in either layout.

    >>> layer = Conv2D((1, 2), seed=0)
    >>> X = jnp.ones((6, 8))
    >>> params = layer.init(jax.random.key(0), X)
    >>> layer.apply(params, X).shape
    (6, 7)
    """

    if TYPE_CHECKING:

        def __init__(self, *sizes: Any, **arguments: Any) -> None: ...

    def __post_init__(self) -> None:
        for name in ("kernel_size", "stride", "padding", "dilation", "origin"):
            object.__setattr__(self, name, _tuple(getattr(self, name)))
        spec_of(self)  # it refuses options that don't go together
        super().__post_init__()

    @nn.compact
    def __call__(self, X: Any) -> jax.Array:
        """corr2d(X, weight, bias=bias) with the layer's geometry."""
        spec = spec_of(self).fit(jnp.shape(X))
        held, computed = dtypes_of(spec, self.param_dtype)
        weight = self.param("weight", initial_weight(spec, self.kernel_init), held)
        bias = self.param("bias", initial_bias(spec, self.bias_init), held) if spec.use_bias else None
        return correlated(spec, X, weight, bias, computed)


def spec_of(layer: Conv2D) -> LayerSpec:
    """The fields of a layer as a `LayerSpec`."""
    options = {each.name: getattr(layer, each.name) for each in fields(LayerSpec) if each.compare}
    layout = options.pop("data_format")
    return LayerSpec(**options, data_format=layout or "NCHW", layout_given=layout is not None)


def dtypes_of(spec: LayerSpec, param_dtype: Any) -> tuple[str, str | None]:
    """The dtype of a layer's parameters, and the one to compute in if it isn't that of `corr2d`."""
    if param_dtype is None:
        return spec.dtype or "float32", None
    return replace(spec, dtype=param_dtype).dtype, spec.dtype


def correlated(spec: LayerSpec, X: Any, weight: Any, bias: Any, dtype: str | None) -> jax.Array:
    """corr2d(X, weight, bias=bias) with a layer's geometry, all of them cast to a dtype first, if there is one."""
    if dtype is not None:
        X, weight, bias = (None if x is None else ops.cast(x, dtype) for x in (X, weight, bias))
    y: jax.Array = corr2d(X, weight, bias=bias, backend="jax", **spec.call)
    return y


def initial_weight(spec: LayerSpec, initializer: Initializer | None = None) -> Callable[[Any, str], jax.Array]:
    """The seed's values, an initialiser's, or Flax's customary ones (LeCun normal, drawn in float32 at most)."""

    def draw(key: Any, dtype: str) -> jax.Array:
        if spec.seed is not None:
            return ops.asarray(spec.seeded(), dtype)
        shape = spec.weight_shape()
        oihw = len(shape) == 4 and spec.data_format == "NCHW"
        if initializer is not None:
            with ops.scope(dtype):
                drawn = initializer(key, spec.hwio_shape, dtype)
                return jnp.transpose(drawn, (3, 2, 0, 1)) if oihw else jnp.reshape(drawn, shape)
        init = nn.initializers.lecun_normal(in_axis=1 if oihw else -2, out_axis=0 if oihw else -1, batch_axis=())
        drawn = init(key, shape if len(shape) == 4 else (*shape, 1, 1), "float32")
        return ops.cast(jnp.reshape(drawn, shape), dtype)

    return draw


def initial_bias(spec: LayerSpec, initializer: Initializer | None = None) -> Callable[[Any, str], jax.Array]:
    """An initialiser's values for a bias, or zeros."""

    def draw(key: Any, dtype: str) -> jax.Array:
        if initializer is None:
            return ops.asarray(np.zeros(spec.bias_shape), dtype)
        with ops.scope(dtype):
            return initializer(key, spec.bias_shape, dtype)

    return draw


def _tuple(value: Any) -> Any:
    """Lists as tuples, so that modules are hashable."""
    return tuple(_tuple(item) for item in value) if isinstance(value, (list, tuple)) else value
