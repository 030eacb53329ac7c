"""Normalisation by the statistics of each image, and a scale and a shift for each channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from ...dtypes import SIGNIFICAND
from ...truth.bounds import sum_bound
from .layer import OfAnyRank
from .slopes import ROUNDINGS, Slopes, affine_slopes, column, summed_by_channel


def _mean(x: np.ndarray, axis: int) -> np.ndarray:
    return np.asarray(x.mean(axis, keepdims=True))


def _normalised(x: np.ndarray, axis: int, epsilon: float, centres: bool) -> np.ndarray:
    centred = x - _mean(x, axis) if centres else x
    return np.asarray(centred / np.sqrt(_mean(centred**2, axis) + epsilon))


class _Normal(NamedTuple):
    """A normalised array, and how far a computation in a dtype may be from it and from what it takes on the way.

    Attributes:
        axis: along which it is normalised.
        centres: whether the mean is subtracted; otherwise 0 counts for it.
        y, error: what `_normalised` gives, and how far it may be off.
        centred, centred_error: x less its mean, and how far it may be off.
        size: the magnitudes of x and of its mean together.
        factor, least, largest: 1 / sqrt(variance + epsilon), and the least and the largest that it may be.
        vanishes: where the variance may come out as 0.
    """

    axis: int
    centres: bool
    y: np.ndarray
    error: np.ndarray
    centred: np.ndarray
    centred_error: np.ndarray
    size: np.ndarray
    factor: np.ndarray
    least: np.ndarray
    largest: np.ndarray
    vanishes: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, off: np.ndarray, axis: int, epsilon: float, dtype: str, centres: bool) -> _Normal:
        """That of x, which is off by up to `off`.

        The variance may be computed as the mean of squares less the square of the mean: the roundings of three sums
        (the mean counts twice), which are as large as the squares. A computation in half precision has its statistics
        in float32, so that its bound holds, too.
        """
        unit = 2.0 ** -SIGNIFICAND[dtype]
        magnitude, mean = np.abs(x) + off, _mean(x, axis) * centres
        centred = x - mean
        rounding = (x.shape[axis] + 4) * unit
        mean_error = (_mean(off, axis) + rounding * _mean(magnitude, axis)) * centres
        centred_error = off + mean_error + 2 * unit * magnitude
        variance = _mean(centred**2, axis)
        with np.errstate(over="ignore"):  # what a whole model may be off by is at worst infinite
            variance_error = _mean(2 * np.abs(centred) * centred_error + centred_error**2, axis)
            variance_error += rounding * (3 + 3 * rounding + rounding**2) * _mean(magnitude**2, axis)
        factor = 1 / np.sqrt(variance + epsilon)
        least = 1 / np.sqrt(variance + variance_error + epsilon * (1 + unit))
        largest = 1 / np.sqrt(np.maximum(variance - variance_error, 0) + epsilon * (1 - unit))
        y = centred * factor
        error = np.abs(centred) * np.maximum(largest - factor, factor - least) + centred_error * largest
        error += 4 * unit * (np.abs(y) + error)
        size = magnitude + np.abs(mean) + mean_error
        vanishes = variance <= variance_error
        return cls(axis, centres, y, error, centred, centred_error, size, factor, least, largest, vanishes)

    def gradient(self, g: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray]:
        """The gradient of sum(g * y) by x, and how far a computation in a dtype may be from it.

        It is factor * (g - mean(g)) - bend * (x - mean(x)) with bend = factor**3 * mean(g * (x - mean(x))): section 3
        of arXiv:1502.03167, put together. Some frameworks compute that. Others differentiate one step after another:
        the bend, which is the gradient by the variance, is then multiplied by x and by the mean apart, or by a centred
        x whose own mean isn't quite 0; the gradient by the mean is one more sum of the terms. A variance that comes out
        as 0 may have no gradient. What holds for all of them is as large as the terms that they add up.
        """
        unit, axis = 2.0 ** -SIGNIFICAND[dtype], self.axis
        rounding = (g.shape[axis] + ROUNDINGS) * unit
        factor, largest, size = self.factor, self.largest, np.abs(g)
        slack = np.maximum(largest - factor, factor - self.least)
        along = _mean(g * self.centred, axis)
        along_error = _mean(size * (self.centred_error + rounding * self.size), axis)
        bend, cubed = factor**3 * along, np.maximum(largest**3 - factor**3, factor**3 - self.least**3)
        bend_error = largest**3 * along_error + cubed * np.abs(along) + self.vanishes * np.abs(bend)
        bend_error += 2 * ROUNDINGS * unit * largest**3 * (np.abs(along) + along_error)
        steepest = np.abs(bend) + bend_error
        mean = _mean(g, axis) * self.centres
        error = slack * (size + np.abs(mean)) + np.abs(self.centred) * bend_error
        error += steepest * (self.centred_error + _mean(self.centred_error, axis))
        error += rounding * (largest * _mean(size, axis) + steepest * _mean(self.size, axis))
        error += 2 * ROUNDINGS * unit * (largest * (size + _mean(size, axis)) + steepest * self.size)
        return factor * (g - mean) - bend * self.centred, error


class _ImageNorm(OfAnyRank):
    """(x - mean) / sqrt(variance + epsilon) * scale + shift, with statistics of numbers that `_grouped` puts together.

    Attributes:
        axis: along which these numbers stand, once they are together.
        centres: whether the mean is subtracted.
    """

    arrays: ClassVar[tuple[str, ...]] = ("scale", "shift")
    axis: ClassVar[int]
    centres: ClassVar[bool] = True

    scale: np.ndarray
    shift: np.ndarray
    epsilon: float

    def _grouped(self, x: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _normal(self, x: np.ndarray, off: np.ndarray, dtype: str) -> _Normal:
        return _Normal.of(self._grouped(x), self._grouped(off), self.axis, self.epsilon, dtype, self.centres)

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        y = _normalised(self._grouped(x), self.axis, self.epsilon, self.centres)
        return np.asarray(y.reshape(x.shape) * column(self.scale, x) + column(self.shift, x))

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`."""
        normal = self._normal(x, off, dtype)
        y, error = normal.y.reshape(x.shape), normal.error.reshape(x.shape)
        scale, shift = np.abs(column(self.scale, x)), np.abs(column(self.shift, x))
        size = scale * (np.abs(y) + error)
        return np.asarray(scale * error + 4 * 2.0 ** -SIGNIFICAND[dtype] * (size + shift))

    def gradients(self, x: np.ndarray, dy: np.ndarray, dtype: str) -> tuple[Slopes, Slopes]:
        """See `Layer.gradients`; by scale, what y may be off is added to the roundings of the sum."""
        normal = self._normal(x, np.zeros(x.shape), dtype)
        both = normal.gradient(self._grouped(dy * column(self.scale, x)), dtype)
        by_image, image_bound = (each.reshape(x.shape) for each in both)
        y, error, size = (each.reshape(x.shape) for each in (normal.y, normal.error, normal.largest * normal.size))
        by_scale, rounding = summed_by_channel(dy * y, np.abs(dy) * size, dtype, ROUNDINGS, dy, size)
        scale_bound = rounding + (np.abs(dy) * error).sum((0, *range(2, x.ndim)))
        by_shift, shift_bound = summed_by_channel(dy, np.abs(dy), dtype, 1)
        underflow = sum_bound(np.zeros(1), ROUNDINGS, dtype, np.abs(dy), np.abs(self.scale), normal.largest)
        true = {"X": by_image, "scale": by_scale, "shift": by_shift}
        bounds = {"X": image_bound + underflow, "scale": scale_bound, "shift": shift_bound}
        named = ("X", *self.arrays)
        return {name: true[name] for name in named}, {name: bounds[name] for name in named}


