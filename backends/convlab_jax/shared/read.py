"""Functions as layers, and how both linen and nnx write a convolution, read."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

from convlab.errors import UnsupportedError
from convlab.models.layers.activations import Affine, Softmax
from convlab.models.layers.attention import FirstPixel
from convlab.models.layers.dot_product import DotProductAttention
from convlab.models.layers.flattening import Flatten
from convlab.models.layers.folded import convolution
from convlab.models.layers.joining import Add, BroadcastLike, Concatenate, Divide, Maximum, Minimum, Multiply, Subtract
from convlab.models.layers.layer import LOWEST, BatchNorm, Dropout, Layer, Pad
from convlab.models.layers.norms import ChannelAffine, GroupNorm, LayerNorm, RMSNorm
from convlab.models.layers.outputs import Outputs, container_of
from convlab.models.layers.pooling import AdaptivePool, ChannelPool, GlobalPool, Pool, average_of_inside
from convlab.models.layers.reading import Model, Part
from convlab.models.layers.spatial import WHAT, Size, around, causal, oihw, per_axis
from convlab.models.layers.transposed import TransposedConvolution, named_crop, transposed_convolution, turned
from convlab.truth.precision import rounded

from ..ops import ops
from .across_channels import READERS as ACROSS_CHANNELS
from .activations import READERS as ACTIVATIONS
from .attention import attend, class_token, first_pixel, positions, read_class_token, read_positions
from .convolving import READERS as CONVOLVING
from .moving import READERS as MOVING
from .pooling import adaptive_pool
from .resizing import READERS as RESIZING

MODES = {
    "zeros": "constant",
    "reflect": "reflect",
    "symmetric": "symmetric",
    "replicate": "edge",
    "circular": "wrap",
}
_REPEATED = {"CIRCULAR": "circular", "REFLECT": "reflect"}


def flatten(x: Array, order: str = "HWC") -> Array:
    """Each image of (N, H, W, C) as one row, pixel by pixel, or channel by channel."""
    return jnp.reshape(x if order == "HWC" else jnp.moveaxis(x, -1, 1), (x.shape[0], -1))


def average_of_window(x: Array, strided: bool = False, rank: int = 2) -> Array:
    """The mean of each channel, by a pooling whose one window is the whole image, of so many axes."""
    window = x.shape[1 : rank + 1]
    y: Array = nn.avg_pool(x, window, strides=window if strided else None)  # type: ignore[no-untyped-call]
    return y


def add(*values: Array) -> Array:
    """The sum of arrays."""
    return functools.reduce(jnp.add, values)


def multiply(*values: Array) -> Array:
    """The product of arrays, element by element."""
    return functools.reduce(jnp.multiply, values)


def maximum(*values: Array) -> Array:
    """The greatest of arrays, element by element."""
    return functools.reduce(jnp.maximum, values)


def minimum(*values: Array) -> Array:
    """The least of arrays, element by element."""
    return functools.reduce(jnp.minimum, values)


def affine(x: Array, scale: float = 1.0, shift: float = 0.0) -> Array:
    """The array times a number, and another number added."""
    y = x if scale == 1.0 else x * scale
    return y if shift == 0.0 else y + shift


def channel_affine(
    x: Array, scale: tuple[float, ...] = (), shift: tuple[float, ...] = (), dtype: str = "float32"
) -> Array:
    """The array times a number for each channel, and another number for each added; none where there are no numbers."""
    y = x * jnp.asarray(scale, dtype) if scale else x
    return y + jnp.asarray(shift, dtype) if shift else y


def _channel_affine(scale: Any = (), shift: Any = (), dtype: str = "float32") -> Layer:
    held = "float32" if dtype == "bfloat16" else dtype
    first, second = (np.asarray(each, held) if each else None for each in (scale, shift))
    return ChannelAffine(first, second, trained=False, dtype=dtype)


def broadcast_like(x: Array, like: Array) -> Array:
    """Images NHWC of one pixel, repeated for each pixel of others."""
    return jnp.broadcast_to(x, (*like.shape[:-1], x.shape[-1]))


def outputs(*values: Array, names: tuple[str, ...] = ()) -> Any:
    """Several results of a model: a tuple, or a dictionary if they have names."""
    return container_of(values, names)


def concatenate(*values: Array) -> Array:
    """The channels of images (N, H, W, C) or of rows, one after another."""
    return jnp.concatenate(values, axis=-1)


def read_function(function: Any) -> tuple[Layer | None, str]:
    """What a function in a Sequential computes, and its name."""
    arguments: dict[str, Any] = {}
    inner = function
    while isinstance(inner, functools.partial):
        if inner.args:
            return None, f"{function}"
        arguments, inner = {**inner.keywords, **arguments}, inner.func
    name = getattr(inner, "__name__", type(inner).__name__)
    reader = next((reader for readable, reader in _READERS if inner is readable), None)
    if reader is None:
        return None, name
    try:
        return reader(**arguments), name
    except (TypeError, UnsupportedError) as error:
        return None, f"{name}: {error}"


def read_alone(function: Any, backend: str) -> Model:
    """A function as a model, as `build` may make it."""
    return Model(backend, [Part("", function, *read_function(function))], True, function)


def _softmax(log: bool) -> Callable[..., Layer]:
    def read(axis: Any = -1) -> Layer:
        if axis != -1:
            raise UnsupportedError(f"its axis is {axis}, expected -1, the channels")
        return Softmax(log)

    return read


def _pads(padding: Any, rank: int) -> Any:
    if isinstance(padding, str):
        return padding.lower()
    if isinstance(padding, int):
        return around((padding,) * rank)
    return tuple(tuple(ends) if isinstance(ends, (tuple, list)) else (ends, ends) for ends in padding)


def _pool(
    function: str, window_shape: Any, strides: Any = None, padding: Any = "VALID", counted: bool = False
) -> Layer:
    rank = len(window_shape)
    if rank not in WHAT:
        raise UnsupportedError(f"its window has {rank} axes, expected 1, 2 or 3")
    pads = _pads(padding, rank)
    stride = tuple(strides or (1,) * rank)
    if function == "average" and not counted:
        return average_of_inside(tuple(window_shape), stride, pads)
    return Pool(function, tuple(window_shape), stride, pads, counted and pads != "valid")


def _mean(function: str) -> Callable[..., Layer]:
    def read(axis: Any = None, keepdims: bool = False) -> Layer:
        axes = () if axis is None else tuple(sorted(per_axis(axis, 1)))
        if axes == (-1,) and keepdims:
            return ChannelPool(function)
        rank = len(axes)
        if not 1 <= rank <= 3 or axes not in (tuple(range(1, rank + 1)), tuple(range(-1 - rank, -1))):
            raise UnsupportedError(f"it reduces the axes {axis}, expected (1, 2)")
        return GlobalPool(function, keepdims, rank=rank)

    return read


def _pad(pad_width: Any, mode: str = "constant", constant_values: float = 0.0) -> Layer:
    widths = [tuple(ends) for ends in pad_width]
    if not 3 <= len(widths) <= 5 or widths[0] != (0, 0) or widths[-1] != (0, 0) or mode not in MODES.values():
        raise UnsupportedError(
            f"it pads by {widths} in the mode {mode!r}, which convlab doesn't know for images (N, H, W, C)"
        )
    if constant_values == -math.inf:
        return Pad(tuple(widths[1:-1]), LOWEST)
    if not math.isfinite(constant_values):
        raise UnsupportedError(f"its border is {constant_values}, expected a finite number or -inf")
    border = next(ours for ours, theirs in MODES.items() if theirs == mode)
    return Pad(tuple(widths[1:-1]), border, float(constant_values))


_READERS: list[tuple[Any, Callable[..., Layer]]] = [
    *ACTIVATIONS,
    (nn.softmax, _softmax(log=False)),
    (nn.log_softmax, _softmax(log=True)),
    (nn.max_pool, functools.partial(_pool, "max")),
    (
        nn.avg_pool,
        lambda count_include_pad=True, **options: _pool("average", counted=count_include_pad, **options),
    ),
    (jnp.mean, _mean("average")),
    (jnp.max, _mean("max")),
    (jnp.sum, _mean("sum")),
    (jnp.pad, _pad),
    (average_of_window, lambda strided=False, rank=2: GlobalPool("average", rank=rank)),
    (flatten, lambda order="HWC": Flatten(order)),
    (affine, Affine),
    (channel_affine, _channel_affine),
    (add, Add),
    (jnp.subtract, Subtract),
    (multiply, Multiply),
    (jnp.divide, Divide),
    (maximum, Maximum),
    (minimum, Minimum),
    (concatenate, Concatenate),
    (broadcast_like, BroadcastLike),
    (outputs, Outputs),
    (first_pixel, FirstPixel),
    (attend, DotProductAttention),
    (class_token, read_class_token),
    (positions, read_positions),
    *MOVING,
    (adaptive_pool, lambda function, size: AdaptivePool(function, tuple(size))),
    *RESIZING,
    *CONVOLVING,
    *ACROSS_CHANNELS,
]


def read_convolution(layer: Any, kernel: Any, bias: Any) -> Layer:
    """A `linen.Conv` or an `nnx.Conv` with these values; if it computes in a narrower dtype, they are cast to it.

    With groups and zeros between the pixels it is a transposed convolution, of which Flax's own has no groups.
    """
    size = per_axis(layer.kernel_size, 1)
    rank = len(size)
    if rank not in (1, 2, 3):
        raise UnsupportedError(f"its kernel has {rank} axes, expected 1, 2 or 3")
    if layer.mask is not None:
        raise UnsupportedError("only Flax has a convolution with a mask")
    dtype, (values, shift) = computed(layer, kernel, bias)
    dilation = _each(layer.kernel_dilation, rank)
    padding, between = _pads(layer.padding, rank), _each(layer.input_dilation, rank)
    if max(between) > 1:
        if max(_each(layer.strides, rank)) > 1 or layer.feature_group_count == 1 or isinstance(padding, str):
            raise UnsupportedError("only Flax has a convolution with input_dilation but without groups")
        axes = [(n - 1) * d for n, d in zip(size, dilation, strict=True)]
        crop = tuple((last - start, last - end) for last, (start, end) in zip(axes, padding, strict=True))
        groups = layer.feature_group_count
        own = turned(oihw(values), groups)
        return transposed_convolution(own, shift, between, crop, dilation, groups, dtype)
    mode = "zeros"
    if padding == "causal":
        padding = causal(size, dilation)
    if isinstance(padding, str) and padding.upper() in _REPEATED:
        extents = [(k - 1) * d + 1 for k, d in zip(size, dilation, strict=True)]
        mode, padding = _REPEATED[padding.upper()], tuple(((extent - 1) // 2, extent // 2) for extent in extents)
    return convolution(
        oihw(values),
        shift,
        dtype,
        stride=_each(layer.strides, rank),
        padding=padding,
        padding_mode=mode,
        dilation=dilation,
        groups=layer.feature_group_count,
    )


def read_dropout(layer: Any, rank: int = 2) -> Dropout:
    """A `linen.Dropout` or an `nnx.Dropout`, of images with so many axes."""
    return Dropout.along(layer.rate, layer.broadcast_dims, pixels=tuple(range(1, rank + 1)))


def traced_model(backend: str, model: Any, trace: Any, unknown: Mapping[str, str], loose: dict[str, str]) -> Model:
    """The model that tracing has shown: whole, with what it doesn't use, if all of its code is known.

    The trace is a `convlab_jax.shared.graph.Traced`.
    """
    if unknown:
        return Model(backend, trace.parts, False, model, loose={**loose, **unknown})
    image, inputs = trace.image, dict.fromkeys(trace.inputs, trace.image)
    return Model(backend, trace.parts, True, model, image, unused=loose, alone=image is not None, inputs=inputs)


def of_its_rank(model: Model) -> Model:
    """The model, where the axes that dropouts and batch norms name are those of the model's images."""
    rank = model.rank
    return model if rank == 2 else replace(model, parts=[_of_rank(part, rank) for part in model.parts])


