"""Attention without layers of its own: queries, keys and values are images that other layers give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...dtypes import SIGNIFICAND
from ...errors import ShapeError
from .attention import ROUNDINGS, SCALED, softmax, softmax_error
from .attention_slopes import Heads, Rounded
from .joining import Joining
from .spatial import Size, times


@dataclass(frozen=True, eq=False)
class DotProductAttention(Joining):
    """The mean of the values of all pixels, for each pixel of the queries, weighed by softmax(scale * query * key).

    It takes queries, keys and values, whose channels are cut into heads. Keys and values have the same rows and
    columns, the result has those of the queries. So non-local networks (arXiv:1711.07971), self-attention GANs
    (arXiv:1805.08318) and diffusion models (arXiv:2006.11239) attend, with convolutions of one pixel before it.

    Attributes:
        heads: how many there are; channels that follow one another form a head.
        scale: see above; 1 / sqrt(channels of a key) is customary.
    """

    kind = "dot_product_attention"
    takes = 3

    heads: int
    scale: float

    def joined_size(self, sizes: Sequence[Size]) -> Size:
        """See `Joining.joined_size`."""
        if sizes[1] != sizes[2]:
            raise ShapeError(
                f"{self.kind}: got keys of {times(sizes[1])} pixels and values of {times(sizes[2])}, expected as many.",
                hint="both come from one image.",
            )
        return sizes[0]

    def joined_channels(self, channels: Sequence[int]) -> int:
        """The channels of the result for queries, keys and values of so many; 0 where they aren't known.

        Raises:
            ShapeError: they don't go together.
        """
        queries, keys, values = channels
        if (queries and keys and queries != keys) or any(each % self.heads for each in channels):
            raise ShapeError(
                f"{self.kind}: got queries of {queries} channels, keys of {keys} and values of {values}, expected "
                f"multiples of {self.heads}, the heads, and as many of queries as of keys.",
                hint="the layers before it give them.",
            )
        return values

    def reference(self, *values: np.ndarray) -> np.ndarray:
        """See `Joining.reference`."""
        query, key, value = map(self._by_head, values)
        weights = softmax(self.scale * (query @ key.swapaxes(-1, -2)))
        return self._image(weights @ value, values[0])

    def error(self, values: Sequence[np.ndarray], off: Sequence[np.ndarray], dtype: str) -> np.ndarray:  # type: ignore[override]
        """See `Joining.error`: those of the scores, of the weights and of the means."""
        unit = 2.0 ** -SIGNIFICAND[dtype]
        both = zip(map(self._by_head, values), map(self._by_head, off), strict=True)
        heads = Heads(*(Rounded(*each) for each in both))
        products = heads.query.times(heads.key.turned, unit, SCALED)
        scores, change = self.scale * products.true, abs(self.scale) * products.off
        change = change + 2 * unit * (np.abs(scores) + change)
        weights = Rounded(*softmax_error(scores, change, unit))
        return self._image(weights.times(heads.value, unit, ROUNDINGS).off, values[0])

    def _by_head(self, x: np.ndarray) -> np.ndarray:
        """Images as (images, heads, pixels, channels of a head)."""
        return np.asarray(x, np.float64).reshape(len(x), self.heads, x.shape[1] // self.heads, -1).swapaxes(-1, -2)

    def _image(self, by_head: np.ndarray, like: np.ndarray) -> np.ndarray:
        """The images, with the rows and columns of others."""
        return by_head.swapaxes(-1, -2).reshape(len(like), -1, *like.shape[2:])