@dataclass(frozen=True, eq=False)
class GroupNorm(_ImageNorm):
    """(x - mean) / sqrt(variance + epsilon) * scale + shift, with statistics of each group of an image's channels.

    Source: arXiv:1803.08494. As many groups as channels are instance normalisation, arXiv:1607.08022.

    Attributes:
        scale, shift: one number for each channel.
        groups: how many groups there are; channels that follow one another form a group.
        epsilon: what is added to the variance.
        dtype: the arrays' dtype.
    """

    kind = "group_norm"
    axis = 2

    scale: np.ndarray
    shift: np.ndarray
    groups: int
    epsilon: float
    dtype: str = "float32"

    def _grouped(self, x: np.ndarray) -> np.ndarray:
        return x.reshape(len(x), self.groups, -1)


@dataclass(frozen=True, eq=False)
class LayerNorm(_ImageNorm):
    """(x - mean) / sqrt(variance + epsilon) * scale + shift, with statistics of the channels of each pixel.

    Source: arXiv:1607.06450.

    Attributes:
        scale, shift: one number for each channel.
        epsilon: what is added to the variance.
        dtype: the arrays' dtype.
    """

    kind = "layer_norm"
    axis = 1

    scale: np.ndarray
    shift: np.ndarray
    epsilon: float
    dtype: str = "float32"

    def _grouped(self, x: np.ndarray) -> np.ndarray:
        return x


@dataclass(frozen=True, eq=False)
class RMSNorm(_ImageNorm):
    """x / sqrt(mean(x ** 2) + epsilon) * scale, with the mean of the channels of each pixel.

    Source: arXiv:1910.07467.

    Attributes:
        scale: one number for each channel.
        epsilon: what is added to the mean.
        dtype: the array's dtype.
    """

    kind = "rms_norm"
    arrays = ("scale",)
    axis = 1
    centres = False

    scale: np.ndarray
    epsilon: float
    dtype: str = "float32"

    @property
    def shift(self) -> np.ndarray:  # type: ignore[override]
        """Nothing is added."""
        return np.zeros(1)

    def _grouped(self, x: np.ndarray) -> np.ndarray:
        return x


@dataclass(frozen=True, eq=False)
class ChannelAffine(OfAnyRank):
    """x * scale + shift, with one number of each for each channel, or for all.

    Attributes:
        scale, shift: one number for each channel, or for all in an array of one element; None for 1 and for 0.
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

    @property
    def count(self) -> int:
        """How many numbers of each there are."""
        return next(len(array) for array in (self.scale, self.shift) if array is not None)

    @property
    def input_channels(self) -> int:
        """See `Layer.input_channels`."""
        return self.count if self.count > 1 else 0

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

    def gradients(self, x: np.ndarray, dy: np.ndarray, dtype: str) -> tuple[Slopes, Slopes]:
        """See `Layer.gradients`."""
        numbers = {"scale": self.scale, "shift": self.shift}
        named = {"X", *(name for name, array in numbers.items() if self.trained and array is not None)}
        # One number for all counts as that of a single channel.
        image, slope = (each if self.count > 1 else each.reshape(-1, 1) for each in (x, dy))
        both = affine_slopes(image, slope, dtype, self._columns(image)[0], np.zeros(1), np.ones(1))
        true, bounds = ({name: each[name] for name in sorted(named)} for each in both)
        return {**true, "X": true["X"].reshape(x.shape)}, {**bounds, "X": bounds["X"].reshape(x.shape)}