def _of_rank(part: Part, rank: int) -> Part:
    name = type(part.native).__name__
    try:
        if hasattr(part.native, "broadcast_dims"):
            return replace(part, layer=read_dropout(part.native, rank), note=name)
        if isinstance(part.layer, BatchNorm) and part.native.axis not in (-1, rank + 1):
            raise UnsupportedError(f"it normalises axis {part.native.axis}, which isn't that of the channels")
    except UnsupportedError as error:
        return replace(part, layer=None, note=f"{name}: {error}")
    return part


def computed(layer: Any, *arrays: Any) -> tuple[str, list[Any]]:
    """The dtype in which a layer computes, and its arrays as it casts them to it."""
    dtype = np.dtype(layer.dtype or arrays[0].dtype).name
    stored = "float32" if dtype == "bfloat16" else dtype
    return dtype, [None if each is None else rounded(ops.to_numpy(each), dtype).astype(stored) for each in arrays]


def check_dtype(norm: Any, statistics: Array) -> None:
    """Refuse a batch normalisation that computes in another dtype than it keeps, and so casts its result."""
    if norm.dtype is not None and np.dtype(norm.dtype).name != statistics.dtype.name:
        raise UnsupportedError(f"it keeps {statistics.dtype.name} and computes in {np.dtype(norm.dtype).name}")


