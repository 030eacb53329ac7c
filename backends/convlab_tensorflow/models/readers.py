"""What each of Keras's layers computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers as kl

from convlab.errors import UnsupportedError
from convlab.models.layers.activations import Activation, Affine, PReLU, Softmax, clip
from convlab.models.layers.channels import ChannelShuffle, ChannelSlice, Chunk, PixelShuffle
from convlab.models.layers.flattening import Flatten, Unflatten
from convlab.models.layers.folded import convolution
from convlab.models.layers.joining import Add, BroadcastLike, Concatenate, Divide, Maximum, Minimum, Multiply, Subtract
from convlab.models.layers.layer import LOWEST, BatchNorm, Convolution, Dense, Dropout, Layer, Pad
from convlab.models.layers.norms import ChannelAffine, GroupNorm, LayerNorm, RMSNorm
from convlab.models.layers.outputs import Outputs as OutputsLayer
from convlab.models.layers.pixels import Crop, Subsample, Upsample
from convlab.models.layers.pooling import ChannelPool, GlobalPool, Pool
from convlab.models.layers.reading import known
from convlab.models.layers.spatial import Ends, causal, oihw
from convlab.models.layers.transposed import named_crop, transposed_convolution
from convlab.truth.precision import rounded

from .. import attention_layers, image_layers, private, resizing_layers
from ..border_layers import BorderPadding
from ..channel_layers import ConcatenatePixels
from ..layers import Conv2D, LowestPadding
from ..transposed_layers import GROUPED
from . import across_channels, attention, pooling, resizing
from .activations import FUNCTIONS, leaky
from .arrays import array_of
from .outputs import Outputs

FORMATS = {"channels_last": "NHWC", "channels_first": "NCHW"}


def kernel_of(layer: kl.Layer, array: np.ndarray) -> np.ndarray:
    """A layer's kernel, or the gradient of it, as OIHW; a dense layer's as (outputs, inputs)."""
    if isinstance(layer, Conv2D):
        return Convolution.ours(layer.spec, array, None, "float32").kernel
    if isinstance(layer, DEPTHWISE):
        *size, channels, multiplier = array.shape
        return np.moveaxis(array, (-2, -1), (0, 1)).reshape(channels * multiplier, 1, *size)
    return oihw(array)


def _convolution(m: Any) -> Layer:
    padding = causal(m.kernel_size, m.dilation_rate) if m.padding == "causal" else m.padding
    return convolution(
        kernel_of(m, _computed(m, m.kernel)),
        None if m.bias is None else _computed(m, m.bias),
        m.compute_dtype,
        m.kernel.shape[-2] if isinstance(m, DEPTHWISE) else m.groups,
        stride=tuple(m.strides),
        padding=padding,
        dilation=tuple(m.dilation_rate),
    )


def _computed(m: kl.Layer, variable: Any) -> np.ndarray:
    """A layer's weights as it computes with them, which under a mixed policy is in a narrower dtype."""
    array = array_of(variable)
    if m.compute_dtype == m.variable_dtype:
        return array
    return rounded(array, m.compute_dtype).astype("float32" if m.compute_dtype == "bfloat16" else m.compute_dtype)


def _ours(m: Conv2D) -> Layer:
    bias = None if m.bias is None else _computed(m, m.bias)
    return Convolution.ours(m.spec, _computed(m, m.weight), bias, m.compute_dtype)


def _transposed(m: Any) -> Layer:
    kernel = kernel_of(m, _computed(m, m.kernel))
    extent = tuple((k - 1) * d + 1 for k, d in zip(m.kernel_size, m.dilation_rate, strict=True))
    more = (m.output_padding,) * len(extent) if isinstance(m.output_padding, int) else m.output_padding
    crop = named_crop(m.padding, extent, m.strides, more)
    bias = None if m.bias is None else _computed(m, m.bias)
    geometry = m.strides, crop, m.dilation_rate, getattr(m, "groups", 1)
    return transposed_convolution(kernel, bias, *geometry, m.compute_dtype)


