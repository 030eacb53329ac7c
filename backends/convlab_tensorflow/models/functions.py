"""Keras's operations as layers: what stands between the layers of a model, `keras.ops.relu(x + y)`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers as kl

from convlab.errors import UnsupportedError
from convlab.models.layers.activations import Activation, celu
from convlab.models.layers.activations import threshold as above

from ..attention_layers import ClassToken, PositionEmbedding
from ..channel_layers import GatedLinearUnit
from ..image_layers import ELEMENTWISE, ChannelAffine, ChannelPool, Clip, Divide, Elementwise, GlobalSum, PixelShuffle
from .activations import build_activation, gelu_tanh
from .readers import each_rank
from .slices import index_layers, split_layers
from .tokens import Patches


def _arithmetic(layer: type[kl.Layer] | None, rescaling: Callable[[float], kl.Layer]) -> Callable[..., list[kl.Layer]]:
    """A sum or a product: of two tensors by a layer, of a tensor and a number by a rescaling."""

    def natives(a: Any, b: Any) -> list[kl.Layer]:
        if _is_tensor(a) and _is_tensor(b) and layer is not None:
            return [layer()]
        number = a if layer is not None and _is_tensor(b) else b
        if _is_tensor(number):
            raise UnsupportedError("it takes neither two tensors nor a tensor and a number")
        numbers = np.ndim(number) or isinstance(number, keras.Variable)
        if layer is not None and numbers and np.size(number) == (1, *np.shape(number))[-1]:
            return [_of_channels(layer, number, len((a if _is_tensor(a) else b).shape))]
        if numbers and layer is kl.Add:
            return [_positions(a if _is_tensor(a) else b, number)]
        if np.ndim(number):
            raise UnsupportedError(f"it takes an array of shape {np.shape(number)}")
        return [rescaling(float(number))]

    return natives


def _quotient(a: Any, b: Any) -> list[kl.Layer]:
    if _is_tensor(a) and _is_tensor(b):
        return [Divide()]
    if _is_tensor(b) and not np.ndim(a):
        return [Elementwise("reciprocal"), *([] if a == 1 else [kl.Rescaling(float(a))])]
    return _arithmetic(None, lambda number: kl.Rescaling(1 / number))(a, b)


def _limit(layer: type[kl.Layer], name: str) -> Callable[..., list[kl.Layer]]:
    """The greater or the less of two tensors by a layer, of a tensor and a number by limits."""

    def natives(a: Any, b: Any) -> list[kl.Layer]:
        if _is_tensor(a) and _is_tensor(b):
            return [layer()]
        number = a if _is_tensor(b) else b
        if _is_tensor(number) or np.ndim(number):
            raise UnsupportedError("it takes no tensor and a number")
        return [Clip(**{name: float(number)})]

    return natives


def _clip(x: Any, x_min: Any, x_max: Any) -> list[kl.Layer]:
    if np.ndim(x_min) or np.ndim(x_max):
        raise UnsupportedError("its limits aren't numbers")
    return [Clip(*(None if limit is None else float(limit) for limit in (x_min, x_max)))]


def _difference(a: Any, b: Any) -> list[kl.Layer]:
    if _is_tensor(a) and _is_tensor(b):
        return [kl.Subtract()]
    if _is_tensor(b) and not np.ndim(a):
        return [kl.Rescaling(-1.0, float(a))]
    return _arithmetic(None, lambda number: kl.Rescaling(1.0, -number))(a, b)


def _of_channels(layer: type[kl.Layer], numbers: Any, axes: int) -> kl.Layer:
    """The sum or the product with a number for each channel, the last of so many axes, or with one for all."""
    channels = np.size(numbers)
    scales = layer is kl.Multiply
    affine = ChannelAffine(scales, not scales, channels == 1, trainable=getattr(numbers, "trainable", False))
    affine.build((*(None,) * (axes - 1), channels))
    affine.set_weights([np.reshape(keras.ops.convert_to_numpy(numbers), channels)])
    return affine


def _positions(x: Any, numbers: Any) -> kl.Layer:
    """The sum with a number for each channel of each pixel, or of each token."""
    shape, (*size, channels) = np.shape(numbers), x.shape[1:]
    if shape[-len(x.shape) + 1 :] != (*size, channels) or np.prod(shape) != math.prod(shape[-len(x.shape) + 1 :]):
        raise UnsupportedError(f"it takes an array of shape {shape}")
    rows, columns = size if len(size) == 2 else (*size, 1)
    return _filled(PositionEmbedding((rows, columns), dtype=x.dtype), (rows, columns, channels), numbers)


def _filled(layer: kl.Layer, shape: tuple[int, ...], numbers: Any) -> kl.Layer:
    """A layer of images with one array."""
    layer.build((None, None, None, shape[-1]))
    layer.set_weights([np.reshape(keras.ops.convert_to_numpy(numbers), shape)])
    return layer


def _concatenate(values: Any, axis: int = -1) -> list[kl.Layer]:
    if len(values) == 2 and not _is_tensor(values[0]) and _is_tensor(values[1]):
        return [_class_token(values[0], values[1], axis)]
    return [kl.Concatenate(-1 if axis == len(values[0].shape) - 1 else axis)]


def _class_token(first: Any, tokens: Any, axis: int) -> kl.Layer:
    """What puts the same token before those of each image."""
    count, *_, channels = tokens.shape
    numbers = np.asarray(keras.ops.convert_to_numpy(first))
    if len(tokens.shape) != 3 or axis not in (1, -2) or numbers.shape != (count, 1, channels):
        raise UnsupportedError(f"it joins an array of shape {numbers.shape} and tokens of shape {tokens.shape}")
    if (numbers != numbers[:1]).any():
        raise UnsupportedError("it joins another token for each image")
    return _filled(ClassToken(dtype=tokens.dtype), (channels,), numbers[0])


def _over_pixels(name: str) -> Callable[..., list[kl.Layer]]:
    def natives(x: Any, axis: Any = None, keepdims: bool = False) -> list[kl.Layer]:
        axes, count = [axis] if isinstance(axis, int) else axis or [], len(x.shape)
        if [each % count for each in axes] == [count - 1] and keepdims and count > 1:
            return [ChannelPool({"GlobalMaxPooling": "max", "GlobalSum": "sum"}.get(name, "average"))]
        if count < 3 or sorted(each % count for each in axes) != [*range(1, count - 1)]:
            raise UnsupportedError(f"it reduces the axes {axis}, expected (1, 2), rows and columns")
        return [
            GlobalSum(keepdims, count - 2) if name == "GlobalSum" else each_rank(name)[count - 3](keepdims=keepdims)
        ]

    return natives


def _function(name: Any) -> Callable[..., list[kl.Layer]]:
    def natives(x: Any) -> list[kl.Layer]:
        return [kl.Activation(name, autocast=False)]

    return natives


def _of_numbers(layer: Any) -> list[kl.Layer]:
    """What computes an activation, or limits."""
    return build_activation(layer, "") if isinstance(layer, Activation) else [Clip(*layer.finite_limits)]


def _gelu(x: Any, approximate: bool = True) -> list[kl.Layer]:
    return [kl.Activation(gelu_tanh if approximate else "gelu", autocast=False)]


def _glu(x: Any, axis: int = -1) -> list[kl.Layer]:
    if axis not in (-1, len(x.shape) - 1):
        raise UnsupportedError(f"its axis is {axis}, expected -1, the channels")
    return [GatedLinearUnit()]


def _patches(
    images: Any, size: Any, strides: Any = None, dilation_rate: Any = 1, padding: str = "valid", data_format: Any = None
) -> list[kl.Layer]:
    sizes = (size, size) if isinstance(size, int) else tuple(size)
    apart = strides in (None, size, sizes, [*sizes]) and dilation_rate in (1, (1, 1))
    if not apart or padding != "valid" or data_format not in (None, "channels_last") or len(sizes) != 2:
        raise UnsupportedError("its patches overlap, or have gaps or a border")
    return [Patches(sizes, autocast=False)]


def _softmax(name: str) -> Callable[..., list[kl.Layer]]:
    def natives(x: Any, axis: Any = -1) -> list[kl.Layer]:
        if axis not in (-1, len(x.shape) - 1):
            raise UnsupportedError(f"its axis is {axis}, expected -1, the channels")
        return [kl.Activation(name, autocast=False)]

    return natives


def _depth_to_space(x: Any, block_size: int, data_format: str = "channels_last") -> list[kl.Layer]:
    if data_format != "channels_last":
        raise UnsupportedError(f"its data_format is {data_format!r}, expected 'channels_last'")
    return [PixelShuffle(block_size, channels_last=True)]


def _resize(images: Any, size: Any, **options: Any) -> list[kl.Layer]:
    return [kl.Resizing(*size, **options)]


def _reshape(x: Any, newshape: Any) -> list[kl.Layer]:
    """Images as rows of all their numbers, or rows as images."""
    first, *sizes = newshape if isinstance(newshape, (tuple, list)) else (newshape,)
    whole = None in x.shape[1:] or math.prod(x.shape[1:]) == abs(math.prod(sizes)) or sizes == [-1]
    images, rows = len(x.shape) == 4 and len(sizes) == 1, len(x.shape) == 2 and len(sizes) in (1, 3)
    if first not in (-1, None, x.shape[0]) or not (images or rows) or not whole:
        raise UnsupportedError(f"it gives the shape {newshape}, expected (-1, numbers), or (-1, H, W, C) of rows")
    return [kl.Reshape(tuple(sizes))]


def _power(x: Any, exponent: Any) -> list[kl.Layer]:
    """A power, of which `factors` tells how many there are; a root."""
    if exponent == 0.5:
        return [Elementwise("sqrt")]
    if exponent == -1:
        return [Elementwise("reciprocal")]
    if not np.isscalar(exponent) or exponent not in range(2, 9):
        raise UnsupportedError(f"its exponent is {exponent}, expected an integer from 2 to 8, 0.5 or -1")
    return [kl.Multiply()]


def factors(operation: Any, args: Any) -> int:
    """How often what an operation gives takes its tensor: a square twice."""
    if type(operation).__name__ == "Square":
        return 2
    of_power = type(operation).__name__ == "Power" and not _is_tensor(args[1]) and args[1] in range(2, 9)
    return int(args[1]) if of_power else 1


def _border(x: Any, mode: str = "constant", constant_values: Any = None, pad_width: Any = ()) -> list[kl.Layer]:
    widths = [tuple(map(int, ends)) for ends in pad_width]
    known = 3 <= len(widths) <= 5 and not any((*widths[0], *widths[-1])) and mode == "constant"
    if not known or constant_values not in (None, 0):
        raise UnsupportedError(f"it pads by {widths} in the mode {mode!r}, expected zeros round images (N, H, W, C)")
    pads: Any = widths[1] if len(widths) == 3 else tuple(widths[1:-1])
    return [each_rank("ZeroPadding")[len(widths) - 3](pads)]


def parts_of_split(operation: Any, args: Any, kwargs: Any) -> list[kl.Layer] | None:
    """A layer for each of the tensors that a split gives; None for another operation."""
    if type(operation).__name__ != "Split":
        return None
    return split_layers(args[0], operation.indices_or_sections, operation.axis)


# By the name of the operation's class, which has no public one.
_NATIVES: dict[str, Callable[..., list[kl.Layer]]] = {
    "Add": _arithmetic(kl.Add, lambda number: kl.Rescaling(1.0, number)),
    "Subtract": _difference,
    "Multiply": _arithmetic(kl.Multiply, kl.Rescaling),
    "Divide": _quotient,
    "TrueDivide": _quotient,
    "Maximum": _limit(kl.Maximum, "least"),
    "Minimum": _limit(kl.Minimum, "most"),
    "Clip": _clip,
    **{name.title(): lambda x, name=name: [Elementwise(name)] for name in ELEMENTWISE},
    "Absolute": lambda x: [Elementwise("abs")],
    "Rsqrt": lambda x: [Elementwise("sqrt"), Elementwise("reciprocal")],
    "Concatenate": _concatenate,
    "GetItem": index_layers,
    "Negative": lambda x: [kl.Rescaling(-1.0)],
    "Power": _power,
    "Square": lambda x: [kl.Multiply()],
    "Pad": _border,
    "Mean": _over_pixels("GlobalAveragePooling"),
    "Max": _over_pixels("GlobalMaxPooling"),
    "Sum": _over_pixels("GlobalSum"),
    "DepthToSpace": _depth_to_space,
    "Resize": _resize,
    "Reshape": _reshape,
    "ExtractPatches": _patches,
    "Relu": _function("relu"),
    "Relu6": _function("relu6"),
    "ReLU": lambda x, **options: [kl.ReLU(**options)],  # of keras.activations
    "LeakyRelu": lambda x, negative_slope=0.2: [kl.LeakyReLU(negative_slope)],
    "Elu": lambda x, alpha=1.0: [kl.ELU(alpha)],
    "Selu": _function("selu"),
    "Celu": lambda x, alpha=1.0: _of_numbers(celu(float(alpha))),
    "Glu": _glu,
    "Softsign": _function("softsign"),
    "LogSigmoid": _function("log_sigmoid"),
    "TanhShrink": _function("tanh_shrink"),
    "SoftShrink": lambda x, threshold=0.5: _of_numbers(Activation("soft_shrink", float(threshold))),
    "HardShrink": lambda x, threshold=0.5: _of_numbers(Activation("hard_shrink", float(threshold))),
    "HardTanh": lambda x: [Clip(-1.0, 1.0)],
    "Threshold": lambda x, threshold, default_value: _of_numbers(above(float(threshold), float(default_value))),
    "Squareplus": lambda x, b=4: _of_numbers(Activation("squareplus", float(b))),
    "SparsePlus": _function("sparse_plus"),
    "SparseSigmoid": _function("sparse_sigmoid"),
    "Gelu": _gelu,
    "Softmax": _softmax("softmax"),
    "LogSoftmax": _softmax("log_softmax"),
    "Sigmoid": _function("sigmoid"),
    "Tanh": _function("tanh"),
    "Silu": _function("silu"),
    "Softplus": _function("softplus"),
    "HardSigmoid": _function("hard_sigmoid"),
    "HardSilu": _function("hard_silu"),
}
# What operations keep as attributes.
_OPTIONS = {
    *("axis", "keepdims", "negative_slope", "max_value", "threshold", "alpha", "approximate"),
    *("b", "default_value"),
    *("newshape", "block_size", "data_format", "x_min", "x_max"),
    *("size", "interpolation", "antialias", "crop_to_aspect_ratio", "pad_to_aspect_ratio", "fill_mode", "fill_value"),
    *("strides", "dilation_rate", "padding", "pad_width", "mode"),
}


def _is_tensor(value: Any) -> bool:
    return isinstance(value, keras.KerasTensor)


def native_of(operation: Any, args: Any, kwargs: Any) -> list[kl.Layer]:
    """Layers that compute an operation with these arguments, one after another.

    Raises:
        UnsupportedError: none is known.
    """
    own = {name: value for name, value in vars(operation).items() if name in _OPTIONS}
    constructor = _NATIVES.get(type(operation).__name__)
    if constructor is None:
        raise UnsupportedError("convlab doesn't know it")
    try:
        return constructor(*args, **{**own, **{key: value for key, value in kwargs.items() if value is not None}})
    except TypeError as error:
        raise UnsupportedError(f"its arguments are unknown ({error})") from error
