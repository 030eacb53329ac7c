"""Layers that take several values: their sum, difference, product or quotient, or their channels one after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import ClassVar

import numpy as np

from ...dtypes import SIGNIFICAND
from ...errors import ShapeError
from .activations import least_normal
from .layer import Layer, OfAnyRank
from .spatial import Size, times


class Joining(Layer):
    """A layer of several values. Images of one pixel count for images of any size, as a scale for each channel does.

    Attributes:
        takes: how many values; 0 for any number.
    """

    takes: ClassVar[int] = 0

    def reference(self, *values: np.ndarray) -> np.ndarray:
        """The result for these values, in float64."""
        raise NotImplementedError

    def error(self, values: Sequence[np.ndarray], off: Sequence[np.ndarray], dtype: str) -> np.ndarray:  # type: ignore[override]
        """How far from `reference(*values)` the result in `dtype` may be, if its inputs are off by up to `off`."""
        raise NotImplementedError

    def joined_size(self, sizes: Sequence[Size]) -> Size:
        """The rows and columns of the result for images of these sizes.

        Raises:
            ShapeError: they don't go together.
        """
        return self._one_size([size for size in sizes if max(size) > 1] or sizes[:1])

    def _one_size(self, sizes: Sequence[Size]) -> Size:
        first, *others = dict.fromkeys(sizes)
        if others:
            raise ShapeError(
                f"{self.kind}: got images of {' and '.join(map(times, (first, *others)))} pixels, expected one size.",
                hint="another size of the model's image may go through.",
            )
        return first


@dataclass(frozen=True, eq=False)
class Add(Joining):
    """The sum of its inputs, added in order."""

    kind = "add"

    def reference(self, *values: np.ndarray) -> np.ndarray:
        """See `Joining.reference`."""
        return np.asarray(reduce(np.add, values), np.float64)

    def error(self, values: Sequence[np.ndarray], off: Sequence[np.ndarray], dtype: str) -> np.ndarray:  # type: ignore[override]
        """See `Joining.error`: each of the additions is rounded."""
        carried = self.reference(*off)
        magnitude = self.reference(*map(np.abs, values)) + carried
        return np.asarray(carried + len(values) * 2.0 ** -SIGNIFICAND[dtype] * magnitude)


@dataclass(frozen=True, eq=False)
class Subtract(Joining):
    """The first of two inputs less the second."""

    kind = "subtract"
    takes = 2

    def reference(self, *values: np.ndarray) -> np.ndarray:
        """See `Joining.reference`."""
        return np.asarray(reduce(np.subtract, values), np.float64)

    def error(self, values: Sequence[np.ndarray], off: Sequence[np.ndarray], dtype: str) -> np.ndarray:  # type: ignore[override]
        """See `Joining.error`: that of a sum."""
        return Add().error(values, off, dtype)


@dataclass(frozen=True, eq=False)
class Multiply(Joining):
    """The product of its inputs, element by element."""

    kind = "multiply"

    def reference(self, *values: np.ndarray) -> np.ndarray:
        """See `Joining.reference`."""
        return np.asarray(reduce(np.multiply, values), np.float64)

    def error(self, values: Sequence[np.ndarray], off: Sequence[np.ndarray], dtype: str) -> np.ndarray:  # type: ignore[override]
        """See `Joining.error`: the factors may all be as large as they can be, and each product is rounded."""
        magnitudes = [np.abs(value) for value in values]
        largest = self.reference(*(value + error for value, error in zip(magnitudes, off, strict=True)))
        rounding = len(values) * 2.0 ** -SIGNIFICAND[dtype] * largest
        return np.asarray(largest - self.reference(*magnitudes) + rounding + least_normal(dtype))


@dataclass(frozen=True, eq=False)
class Divide(Joining):
    """The first of two inputs by the second, element by element."""

    kind = "divide"
    takes = 2

    def reference(self, *values: np.ndarray) -> np.ndarray:
        """See `Joining.reference`."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(reduce(np.divide, values), np.float64)

    def error(self, values: Sequence[np.ndarray], off: Sequence[np.ndarray], dtype: str) -> np.ndarray:  # type: ignore[override]
        """See `Joining.error`: where the divisor may be 0, the quotient may be anything."""
        quotient = np.abs(self.reference(*values))
        least = np.abs(values[1]) - off[1]
        with np.errstate(divide="ignore", invalid="ignore"):
            carried = (off[0] + quotient * off[1]) / least
        rounding = 4 * 2.0 ** -SIGNIFICAND[dtype] * (quotient + carried)
        return np.where(least > 0, carried + rounding + least_normal(dtype), np.inf)


