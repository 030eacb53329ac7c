"""Normalisation by the statistics of each image, and a scale and a shift for each channel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...dtypes import SIGNIFICAND
from .layer import Layer


@dataclass(frozen=True, eq=False)
class GroupNorm(Layer):
    """(x - mean) / sqrt(variance + epsilon) * scale + shift, with statistics of each group of an image's channels.

    Source: arXiv:1803.08494. As many groups as channels are instance normalisation, arXiv:1607.08022.

    Attributes:
        scale, shift: one number for each channel.
        groups: how many groups there are; channels that follow one another form a group.
        epsilon: what is added to the variance.
        dtype: the arrays' dtype.
    """

    kind = "group_norm"
    arrays = ("scale", "shift")

    scale: np.ndarray
    shift: np.ndarray
    groups: int
    epsilon: float
    dtype: str = "float32"

    def _grouped(self, x: np.ndarray) -> np.ndarray:
        return x.reshape(len(x), self.groups, -1)

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        y = _normalised(self._grouped(x), 2, self.epsilon)
        return np.asarray(y.reshape(x.shape) * column(self.scale, x) + column(self.shift, x))

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`."""
        y, error = _error(self._grouped(x), self._grouped(off), 2, self.epsilon, dtype)
        return _scaled_error(self, y.reshape(x.shape), error.reshape(x.shape), dtype)


@dataclass(frozen=True, eq=False)
class LayerNorm(Layer):
    """(x - mean) / sqrt(variance + epsilon) * scale + shift, with statistics of the channels of each pixel.

    Source: arXiv:1607.06450.

    Attributes:
        scale, shift: one number for each channel.
        epsilon: what is added to the variance.
        dtype: the arrays' dtype.
    """

    kind = "layer_norm"
    arrays = ("scale", "shift")

    scale: np.ndarray
    shift: np.ndarray
    epsilon: float
    dtype: str = "float32"

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        return np.asarray(_normalised(x, 1, self.epsilon) * column(self.scale, x) + column(self.shift, x))

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`."""
        return _scaled_error(self, *_error(x, off, 1, self.epsilon, dtype), dtype)


@dataclass(frozen=True, eq=False)
class ChannelAffine(Layer):
    """x * scale + shift, with one number of each for each channel.

    Attributes:
        scale, shift: one number for each channel; None for 1 and for 0.
        trained: whether training changes them, as it does a layer scale (arXiv:2103.17239), or they are constants, such
            as the mean of a data set.
        dtype: the arrays' dtype.
    """

    kind = "channel_affine"
    arrays = ("scale", "shift")

    scale: np.ndarray | None = None
    shift: np.ndarray | None = None
    trained: bool = False
    dtype: str = "float32"

    def __post_init__(self) -> None:
        assert self.scale is not None or self.shift is not None

    def _columns(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        one, zero = np.ones(1), np.zeros(1)
        return column(one if self.scale is None else self.scale, x), column(
            zero if self.shift is None else self.shift, x
        )

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        scale, shift = self._columns(x)
        return np.asarray(x * scale + shift)

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`: at most eight roundings, in whatever order it is written, as a division or a product."""
        scale, shift = map(np.abs, self._columns(x))
        return np.asarray(scale * off + 8 * 2.0 ** -SIGNIFICAND[dtype] * (scale * (np.abs(x) + off) + shift))


def column(numbers: np.ndarray, x: np.ndarray) -> np.ndarray:
    """One number for each channel, in float64, so that it goes with images or rows of numbers."""
    return np.asarray(numbers, np.float64).reshape(-1, *(1,) * (x.ndim - 2))


def _normalised(x: np.ndarray, axis: int, epsilon: float) -> np.ndarray:
    centred = x - x.mean(axis, keepdims=True)
    return np.asarray(centred / np.sqrt((centred**2).mean(axis, keepdims=True) + epsilon))


def _error(x: np.ndarray, off: np.ndarray, axis: int, epsilon: float, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """What `_normalised` gives, and how far a computation in `dtype` may be from that.

    The variance may be computed as the mean of squares less the square of the mean, whose roundings are as large as the
    squares. A computation in half precision has its statistics in float32, so that its bound holds, too.
    """
    unit = 2.0 ** -SIGNIFICAND[dtype]
    magnitude = np.abs(x) + off
    centred = x - x.mean(axis, keepdims=True)
    rounding = (x.shape[axis] + 4) * unit
    mean_error = off.mean(axis, keepdims=True) + rounding * magnitude.mean(axis, keepdims=True)
    centred_error = off + mean_error + 2 * unit * magnitude
    variance = (centred**2).mean(axis, keepdims=True)
    change = 2 * np.abs(centred) * centred_error + centred_error**2
    variance_error = change.mean(axis, keepdims=True) + 2 * rounding * (magnitude**2).mean(axis, keepdims=True)
    factor = 1 / np.sqrt(variance + epsilon)
    largest = 1 / np.sqrt(np.maximum(variance - variance_error, 0) + epsilon * (1 - unit))
    y = centred * factor
    error = np.abs(centred) * (largest - factor) + centred_error * largest
    return y, error + 4 * unit * (np.abs(y) + error)


def _scaled_error(layer: GroupNorm | LayerNorm, y: np.ndarray, error: np.ndarray, dtype: str) -> np.ndarray:
    scale, shift = np.abs(column(layer.scale, y)), np.abs(column(layer.shift, y))
    size = scale * (np.abs(y) + error)
    return np.asarray(scale * error + 4 * 2.0 ** -SIGNIFICAND[dtype] * (size + shift))
