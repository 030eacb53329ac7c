"""Functions as layers, and how both linen and nnx write a convolution, built."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

from convlab.errors import UnsupportedError
from convlab.models.layers.activations import Activation, Affine, Clip, Softmax
from convlab.models.layers.attention import FirstPixel
from convlab.models.layers.dot_product import DotProductAttention
from convlab.models.layers.flattening import Flatten
from convlab.models.layers.joining import Add, BroadcastLike, Concatenate, Divide, Maximum, Minimum, Multiply, Subtract
from convlab.models.layers.layer import LOWEST, Convolution, Dropout, Layer, Pad
from convlab.models.layers.outputs import Outputs
from convlab.models.layers.pooling import AdaptivePool, ChannelPool, GlobalPool, Pool
from convlab.models.layers.reading import ArrayNames
from convlab.models.layers.spatial import depends_on_size, is_padded
from convlab.models.layers.transposed import TransposedConvolution, named_crop, turned

from .across_channels import build_across_channels
from .activations import build_of_numbers
from .attention import attend, first_pixel
from .moving import build_moving
from .pooling import adaptive_pool
from .read import (
    MODES,
    add,
    affine,
    broadcast_like,
    concatenate,
    flatten,
    maximum,
    minimum,
    multiply,
    outputs,
)
from .resizing import build_resize


class _Names(ArrayNames):
    """Flax has transposed convolutions of groups as convolutions of images with zeros between their pixels."""

    def arrays(self, layer: Any, data_format: str | None = None) -> dict[str, np.ndarray]:
        """See `ArrayNames.arrays`."""
        if isinstance(layer, TransposedConvolution) and layer.groups > 1:
            layer = replace(layer, kernel=turned(layer.kernel, layer.groups))
        return super().arrays(layer, data_format)


NAMES = _Names("mean", "var", "scale", "bias", kernel="kernel", slope="negative_slope", channels_last=True)


def build_function(layer: Layer) -> Callable[..., Array] | None:
    """A function that computes a layer; None if it takes a module."""
    if isinstance(layer, (Activation, Clip)):
        return build_of_numbers(layer)
    if isinstance(layer, (Affine, Outputs, DotProductAttention)):
        return _build_with_options(layer)
    if isinstance(layer, Softmax):
        return nn.log_softmax if layer.log else nn.softmax
    if isinstance(layer, Pad):
        widths = ((0, 0), *layer.pads, (0, 0))
        if layer.mode == LOWEST:
            return functools.partial(jnp.pad, pad_width=widths, constant_values=-math.inf)
        if layer.value:
            return functools.partial(jnp.pad, pad_width=widths, constant_values=layer.value)
        return functools.partial(jnp.pad, pad_width=widths, mode=MODES[layer.mode])
    if isinstance(layer, Pool):
        return _build_pool(layer)
    if isinstance(layer, AdaptivePool):
        return functools.partial(adaptive_pool, function=layer.function, size=layer.size)
    if isinstance(layer, (GlobalPool, ChannelPool)):
        return _build_reduction(layer)
    if isinstance(layer, Flatten):
        return flatten if layer.order == "HWC" else functools.partial(flatten, order="CHW")
    return _FUNCTIONS.get(type(layer)) or build_resize(layer) or build_moving(layer) or build_across_channels(layer)


_FUNCTIONS: dict[type[Layer], Callable[..., Array]] = {
    Add: add,
    Subtract: jnp.subtract,
    Multiply: multiply,
    Divide: jnp.divide,
    Maximum: maximum,
    Minimum: minimum,
    Concatenate: concatenate,
    BroadcastLike: broadcast_like,
    FirstPixel: first_pixel,
}


def _build_with_options(layer: Affine | Outputs | DotProductAttention) -> Callable[..., Any]:
    if isinstance(layer, Outputs):
        return functools.partial(outputs, names=layer.names)
    if isinstance(layer, DotProductAttention):
        return functools.partial(attend, heads=layer.heads, scale=layer.scale)
    return functools.partial(affine, scale=layer.scale, shift=layer.shift)


def _build_reduction(layer: GlobalPool | ChannelPool) -> Callable[..., Array]:
    reductions: dict[str, Callable[..., Array]] = {"max": jnp.max, "average": jnp.mean, "sum": jnp.sum}
    reduce = reductions[layer.function]
    if isinstance(layer, ChannelPool):
        return functools.partial(reduce, axis=-1, keepdims=True)
    return functools.partial(reduce, axis=tuple(range(1, layer.rank + 1)), keepdims=layer.keepdims)


def _build_pool(layer: Pool) -> Callable[[Array], Array]:
    uncounted = layer.function == "average" and not (layer.count_padding and is_padded(layer.padding))
    whole = layer.whole_padding if layer.ceil and uncounted else None
    if (layer.ceil and whole is None) or layer.padding == "same_lower":
        raise UnsupportedError("Flax's pooling has neither ceil nor padding 'same_lower'.", hint="pad before it.")
    padding = whole or (layer.padding.upper() if isinstance(layer.padding, str) else layer.padding)
    options: dict[str, Any] = {"window_shape": layer.size, "strides": layer.stride, "padding": padding}
    if layer.function == "max":
        return functools.partial(nn.max_pool, **options)
    return functools.partial(nn.avg_pool, count_include_pad=layer.count_padding, **options)


def dropout_options(layer: Dropout) -> dict[str, Any]:
    """The arguments that `linen.Dropout` and `nnx.Dropout` share."""
    return {"rate": layer.rate, "deterministic": True, "broadcast_dims": layer.axes(first=1)}


def transposed_options(layer: TransposedConvolution) -> dict[str, Any]:
    """The arguments that `linen.ConvTranspose` and `nnx.ConvTranspose` share; with groups those of `Conv`."""
    names = ("SAME", "VALID")
    axes = zip(layer.extent, layer.crop, strict=True)
    own: Any = tuple((k - 1 - start, k - 1 - end) for k, (start, end) in axes)
    shared = {"kernel_dilation": layer.dilation, "use_bias": layer.bias is not None, "param_dtype": layer.dtype}
    if layer.groups > 1:
        if max(layer.stride) == 1:
            raise UnsupportedError(f"Flax has no transposed convolution with groups {layer.groups} and stride 1.")
        options = {"input_dilation": layer.stride, "padding": own, "feature_group_count": layer.groups}
        return {"kernel_size": layer.kernel.shape[2:], **options, **shared}
    named = (name for name in names if named_crop(name.lower(), layer.extent, layer.stride) == layer.crop)
    return {
        "kernel_size": layer.kernel.shape[2:],
        "strides": layer.stride,
        "padding": next(named, own),
        **shared,
        "transpose_kernel": True,
    }


def convolution_options(layer: Convolution) -> tuple[dict[str, Any], Callable[[Array], Array] | None]:
    """The arguments that `linen.Conv` and `nnx.Conv` share, and a border that must come before, or None."""
    spec = layer.spec
    border, padding = None, spec.padding.upper() if isinstance(spec.padding, str) else spec.padding
    if padding == "SAME_LOWER":
        raise UnsupportedError(
            "Flax's convolution has no padding 'same_lower' with a stride.", hint="layers='convlab' has it."
        )
    if (spec.padding_mode != "zeros" or spec.padding_value) and is_padded(spec.padding):
        if isinstance(spec.padding, str):
            raise depends_on_size(spec.padding)
        border, padding = build_function(Pad.before(spec)), "VALID"
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
