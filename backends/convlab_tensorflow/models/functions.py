"""Keras's operations as layers: what stands between the layers of a model, `keras.ops.relu(x + y)`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers as kl

from convlab.errors import UnsupportedError

from ..image_layers import ChannelAffine, PixelShuffle
from .readers import gelu_tanh


def _arithmetic(layer: type[kl.Layer] | None, rescaling: Callable[[float], kl.Layer]) -> Callable[..., list[kl.Layer]]:
    """A sum or a product: of two tensors by a layer, of a tensor and a number by a rescaling."""

    def natives(a: Any, b: Any) -> list[kl.Layer]:
        if _is_tensor(a) and _is_tensor(b) and layer is not None:
            return [layer()]
        number = a if layer is not None and _is_tensor(b) else b
        if _is_tensor(number):
            raise UnsupportedError("it takes neither two tensors nor a tensor and a number")
        if layer is not None and np.ndim(number) and np.size(number) == np.shape(number)[-1]:
            return [_of_channels(layer, number)]
        if np.ndim(number):
            raise UnsupportedError(f"it takes an array of shape {np.shape(number)}")
        return [rescaling(float(number))]

    return natives


def _difference(a: Any, b: Any) -> list[kl.Layer]:
    if _is_tensor(a) and _is_tensor(b):
        return [kl.Subtract()]
    if _is_tensor(b) and not np.ndim(a):
        return [kl.Rescaling(-1.0, float(a))]
    return _arithmetic(None, lambda number: kl.Rescaling(1.0, -number))(a, b)


def _of_channels(layer: type[kl.Layer], numbers: Any) -> kl.Layer:
    """The sum or the product with a number for each channel, of NHWC."""
    channels = np.size(numbers)
    scales = layer is kl.Multiply
    affine = ChannelAffine(scales, not scales, trainable=getattr(numbers, "trainable", False))
    affine.build((None, None, None, channels))
    affine.set_weights([np.reshape(keras.ops.convert_to_numpy(numbers), channels)])
    return affine


def _concatenate(values: Any, axis: int = -1) -> list[kl.Layer]:
    return [kl.Concatenate(axis)]


def _over_pixels(layer: type[kl.Layer]) -> Callable[..., list[kl.Layer]]:
    def natives(x: Any, axis: Any = None, keepdims: bool = False) -> list[kl.Layer]:
        if not isinstance(axis, (tuple, list)) or sorted(each % 4 for each in axis) != [1, 2]:
            raise UnsupportedError(f"it reduces the axes {axis}, expected (1, 2), rows and columns")
        return [layer(keepdims=keepdims)]

    return natives


def _function(name: Any) -> Callable[..., list[kl.Layer]]:
    def natives(x: Any) -> list[kl.Layer]:
        return [kl.Activation(name, autocast=False)]

    return natives


def _gelu(x: Any, approximate: bool = True) -> list[kl.Layer]:
    return [kl.Activation(gelu_tanh if approximate else "gelu", autocast=False)]


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


def _reshape(x: Any, newshape: Any) -> list[kl.Layer]:
    """Images as rows of all their numbers, or rows as images."""
    first, *sizes = newshape if isinstance(newshape, (tuple, list)) else (newshape,)
    whole = None in x.shape[1:] or math.prod(x.shape[1:]) == abs(math.prod(sizes)) or sizes == [-1]
    images, rows = len(x.shape) == 4 and len(sizes) == 1, len(x.shape) == 2 and len(sizes) in (1, 3)
    if first not in (-1, None) or not (images or rows) or not whole:
        raise UnsupportedError(f"it gives the shape {newshape}, expected (-1, numbers), or (-1, H, W, C) of rows")
    return [kl.Reshape(tuple(sizes))]


# By the name of the operation's class, which has no public one.
_NATIVES: dict[str, Callable[..., list[kl.Layer]]] = {
    "Add": _arithmetic(kl.Add, lambda number: kl.Rescaling(1.0, number)),
    "Subtract": _difference,
    "Multiply": _arithmetic(kl.Multiply, kl.Rescaling),
    "Divide": _arithmetic(None, lambda number: kl.Rescaling(1 / number)),
    "TrueDivide": _arithmetic(None, lambda number: kl.Rescaling(1 / number)),
    "Concatenate": _concatenate,
    "Mean": _over_pixels(kl.GlobalAveragePooling2D),
    "Max": _over_pixels(kl.GlobalMaxPooling2D),
    "DepthToSpace": _depth_to_space,
    "Reshape": _reshape,
    "Relu": _function("relu"),
    "Relu6": _function("relu6"),
    "ReLU": lambda x, **options: [kl.ReLU(**options)],  # of keras.activations
    "LeakyRelu": lambda x, negative_slope=0.2: [kl.LeakyReLU(negative_slope)],
    "Elu": lambda x, alpha=1.0: [kl.ELU(alpha)],
    "Selu": _function("selu"),
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
    *("newshape", "block_size", "data_format"),
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
