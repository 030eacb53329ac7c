"""Gluon blocks of images NCHW whose channels meet, or become those of squares of pixels."""

from __future__ import annotations

import functools
from typing import Any

from .blocks import OnBoth
from .image_blocks import OfImages
from .ops import mx


class LocalResponseNorm(OfImages):
    """x / (k + alpha / size * the sum of the squares of `size` channels about each) ** beta.

    Args:
        size: how many channels, an odd number.
        alpha, beta, k: see above.
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0, **names: Any) -> None:
        super().__init__(**names)
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def computed(self, F: Any, x: Any) -> Any:
        """The image, normalised."""
        return F.LRN(x, nsize=self.size, alpha=self.alpha, beta=self.beta, knorm=self.k)


class PartsSoftmax(OfImages):
    """The channels in equal parts: a softmax over the parts, for each channel of a part.

    Args:
        parts: how many there are.
    """

    def __init__(self, parts: int, **names: Any) -> None:
        super().__init__(**names)
        self.parts = parts

    def computed(self, F: Any, x: Any) -> Any:
        """The shares."""
        grouped = F.reshape(x, shape=(0, -4, self.parts, -1, -2))
        return F.reshape(F.softmax(grouped, axis=1), shape=(0, -3, -2))


class GatedLinearUnit(OfImages):
    """The first half of the channels times the sigmoid of the second half."""

    def computed(self, F: Any, x: Any) -> Any:
        """The image of half as many channels."""
        values, gates = F.split(x, num_outputs=2, axis=1)
        return values * F.sigmoid(gates)


class PixelUnshuffle(OfImages):
    """Squares of pixels as the channels of one; `space_to_depth` has TensorFlow's order alone.

    Args:
        factor: the rows and columns of the square.
        channels_last: whether the channels of one pixel stay together, as in TensorFlow, or those of one channel, as in
            PyTorch.
    """

    def __init__(self, factor: int, channels_last: bool = False, **names: Any) -> None:
        super().__init__(**names)
        self.factor, self.channels_last = factor, channels_last

    def computed(self, F: Any, x: Any) -> Any:
        """The smaller image."""
        squares = F.space_to_depth(x, block_size=self.factor)
        if self.channels_last:
            return squares
        grouped = F.reshape(squares, shape=(0, -4, self.factor**2, -1, -2))
        return F.reshape(F.swapaxes(grouped, 1, 2), shape=(0, -3, -2))


class Anchors(OfImages):
    """The channels of each pixel in equal parts, which become pixels side by side.

    Args:
        count: how many parts there are.
    """

    def __init__(self, count: int, **names: Any) -> None:
        super().__init__(**names)
        self.count = count

    def computed(self, F: Any, x: Any) -> Any:
        """The image, (N, C / count, H, W * count)."""
        parts = F.reshape(F.transpose(x, axes=(0, 2, 3, 1)), shape=(0, 0, 0, -4, self.count, -1))
        return F.transpose(F.reshape(parts, shape=(0, 0, -3, 0)), axes=(0, 3, 1, 2))


class ConcatenatePixels(OnBoth, mx.gluon.HybridBlock):  # type: ignore[misc]
    """The pixels of images, one image after another, as images of one column."""

    def hybrid_forward(self, F: Any, *values: Any) -> Any:
        """The image, (N, C, pixels, 1)."""
        numpy = mx.util.is_np_array()
        rows = [F.reshape(x.as_nd_ndarray() if numpy else x, shape=(0, 0, -1, 1)) for x in values]
        y = F.concat(*rows, dim=2)
        return y.as_np_ndarray() if numpy else y


class Tokens(OfImages):
    """The pixels of images as the tokens of a sequence, (N, H * W, C)."""

    def computed(self, F: Any, x: Any) -> Any:
        """The tokens."""
        return F.transpose(F.reshape(x, shape=(0, 0, -1)), axes=(0, 2, 1))


class Maximum(OnBoth, mx.gluon.HybridBlock):  # type: ignore[misc]
    """The greatest of arrays, element by element."""

    def hybrid_forward(self, F: Any, *values: Any) -> Any:
        """The greatest."""
        return functools.reduce(F.np.maximum if mx.util.is_np_array() else F.broadcast_maximum, values)


class Minimum(OnBoth, mx.gluon.HybridBlock):  # type: ignore[misc]
    """The least of arrays, element by element."""

    def hybrid_forward(self, F: Any, *values: Any) -> Any:
        """The least."""
        return functools.reduce(F.np.minimum if mx.util.is_np_array() else F.broadcast_minimum, values)
