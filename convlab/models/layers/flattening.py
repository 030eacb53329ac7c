"""Images as rows of numbers, and rows of numbers as images."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .layer import Layer, OfAnyRank
from .spatial import Size

# The orders of flattened pixels, in words.
ORDERS = {"CHW": "channel by channel", "HWC": "pixel by pixel", "none": "not at all"}


@dataclass(frozen=True, eq=False)
class Flatten(OfAnyRank):
    """Each image as one row of numbers.

    Attributes:
        order: the order of an image's axes: "CHW", channel by channel, or "HWC", pixel by pixel.
    """

    kind = "flatten"

    order: str = "CHW"

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        x = np.moveaxis(x, 1, -1) if self.order == "HWC" else x
        return x.reshape(len(x), -1)

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`."""
        return np.asarray(self.reference(off))


@dataclass(frozen=True, eq=False)
class Unflatten(Layer):
    """Each row of numbers as an image.

    Attributes:
        size: the image's rows and columns.
        order: as in `Flatten`. An image of one pixel has no order, and is "CHW".
    """

    kind = "unflatten"

    size: Size = (1, 1)
    order: str = "CHW"

    def __post_init__(self) -> None:
        if max(self.size) == 1:
            object.__setattr__(self, "order", "CHW")

    def output_size(self, size: Size) -> Size:
        """See `Layer.output_size`."""
        return self.size

    def output_channels(self, channels: int) -> int:
        """See `Layer.output_channels`."""
        return channels // math.prod(self.size)

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        if self.order == "HWC":
            return np.moveaxis(x.reshape(len(x), *self.size, -1), -1, 1)
        return x.reshape(len(x), -1, *self.size)

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`."""
        return np.asarray(self.reference(off))
