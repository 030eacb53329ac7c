"""Layers that take some channels, or put them in another order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...errors import ShapeError
from .layer import Layer
from .spatial import Size, times


class Moving(Layer):
    """A layer that moves numbers and computes none; the channels of what it takes are a multiple of `divisor`."""

    @property
    def divisor(self) -> int:
        """See the class."""
        raise NotImplementedError

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`."""
        return self.reference(off)


@dataclass(frozen=True, eq=False)
class Chunk(Moving):
    """One of some equal parts of the channels.

    Attributes:
        index: which part, from 0.
        count: how many parts there are.
    """

    kind = "chunk"

    index: int
    count: int

    @property
    def divisor(self) -> int:
        """See `Moving`."""
        return self.count

    def output_channels(self, channels: int) -> int:
        """See `Layer.output_channels`."""
        return channels // self.count

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        return np.split(x, self.count, axis=1)[self.index]


@dataclass(frozen=True, eq=False)
class ChannelSlice(Moving):
    """Some of the channels that follow one another; `Chunk` is for equal parts.

    Attributes:
        start: the first; below 0, counted from the end.
        stop: the one behind the last; below 0, counted from the end; 0 for all up to the last.
    """

    kind = "channel_slice"

    start: int
    stop: int = 0

    @property
    def divisor(self) -> int:
        """See `Moving`."""
        return 1

    def output_channels(self, channels: int) -> int:
        """See `Layer.output_channels`."""
        if channels:
            return len(range(channels)[self.start : self.stop or None])
        same_end = (self.start < 0) == (self.stop <= 0)
        return max(self.stop - self.start, 0) if same_end else 0

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        return x[:, self.start : self.stop or None]


@dataclass(frozen=True, eq=False)
class ChannelShuffle(Moving):
    """The first channel of each group, then the second of each, and so on.

    Source: ShuffleNet, arXiv:1707.01083.

    Attributes:
        groups: how many groups there are; channels that follow one another form a group.
    """

    kind = "channel_shuffle"

    groups: int

    @property
    def divisor(self) -> int:
        """See `Moving`."""
        return self.groups

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        n, channels, *size = x.shape
        return x.reshape(n, self.groups, channels // self.groups, *size).swapaxes(1, 2).reshape(x.shape)


@dataclass(frozen=True, eq=False)
class PixelShuffle(Moving):
    """The channels of each pixel as a square of pixels of fewer channels.

    Channel c * factor**2 + i * factor + j becomes channel c of the pixel at row i and column j of the square; or with
    `channels_last`, as in TensorFlow, channel (i * factor + j) * C + c of C in the result.

    Source: arXiv:1609.05158.

    Attributes:
        factor: the rows and columns of the square.
        channels_last: see above.
    """

    kind = "pixel_shuffle"

    factor: int
    channels_last: bool = False

    @property
    def divisor(self) -> int:
        """See `Moving`."""
        return self.factor**2

    def output_channels(self, channels: int) -> int:
        """See `Layer.output_channels`."""
        return channels // self.factor**2

    def output_size(self, size: Size) -> Size:
        """See `Layer.output_size`."""
        return size[0] * self.factor, size[1] * self.factor

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        n, channels, rows, columns = x.shape
        r, c = self.factor, self.output_channels(channels)
        if self.channels_last:
            squares = x.reshape(n, r, r, c, rows, columns).transpose(0, 3, 4, 1, 5, 2)
        else:
            squares = x.reshape(n, c, r, r, rows, columns).transpose(0, 1, 4, 2, 5, 3)
        return squares.reshape(n, c, rows * r, columns * r)


@dataclass(frozen=True, eq=False)
class PixelUnshuffle(Moving):
    """Squares of pixels as the channels of one: what `PixelShuffle` with the same attributes takes back.

    Attributes:
        factor: the rows and columns of the square.
        channels_last: whether the channels of one pixel stay together, as in TensorFlow's `space_to_depth`, or those
            of one channel, as in PyTorch's `PixelUnshuffle`.
    """

    kind = "pixel_unshuffle"

    factor: int
    channels_last: bool = False

    @property
    def divisor(self) -> int:
        """See `Moving`."""
        return 1

    def output_channels(self, channels: int) -> int:
        """See `Layer.output_channels`."""
        return channels * self.factor**2

    def output_size(self, size: Size) -> Size:
        """See `Layer.output_size`.

        Raises:
            ShapeError: they are no multiples of the factor.
        """
        if any(n % self.factor for n in size):
            raise ShapeError(
                f"pixel_unshuffle: got an image of {times(size)} pixels, expected multiples of {self.factor}.",
                hint="crop the image, or pad it.",
            )
        return tuple(n // self.factor for n in size)

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        n, channels, *size = x.shape
        r, (rows, columns) = self.factor, self.output_size(tuple(size))
        squares = x.reshape(n, channels, rows, r, columns, r)
        order = (0, 3, 5, 1, 2, 4) if self.channels_last else (0, 1, 3, 5, 2, 4)
        return squares.transpose(order).reshape(n, channels * r**2, rows, columns)