def _dense(m: kl.Dense) -> Layer:
    """Of images it is a convolution of each pixel."""
    kernel, bias = _computed(m, m.kernel).T, None if m.bias is None else _computed(m, m.bias)
    rank = len(m.get_build_config()["input_shape"]) - 2 if m.built else 0
    if rank in (1, 2, 3):
        return convolution(kernel.reshape(*kernel.shape, *(1,) * rank), bias, m.compute_dtype)
    if rank:
        raise UnsupportedError(f"it is applied to arrays of {rank + 2} axes, expected rows of numbers or images")
    return Dense(kernel, bias, m.compute_dtype)


def _statistics_axis(m: kl.Layer, axis: Any) -> int:
    """How many axes are normalised, beside those of images and channels.

    Raises:
        UnsupportedError: it computes in another dtype than it keeps, or its axis isn't that of the channels.
    """
    if m.compute_dtype != m.variable_dtype:
        raise UnsupportedError(f"it keeps {m.variable_dtype} and computes in {m.compute_dtype}")
    count = len(m.get_build_config()["input_shape"])
    axes = [axis] if isinstance(axis, int) else [*axis]
    channels = (1, count - 1) if count == 4 else (count - 1,)
    if not 2 <= count <= 5 or len(axes) != 1 or axes[0] % count not in channels:
        raise UnsupportedError(f"it normalises the axes {axes} of {count}, expected that of the channels")
    return count - 2


def _scale_and_shift(m: kl.Layer, channels: int) -> tuple[np.ndarray, np.ndarray]:
    dtype = m.variable_dtype
    scale = np.ones(channels, dtype) if m.gamma is None else array_of(m.gamma).reshape(-1)
    return scale, np.zeros(channels, dtype) if m.beta is None else array_of(m.beta).reshape(-1)


def _channels(m: kl.Layer, axis: int) -> int:
    return int(m.get_build_config()["input_shape"][axis])


def _layer_norm(m: kl.LayerNormalization) -> Layer:
    rank = _statistics_axis(m, m.axis)
    if getattr(m, "rms_scaling", False):
        raise UnsupportedError("it subtracts no mean (rms_scaling)")
    axis = m.axis if isinstance(m.axis, int) else m.axis[0]
    return LayerNorm(*_scale_and_shift(m, _channels(m, axis)), m.epsilon, m.variable_dtype, rank=rank)


def _rms_norm(m: Any) -> Layer:
    rank = _statistics_axis(m, m.axis)
    return RMSNorm(array_of(m.scale), m.epsilon, m.variable_dtype, rank=rank)


def _group_norm(m: kl.GroupNormalization) -> Layer:
    rank, channels = _statistics_axis(m, m.axis), _channels(m, m.axis)
    groups = channels if m.groups == -1 else m.groups
    return GroupNorm(*_scale_and_shift(m, channels), groups, m.epsilon, m.variable_dtype, rank=rank)


def _normalization(m: kl.Normalization) -> Layer:
    """(x - mean) / max(sqrt(variance), epsilon), as a product and a sum."""
    if m.invert or np.size(m.mean) != np.shape(m.mean)[-1]:
        raise UnsupportedError("it is inverted, or has another mean for each pixel")
    mean, variance = (np.asarray(array_of(each), np.float64).reshape(-1) for each in (m.mean, m.variance))
    scale = 1 / np.maximum(np.sqrt(variance), keras.backend.epsilon())
    dtype = m.compute_dtype
    return ChannelAffine(scale.astype(dtype), (-mean * scale).astype(dtype), False, dtype)


def _own_affine(m: image_layers.ChannelAffine) -> Layer:
    scale, shift = (None if each is None else array_of(each) for each in (m.gamma, m.beta))
    return ChannelAffine(scale, shift, m.trainable, m.variable_dtype)