def read_transposed(layer: Any, kernel: Any, bias: Any) -> TransposedConvolution:
    """A `linen.ConvTranspose` or an `nnx.ConvTranspose` with these values."""
    size = (layer.kernel_size,) if isinstance(layer.kernel_size, int) else tuple(layer.kernel_size)
    rank = len(size)
    if not 1 <= rank <= 3 or layer.mask is not None:
        raise UnsupportedError(f"its kernel has {rank} axes, expected 1, 2 or 3, or it has a mask")
    dtype, (values, shift) = computed(layer, kernel, bias)
    # Without transpose_kernel, Flax doesn't flip the kernel, and has the inputs before the outputs.
    kernel = oihw(values) if layer.transpose_kernel else oihw(np.flip(values, tuple(range(rank))).swapaxes(-1, -2))
    stride, dilation = _each(layer.strides, rank), _each(layer.kernel_dilation, rank)
    extent = tuple((n - 1) * d + 1 for n, d in zip(size, dilation, strict=True))
    padding = _pads(layer.padding, rank)
    if padding == "circular":
        raise UnsupportedError("only Flax has a transposed convolution with a circular border")
    if isinstance(padding, str):
        crop = named_crop(padding, extent, stride)
    else:
        crop = tuple((k - 1 - start, k - 1 - end) for k, (start, end) in zip(extent, padding, strict=True))
    return transposed_convolution(np.ascontiguousarray(kernel), shift, stride, crop, dilation, 1, dtype)


