"""What linen and nnx share: functions as layers, and how both write a convolution."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from convlab.errors import UnsupportedError
from convlab.models.layers.activations import Activation
from convlab.models.layers.layer import LOWEST, Convolution, Flatten, Layer, Pad
from convlab.models.layers.pooling import GlobalPool, Pool
from convlab.models.layers.reading import Model, Part, around
from convlab.truth.precision import rounded

from .ops import ops


def flatten(x: Array) -> Array:
    """Each image of (N, H, W, C) as one row, pixel by pixel."""
    return jnp.reshape(x, (x.shape[0], -1))


_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
_REPEATED = {"CIRCULAR": "circular", "REFLECT": "reflect"}


def read_function(function: Any) -> tuple[Layer | None, str]:
    """What a function in a Sequential computes, and its name."""
    arguments: dict[str, Any] = {}
    inner = function
    while isinstance(inner, functools.partial):
        if inner.args:
            return None, f"{function}"
        arguments, inner = {**inner.keywords, **arguments}, inner.func
    name = getattr(inner, "__name__", type(inner).__name__)
    reader = next((reader for known, reader in _READERS if inner is known), None)
    if reader is None:
        return None, name
    try:
        return reader(**arguments), name
    except (TypeError, UnsupportedError) as error:
        return None, f"{name}: {error}"


def read_alone(function: Any, backend: str) -> Model:
    """A function as a model, as `build` may make it."""
    return Model(backend, [Part("", function, *read_function(function))], True, function)


def _pads(padding: Any, size: tuple[int, int]) -> Any:
    if isinstance(padding, str):
        return padding.lower()
    if isinstance(padding, int):
        return around((padding, padding))
    rows, columns = (tuple(each) if isinstance(each, (tuple, list)) else (each, each) for each in padding)
    return rows, columns


def _pool(
    function: str, window_shape: Any, strides: Any = None, padding: Any = "VALID", counted: bool = False
) -> Layer:
    if len(window_shape) != 2:
        raise UnsupportedError(f"a window of {len(window_shape)} axes")
    size, stride = tuple(window_shape), tuple(strides or (1, 1))
    pads = _pads(padding, size)
    return Pool(function, size, stride, pads if pads != "valid" else around((0, 0)), counted and pads != "valid")


def _mean(function: str) -> Callable[..., Layer]:
    def read(axis: Any = None, keepdims: bool = False) -> Layer:
        if axis is None or tuple(sorted(axis)) not in ((1, 2), (-3, -2)):
            raise UnsupportedError(f"over axes {axis}")
        return GlobalPool(function, keepdims)

    return read


def _pad(pad_width: Any, mode: str = "constant", constant_values: float = 0.0) -> Layer:
    widths = [tuple(each) for each in pad_width]
    if len(widths) != 4 or widths[0] != (0, 0) or widths[3] != (0, 0) or mode not in _MODES.values():
        raise UnsupportedError(f"widths {widths}, mode {mode!r}")
    if constant_values not in (0, -math.inf):
        raise UnsupportedError(f"a border of {constant_values}")
    if constant_values:
        return Pad((widths[1], widths[2]), LOWEST)
    return Pad((widths[1], widths[2]), next(ours for ours, theirs in _MODES.items() if theirs == mode))


_READERS: list[tuple[Any, Callable[..., Layer]]] = [
    (nn.relu, lambda: Activation("relu")),
    (jax.nn.relu6, lambda: Activation("relu6")),
    (nn.leaky_relu, lambda negative_slope=0.01: Activation("leaky_relu", float(negative_slope))),
    (nn.elu, lambda alpha=1.0: Activation("elu", float(alpha))),
    (nn.sigmoid, lambda: Activation("sigmoid")),
    (nn.tanh, lambda: Activation("tanh")),
    (jnp.tanh, lambda: Activation("tanh")),
    (nn.softplus, lambda: Activation("softplus")),
    (nn.silu, lambda: Activation("silu")),
    (nn.gelu, lambda approximate=True: Activation("gelu_tanh" if approximate else "gelu")),
    (nn.max_pool, functools.partial(_pool, "max")),
    (
        nn.avg_pool,
        lambda count_include_pad=True, **options: _pool("average", counted=count_include_pad, **options),
    ),
    (jnp.mean, _mean("average")),
    (jnp.max, _mean("max")),
    (jnp.pad, _pad),
    (flatten, lambda: Flatten("HWC")),
]


def build_function(layer: Layer) -> Callable[[Array], Array] | None:
    """A function that computes a layer; None if it takes a module."""
    if isinstance(layer, Activation):
        return _build_activation(layer)
    if isinstance(layer, Pad):
        widths = ((0, 0), *layer.pads, (0, 0))
        if layer.mode == LOWEST:
            return functools.partial(jnp.pad, pad_width=widths, constant_values=-math.inf)
        return functools.partial(jnp.pad, pad_width=widths, mode=_MODES[layer.mode])
    if isinstance(layer, Pool):
        return _build_pool(layer)
    if isinstance(layer, GlobalPool):
        reduce = jnp.max if layer.function == "max" else jnp.mean
        return functools.partial(reduce, axis=(1, 2), keepdims=layer.keepdims)
    if isinstance(layer, Flatten):
        if layer.order != "HWC":
            raise UnsupportedError("Flax's images are flattened pixel by pixel, this one channel by channel.")
        return flatten
    return None


def _build_activation(layer: Activation) -> Callable[[Array], Array]:
    parameter = layer.parameter
    made: dict[str, Callable[[Array], Array]] = {
        "relu": nn.relu,
        "relu6": jax.nn.relu6,
        "leaky_relu": functools.partial(nn.leaky_relu, negative_slope=parameter),
        "elu": functools.partial(nn.elu, alpha=parameter),
        "sigmoid": nn.sigmoid,
        "tanh": nn.tanh,
        "softplus": nn.softplus,
        "silu": nn.silu,
        "gelu": functools.partial(nn.gelu, approximate=False),
        "gelu_tanh": nn.gelu,
    }
    return made[layer.function]


def _build_pool(layer: Pool) -> Callable[[Array], Array]:
    if layer.ceil or layer.padding == "same_lower":
        raise UnsupportedError("Flax's pooling has neither ceil nor padding 'same_lower'.", hint="pad before it.")
    padding = layer.padding.upper() if isinstance(layer.padding, str) else layer.padding
    options: dict[str, Any] = {"window_shape": layer.size, "strides": layer.stride, "padding": padding}
    if layer.function == "max":
        return functools.partial(nn.max_pool, **options)
    return functools.partial(nn.avg_pool, count_include_pad=layer.count_padding, **options)


def read_convolution(layer: Any, kernel: Any, bias: Any) -> Convolution:
    """A `linen.Conv` or an `nnx.Conv` with these values; if it computes in a narrower dtype, they are cast to it."""
    size = (layer.kernel_size,) if isinstance(layer.kernel_size, int) else tuple(layer.kernel_size)
    if len(size) != 2:
        raise UnsupportedError(f"a kernel of {len(size)} axes, expected 2")
    if _both(layer.input_dilation) != (1, 1):
        raise UnsupportedError("input_dilation is Flax's alone")
    if layer.mask is not None:
        raise UnsupportedError("mask is Flax's alone")
    dtype, (values, shift) = computed(layer, kernel, bias)
    dilation = _both(layer.kernel_dilation)
    padding = _pads(layer.padding, (size[0], size[1]))
    mode = "zeros"
    if isinstance(padding, str) and padding.upper() in _REPEATED:
        extents = [(k - 1) * d + 1 for k, d in zip(size, dilation, strict=True)]
        mode, padding = _REPEATED[padding.upper()], tuple(((e - 1) // 2, e // 2) for e in extents)
    return Convolution.of(
        values.transpose(3, 2, 0, 1),
        shift,
        dtype,
        stride=_both(layer.strides),
        padding=padding,
        padding_mode=mode,
        dilation=dilation,
        groups=layer.feature_group_count,
    )


def computed(layer: Any, *arrays: Any) -> tuple[str, list[Any]]:
    """What a layer computes in, and its arrays as it then casts them."""
    dtype = np.dtype(layer.dtype or arrays[0].dtype).name
    held = "float32" if dtype == "bfloat16" else dtype
    return dtype, [None if each is None else rounded(ops.to_numpy(each), dtype).astype(held) for each in arrays]


def check_dtype(norm: Any, statistics: Array) -> None:
    """A batch norm that casts its result says so."""
    if norm.dtype is not None and np.dtype(norm.dtype).name != statistics.dtype.name:
        raise UnsupportedError(f"it keeps {statistics.dtype.name} and computes in {np.dtype(norm.dtype).name}")


def _both(value: Any) -> tuple[int, int]:
    first, second = value if isinstance(value, (tuple, list)) else (value, value)
    return first or 1, second or 1


def convolution_options(layer: Convolution) -> tuple[dict[str, Any], Callable[[Array], Array] | None]:
    """The arguments that `linen.Conv` and `nnx.Conv` share, and what must come before."""
    spec = layer.spec
    border, padding = None, spec.padding.upper() if isinstance(spec.padding, str) else spec.padding
    if padding == "SAME_LOWER":
        raise UnsupportedError("Flax's convolution has no padding 'same_lower' with a stride.", hint="layers='convlab'")
    if spec.padding_mode != "zeros" and not isinstance(spec.padding, str):
        border, padding = build_function(Pad(spec.padding, spec.padding_mode)), "VALID"
    options = {
        "kernel_size": spec.kernel_size,
        "strides": spec.stride,
        "padding": padding,
        "kernel_dilation": spec.dilation,
        "feature_group_count": spec.groups,
        "use_bias": spec.use_bias,
        "param_dtype": spec.dtype,
    }
    return options, border


_AXES = {"NHWC": (0, 2, 3, 1), "NCHW": (0, 3, 1, 2)}  # into the layout, from the other one


def once(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function compiled for a single call: as a whole, and without trouble taken over its speed."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def forward(natives: Any, x: Array, call: Callable[[Any, Array], Array], layout: Callable[[Any], str]) -> Array:
    """x, NCHW, through native layers, each in its layout; the result is NCHW again."""
    found = "NCHW"
    for native in natives:
        wanted = layout(native)
        if x.ndim == 4 and wanted != found:
            x, found = jnp.transpose(x, _AXES[wanted]), wanted
        x = call(native, x)
    return jnp.transpose(x, _AXES["NCHW"]) if x.ndim == 4 and found == "NHWC" else x