def _upsampling(m: Any) -> Layer:
    method = getattr(m, "interpolation", "nearest")  # which layers of images alone have
    if method not in ("nearest", "bilinear"):
        raise UnsupportedError(f"its interpolation is {method}, expected nearest or bilinear")
    return Upsample((m.size,) if isinstance(m.size, int) else tuple(m.size), method)


def _batch_norm(m: kl.BatchNormalization) -> Layer:
    if m.compute_dtype != m.variable_dtype:
        raise UnsupportedError(f"it keeps {m.variable_dtype} and computes in {m.compute_dtype}")
    count = m.input_spec.ndim
    if not 2 <= count <= 5 or m.axis % count not in ((1, 3) if count == 4 else (count - 1,)):
        raise UnsupportedError(f"it normalises axis {m.axis}, which isn't that of the channels")
    mean, variance = array_of(m.moving_mean), array_of(m.moving_variance)
    scale = array_of(m.gamma) if m.scale else np.ones_like(mean)
    shift = array_of(m.beta) if m.center else np.zeros_like(mean)
    return BatchNorm(mean, variance, scale, shift, m.epsilon, m.momentum, m.moving_mean.dtype, rank=count - 2)


def _pool(function: str) -> Callable[[Any], Layer]:
    def read(m: Any) -> Layer:
        return Pool(function, tuple(m.pool_size), tuple(m.strides), m.padding)

    return read


def _dropout(m: kl.Dropout) -> Layer:
    shape = m.noise_shape or (None,) * 4
    axes = [axis for axis, size in enumerate(shape) if size == 1]
    return Dropout.along(m.rate, axes, pixels=tuple(range(1, len(shape) - 1)) or (1, 2))


def _spatial_dropout(rank: int) -> Callable[[Any], Layer]:
    def read(m: Any) -> Layer:
        if getattr(m, "data_format", "channels_last") != "channels_last":
            raise UnsupportedError("its data_format is 'channels_first'")
        return Dropout(m.rate, channels=True, rank=rank)

    return read


def _pads(widths: Any) -> Ends:
    """Both ends of each axis."""
    return tuple(tuple(ends) for ends in ([widths] if isinstance(widths[0], int) else widths))


def takes_rows(m: kl.Reshape) -> bool:
    """Whether it takes rows of numbers, or hasn't been called and may."""
    try:
        return len(m.input.shape) == 2
    except AttributeError:
        return True


def _rank(m: kl.Layer) -> int:
    """The number of axes that a pooling is for."""
    return int(m.input_spec.ndim) - 2


def _reshape(m: kl.Reshape) -> Layer:
    if len(m.target_shape) == 1:
        return Flatten("HWC")
    *size, _ = m.target_shape
    if len(size) > 3 or not takes_rows(m) or min(size) < 1:
        raise UnsupportedError(f"it gives the shape {m.target_shape}, expected (numbers,), or (H, W, C) of rows")
    return Unflatten(tuple(size), "HWC")


def _relu(m: kl.ReLU) -> Layer:
    if (m.threshold and m.negative_slope) or (m.max_value is not None and (m.negative_slope or m.threshold)):
        raise UnsupportedError("only Keras has a ReLU with several of a threshold, a max_value and a negative_slope")
    if m.threshold:
        return Activation("threshold", float(m.threshold))
    if m.max_value is not None:
        return clip(0, m.max_value)
    return leaky(m.negative_slope) if m.negative_slope else Activation("relu")


def _prelu(m: kl.PReLU) -> Layer:
    shape = tuple(m.alpha.shape)
    if m.alpha.shape.num_elements() not in (1, shape[-1]):
        raise UnsupportedError(
            f"it has another slope for each pixel, {shape}; shared_axes=[1, 2] has one for each channel"
        )
    return PReLU(array_of(m.alpha).reshape(-1), m.variable_dtype)


def _softmax(m: kl.Softmax) -> Layer:
    if m.axis != -1:
        raise UnsupportedError(f"its axis is {m.axis}, expected -1, the channels")
    return Softmax()