def read_rms_norm(layer: Any, scale: Any, channels: int = 0) -> RMSNorm:
    """A root mean square norm; see `read_norm`."""
    norm = read_norm(layer, scale, None, None, channels)
    return RMSNorm(norm.scale, norm.epsilon, norm.dtype)


def read_norm(layer: Any, scale: Any, bias: Any, groups: int | None, channels: int = 0) -> GroupNorm | LayerNorm:
    """A normalisation by each image's statistics; `groups` is None for a layer norm.

    Args:
        layer: linen's or nnx's.
        scale: its values, or None.
        bias: likewise.
        groups: of the channels.
        channels: how many there are, where it has no values.
    """
    for axes in ("feature_axes", "reduction_axes"):
        if getattr(layer, axes, None) not in (None, -1, (-1,)):
            raise UnsupportedError(f"its {axes} are {getattr(layer, axes)}, expected -1, the channels")
    given = scale if bias is None else bias
    if given is None and not channels:
        raise UnsupportedError("it has neither a scale nor a bias, so that its channels aren't known")
    dtype = "float32" if given is None else ops.dtype(given)
    if layer.dtype is not None and np.dtype(layer.dtype).name != dtype:
        raise UnsupportedError(f"it keeps {dtype} and computes in {np.dtype(layer.dtype).name}")
    ones = np.ones(channels, dtype) if given is None else np.ones_like(ops.to_numpy(given))
    arrays = ones if scale is None else ops.to_numpy(scale), 0 * ones if bias is None else ops.to_numpy(bias)
    if groups is None:
        return LayerNorm(*arrays, layer.epsilon, dtype)
    return GroupNorm(*arrays, groups or len(ones), layer.epsilon, dtype)


def _each(value: Any, rank: int) -> Size:
    """A number for each axis, 1 where there is none."""
    return tuple(n or 1 for n in per_axis(value, rank))