@dataclass(frozen=True, eq=False)
class Maximum(Joining):
    """The greatest of its inputs, element by element: the maxout of two branches, arXiv:1302.4389."""

    kind = "maximum"

    def reference(self, *values: np.ndarray) -> np.ndarray:
        """See `Joining.reference`."""
        return np.asarray(reduce(np.maximum, values), np.float64)

    def error(self, values: Sequence[np.ndarray], off: Sequence[np.ndarray], dtype: str) -> np.ndarray:  # type: ignore[override]
        """See `Joining.error`: no further off than the input that is furthest off."""
        return Maximum().reference(*np.broadcast_arrays(*off))


@dataclass(frozen=True, eq=False)
class Minimum(Joining):
    """The least of its inputs, element by element."""

    kind = "minimum"

    def reference(self, *values: np.ndarray) -> np.ndarray:
        """See `Joining.reference`."""
        return np.asarray(reduce(np.minimum, values), np.float64)

    def error(self, values: Sequence[np.ndarray], off: Sequence[np.ndarray], dtype: str) -> np.ndarray:  # type: ignore[override]
        """See `Joining.error`: that of a maximum."""
        return Maximum().error(values, off, dtype)


@dataclass(frozen=True, eq=False)
class Concatenate(Joining):
    """The channels of its inputs, one after another."""

    kind = "concatenate"

    def reference(self, *values: np.ndarray) -> np.ndarray:
        """See `Joining.reference`."""
        return np.concatenate(values, axis=1)

    def error(self, values: Sequence[np.ndarray], off: Sequence[np.ndarray], dtype: str) -> np.ndarray:  # type: ignore[override]
        """See `Joining.error`."""
        return self.reference(*off)

    def joined_size(self, sizes: Sequence[Size]) -> Size:
        """See `Joining.joined_size`; here an image of one pixel counts for itself alone."""
        return self._one_size(sizes)


class Like(Joining):
    """The first of two inputs, made as large as the second."""

    takes = 2

    def joined_size(self, sizes: Sequence[Size]) -> Size:
        """See `Joining.joined_size`."""
        return sizes[1]


@dataclass(frozen=True, eq=False)
class BroadcastLike(Like, OfAnyRank):
    """The first of two inputs, images of one pixel, repeated for each pixel of the second."""

    kind = "broadcast_like"

    def reference(self, *values: np.ndarray) -> np.ndarray:
        """See `Joining.reference`."""
        x, like = values
        return np.array(np.broadcast_to(x, (*x.shape[:2], *like.shape[2:])))

    def error(self, values: Sequence[np.ndarray], off: Sequence[np.ndarray], dtype: str) -> np.ndarray:  # type: ignore[override]
        """See `Joining.error`: a resize weighs the pixel with itself, in four products."""
        x, like = values
        return self.reference(off[0] + 8 * 2.0 ** -SIGNIFICAND[dtype] * (np.abs(x) + off[0]), like)

    def joined_size(self, sizes: Sequence[Size]) -> Size:
        """See `Joining.joined_size`."""
        if max(sizes[0]) > 1:
            raise ShapeError(
                f"{self.kind}: got images of {times(sizes[0])} pixels, expected one pixel.",
                hint="a resize by a factor takes any size.",
            )
        return sizes[1]


COMMUTATIVE = (Add, Multiply, Maximum, Minimum)