def _activation(m: kl.Activation) -> Layer:
    if isinstance(m.activation, kl.Layer):
        layer, note = read_layer(m.activation)
    else:
        layer = next((layer for function, layer in FUNCTIONS if function is m.activation), None)
        note = getattr(m.activation, "__name__", str(m.activation))
    if layer is None:
        raise UnsupportedError(f"convlab doesn't know the function {note}")
    return layer


def _rescaling(m: kl.Rescaling) -> Layer:
    scale, shift = (np.asarray(each, m.compute_dtype) for each in (m.scale, m.offset))
    if max(scale.ndim, shift.ndim) == 0:
        return Affine(float(m.scale), float(m.offset))
    both = np.broadcast_arrays(scale, shift)
    if both[0].size != both[0].shape[-1]:
        raise UnsupportedError(f"its scale and offset have the shapes {scale.shape} and {shift.shape}")
    plain = scale.size == 1 and scale == 1, shift.size == 1 and shift == 0
    numbers = [None if nothing else each.reshape(-1).copy() for nothing, each in zip(plain, both, strict=True)]
    return ChannelAffine(numbers[0], numbers[1], dtype=m.compute_dtype)


def _concatenate(m: kl.Concatenate) -> Layer:
    if m.axis not in (-1, _axes_of(m) - 1):
        raise UnsupportedError(f"it concatenates along axis {m.axis}, expected -1, the channels")
    return Concatenate()


def _axes_of(m: kl.Layer) -> int:
    """How many axes the arrays have that a layer joins; 4 where it hasn't been called."""
    try:
        return len(m.input[0].shape)
    except AttributeError:
        return 4


def each_rank(name: str, end: str = "") -> tuple[Any, ...]:
    """Keras's classes of this name for one axis, for two and for three."""
    return tuple(getattr(kl, f"{name}{rank}D{end}") for rank in (1, 2, 3))


DEPTHWISE = (kl.DepthwiseConv1D, kl.DepthwiseConv2D)
TRANSPOSED = each_rank("Conv", "Transpose")
CONVOLUTIONS = (Conv2D, *each_rank("Conv"), *DEPTHWISE, *TRANSPOSED)
# Keras has it from version 3.9 on.
RMS_NORMS = (kl.RMSNormalization,) if hasattr(kl, "RMSNormalization") else ()
_NORMS = (*RMS_NORMS, kl.BatchNormalization, kl.LayerNormalization, kl.GroupNormalization)
SEPARABLE = (kl.SeparableConv1D, kl.SeparableConv2D)
WEIGHTED = (*CONVOLUTIONS, *_NORMS, *SEPARABLE, kl.Dense, kl.PReLU, kl.MultiHeadAttention)
READERS: dict[type, Callable[[Any], Layer]] = {
    Conv2D: _ours,
    **dict.fromkeys((*each_rank("Conv"), *DEPTHWISE), _convolution),
    **dict.fromkeys((*GROUPED, *TRANSPOSED), _transposed),  # the first are subclasses of the others
    kl.BatchNormalization: _batch_norm,
    kl.LayerNormalization: _layer_norm,
    **dict.fromkeys(RMS_NORMS, _rms_norm),
    kl.GroupNormalization: _group_norm,
    kl.Normalization: _normalization,
    image_layers.ChannelAffine: _own_affine,
    **attention.READERS,
    **dict.fromkeys(each_rank("UpSampling"), _upsampling),
    image_layers.LinearUpSampling: lambda m: Upsample(m.size, "bilinear", align_corners=m.align_corners),
    image_layers.ChannelPool: lambda m: ChannelPool(m.function),
    image_layers.GlobalSum: lambda m: GlobalPool("sum", m.keepdims, rank=m.rank),
    image_layers.Subsample: lambda m: Subsample(m.start, m.step),
    image_layers.ChannelSlice: lambda m: ChannelSlice(m.start, m.stop),
    image_layers.Chunk: lambda m: Chunk(m.index, m.count),
    image_layers.ChannelShuffle: lambda m: ChannelShuffle(m.groups),
    image_layers.PixelShuffle: lambda m: PixelShuffle(m.factor, m.channels_last),
    **dict.fromkeys(each_rank("Cropping"), lambda m: Crop(_pads(m.cropping))),
    **dict.fromkeys(each_rank("MaxPooling"), _pool("max")),
    **dict.fromkeys(each_rank("AveragePooling"), _pool("average")),
    **dict.fromkeys(each_rank("GlobalMaxPooling"), lambda m: GlobalPool("max", m.keepdims, rank=_rank(m))),
    **dict.fromkeys(each_rank("GlobalAveragePooling"), lambda m: GlobalPool("average", m.keepdims, rank=_rank(m))),
    BorderPadding: lambda m: Pad(m.padding, m.mode, m.value),
    LowestPadding: lambda m: Pad(m.padding, LOWEST),
    **dict.fromkeys(each_rank("ZeroPadding"), lambda m: Pad(_pads(m.padding))),
    kl.Flatten: lambda m: Flatten("HWC"),  # its data_format makes no difference
    kl.Dense: _dense,
    **{kind: _spatial_dropout(rank) for rank, kind in enumerate(each_rank("SpatialDropout"), 1)},
    kl.Dropout: _dropout,
    kl.Reshape: _reshape,
    kl.Activation: _activation,
    kl.ReLU: _relu,
    image_layers.Elementwise: lambda m: Activation(m.function, m.parameter),
    image_layers.Clip: lambda m: clip(m.least, m.most),
    kl.Softmax: _softmax,
    kl.LeakyReLU: lambda m: leaky(m.negative_slope),
    kl.PReLU: _prelu,
    kl.ELU: lambda m: Activation("elu", float(m.alpha)),
    kl.Rescaling: _rescaling,
    kl.Add: lambda m: Add(),
    kl.Subtract: lambda m: Subtract(),
    kl.Multiply: lambda m: Multiply(),
    image_layers.Divide: lambda m: Divide(),
    kl.Maximum: lambda m: Maximum(),
    kl.Minimum: lambda m: Minimum(),
    kl.Concatenate: _concatenate,
    image_layers.BroadcastLike: lambda m: BroadcastLike(),
    Outputs: lambda m: OutputsLayer(m.names),
    **resizing.READERS,
    **pooling.READERS,
    **across_channels.READERS,
}
_LIKE = image_layers.BroadcastLike, resizing_layers.ResizeLike
JOINING = (
    kl.Add,
    kl.Subtract,
    kl.Multiply,
    kl.Maximum,
    kl.Minimum,
    image_layers.Divide,
    kl.Concatenate,
    ConcatenatePixels,
    *_LIKE,
    attention_layers.DotProductAttention,
    Outputs,
)


def read_layer(layer: kl.Layer) -> tuple[Layer | None, str]:
    """What a layer computes, without its activation, and its class; None and why not."""
    if getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None):
        return None, f"{type(layer).__name__}: its kernel isn't one array, but quantized or adapted (LoRA)"
    return known(layer, READERS, "call")


def children(layer: kl.Layer) -> list[kl.Layer]:
    """The layers right inside a layer."""
    return [child for child in private.layers_inside(layer) if not isinstance(child, kl.InputLayer)]


def layout(native: kl.Layer) -> str | None:
    """How a layer's images are laid out; None where it doesn't matter to it."""
    if isinstance(native, Conv2D):
        return str(native.spec.data_format)
    if isinstance(native, _NORMS):
        shape = (native.get_build_config() or {}).get("input_shape") or ()
        axis = native.axis if isinstance(native.axis, int) else native.axis[0]
        return None if len(shape) < 3 else "NHWC" if axis % len(shape) == len(shape) - 1 else "NCHW"
    if hasattr(native, "data_format"):
        return FORMATS[native.data_format]
    return next(filter(None, map(layout, children(native))), None)
