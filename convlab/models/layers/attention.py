"""Attention: pixels that are computed from all others, and what makes an image's pixels the tokens of a sequence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...dtypes import SIGNIFICAND
from ...errors import ShapeError, UnsupportedError
from ...truth.bounds import sum_bound
from .attention_slopes import Heads, Rounded, product_slopes, score_slopes
from .layer import Dense, Layer
from .slopes import Slopes, summed_by_channel
from .spatial import Size

# Of an exponential and a division, beside those of sums.
ROUNDINGS = 8
# Of a score beside those of its sum, with what scales it.
SCALED = 6
# Where a score may be off by so much, a weight may be anything.
_LARGEST = 100.0


@dataclass(frozen=True, eq=False)
class Attention(Layer):
    """Multi-head self-attention of the pixels of each image.

    Dense layers of each pixel give a query, a key and a value, whose channels are cut into heads. Each pixel of the
    result is the mean of all values, weighed by softmax(query * key / sqrt(channels of a key)), and a dense layer of
    that. Source: arXiv:1706.03762.

    Attributes:
        kernel: (heads * (2 * key_size + value_size), channels), the rows of the queries, of the keys and of the values,
            each head by head.
        bias: a number for each of these rows, or None.
        out_kernel: (channels, heads * value_size).
        out_bias: (channels,), or None.
        heads: how many there are.
        rate: the share of the weights that training sets to 0.
        dtype: the arrays' dtype.
    """

    kind = "attention"
    arrays: ClassVar[tuple[str, ...]] = ("kernel", "bias", "out_kernel", "out_bias")

    kernel: np.ndarray
    out_kernel: np.ndarray
    heads: int
    bias: np.ndarray | None = None
    out_bias: np.ndarray | None = None
    rate: float = 0.0
    dtype: str = "float32"

    @property
    def input_channels(self) -> int:
        """See `Layer.input_channels`."""
        return int(self.kernel.shape[1])

    @property
    def key_size(self) -> int:
        """The channels of a head's queries and keys."""
        return (len(self.kernel) - int(self.out_kernel.shape[1])) // (2 * self.heads)

    @property
    def value_size(self) -> int:
        """The channels of a head's values."""
        return int(self.out_kernel.shape[1]) // self.heads

    @property
    def plain(self) -> bool:
        """Whether all heads together have as many channels as the image."""
        return self.key_size == self.value_size and self.heads * self.value_size == self.input_channels

    @classmethod
    def of_heads(
        cls,
        kernels: Sequence[np.ndarray],
        biases: Sequence[np.ndarray] | None,
        heads: int,
        rate: float = 0.0,
        dtype: str = "float32",
    ) -> Attention:
        """The attention with a kernel each for the queries, the keys, the values and what comes behind: see `by_head`.

        Raises:
            UnsupportedError: it gives other channels than the image has.
        """
        channels = len(kernels[0])
        if kernels[3].shape[-1] != channels:
            raise UnsupportedError(f"it gives {kernels[3].shape[-1]} channels, expected {channels}, as it takes")
        rows = [np.ascontiguousarray(kernel.reshape(channels, -1).T) for kernel in kernels[:3]]
        out_kernel = np.ascontiguousarray(kernels[3].reshape(-1, channels).T)
        flat = [None, None] if biases is None else [np.concatenate([*map(np.ravel, biases[:3])]), biases[3]]
        return cls(np.concatenate(rows), out_kernel, heads, flat[0], flat[1], rate, dtype)

    def by_head(self) -> tuple[list[np.ndarray], list[np.ndarray] | None]:
        """The kernels of queries, keys and values, (channels, heads, channels of a head), and the last one; the biases.

        The last kernel is (heads, channels of a head, channels). Where one of the biases is missing, it is zeros.
        """
        channels = self.input_channels
        kernels = [rows.T.reshape(channels, self.heads, -1) for rows in self.parts_of(self.kernel)]
        kernels.append(self.out_kernel.T.reshape(self.heads, -1, channels))
        if not self.biased:
            return kernels, None
        bias, out_bias = self.biases()
        return kernels, [*(rows.reshape(self.heads, -1) for rows in self.parts_of(bias)), out_bias]

    def parts_of(self, rows: np.ndarray) -> list[np.ndarray]:
        """The rows of the queries, those of the keys and those of the values."""
        keys = self.heads * self.key_size
        return np.split(rows, [keys, 2 * keys])

    def biases(self) -> tuple[np.ndarray, np.ndarray]:
        """Both biases, zeros for one that is missing: the frameworks' own attention has both or neither."""
        pairs = (self.kernel, self.bias), (self.out_kernel, self.out_bias)
        first, last = (np.zeros(len(kernel), kernel.dtype) if bias is None else bias for kernel, bias in pairs)
        return first, last

    @property
    def biased(self) -> bool:
        """Whether any of its dense layers has a bias."""
        return self.bias is not None or self.out_bias is not None

    @property
    def projections(self) -> tuple[Dense, Dense]:
        """The dense layers of each pixel, before and behind the mean of the values."""
        return Dense(self.kernel, self.bias, self.dtype), Dense(self.out_kernel, self.out_bias, self.dtype)

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        return self._attend(x, np.zeros(1))

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`: those of the dense layers, of the scores, of the weights and of the means."""
        return self._attend_error(x, off, dtype, np.zeros(1))

    def gradients(self, x: np.ndarray, dy: np.ndarray, dtype: str) -> tuple[Slopes, Slopes]:
        """See `Layer.gradients`."""
        return both_of(self._attend_slopes(x, dy, dtype, np.zeros(1))[0])

    def _attend(self, x: np.ndarray, added: np.ndarray) -> np.ndarray:
        """The result, where something is added to the scores, (images, heads, pixels, pixels)."""
        before, behind = self.projections
        queries, keys, values = self._by_head(before.reference(_pixels(x)), len(x))
        weights = softmax(self._scores(queries, keys) + added)
        return _image(behind.reference(self._joined(weights @ values)), x)

    def _attend_error(self, x: np.ndarray, off: np.ndarray, dtype: str, added: np.ndarray) -> np.ndarray:
        unit = 2.0 ** -SIGNIFICAND[dtype]
        (_, _, values), weights = self._rounded_heads(x, off, dtype, added)
        means, off_means = weights.times(values, unit, ROUNDINGS)
        _, behind = self.projections
        return _image(behind.error(self._joined(means), self._joined(off_means), dtype), x)

    def _rounded_heads(self, x: np.ndarray, off: np.ndarray, dtype: str, added: np.ndarray) -> tuple[Heads, Rounded]:
        """The queries, keys and values of pixels, and the weights, of all heads."""
        before, _ = self.projections
        unit, pixels, errors = 2.0 ** -SIGNIFICAND[dtype], _pixels(x), _pixels(off)
        true, wrong = before.reference(pixels), before.error(pixels, errors, dtype)
        heads = Heads(*map(Rounded, self._by_head(true, len(x)), self._by_head(wrong, len(x))))
        scores, change = self._scores(heads.query.true, heads.key.true), self._scores_error(heads, dtype)
        change += 2 * unit * (np.abs(scores) + change + 2 * np.abs(added))
        return heads, Rounded(*softmax_error(scores + added, change, unit))

    def _attend_slopes(
        self, x: np.ndarray, dy: np.ndarray, dtype: str, added: np.ndarray
    ) -> tuple[dict[str, Rounded], Rounded]:
        """The gradients of the sum of dy * the result by x and the arrays, and that by the scores."""
        unit = 2.0 ** -SIGNIFICAND[dtype]
        pixels, seeds, kernel, out_kernel = map(Rounded.exact, (_pixels(x), _pixels(dy), self.kernel, self.out_kernel))
        shape = len(x), -1, self.heads, self.value_size
        by_means = Rounded(*(each.reshape(shape).swapaxes(1, 2) for each in seeds.times(out_kernel, unit)))
        heads, weights = self._rounded_heads(x, np.zeros(x.shape), dtype, added)
        by_scores = score_slopes(weights, by_means, heads.value, unit)
        slopes = *self._product_slopes(heads, by_scores, dtype), weights.turned.times(by_means, unit)
        parts = zip(*slopes, strict=True)
        rows = Rounded(*(np.concatenate([self._joined(each) for each in part], 1) for part in parts))
        means = Rounded(*map(self._joined, weights.times(heads.value, unit, ROUNDINGS)))
        by_arrays = {"kernel": rows.turned.times(pixels, unit), "out_kernel": seeds.turned.times(means, unit)}
        if self.bias is not None:
            by_arrays["bias"] = rows.summed(unit)
        if self.out_bias is not None:
            by_arrays["out_bias"] = seeds.summed(unit)
        return {"X": Rounded(*(_image(each, x) for each in rows.times(kernel, unit))), **by_arrays}, by_scores

    def _scores(self, queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """How much each pixel heeds each other, (images, heads, pixels, pixels)."""
        return np.asarray(queries @ keys.swapaxes(-1, -2) / math.sqrt(queries.shape[-1]))

    def _scores_error(self, heads: Heads, dtype: str) -> np.ndarray:
        """How far they may be off."""
        query, key, _ = heads
        products = query.times(key.turned, 2.0 ** -SIGNIFICAND[dtype], SCALED)
        return np.asarray(products.off / math.sqrt(query.true.shape[-1]))

    def _product_slopes(self, heads: Heads, by_scores: Rounded, dtype: str) -> tuple[Rounded, Rounded]:
        """The gradients by the queries and the keys, from that by the scores."""
        factor = np.asarray(1 / math.sqrt(heads.query.true.shape[-1]))
        return product_slopes(heads.query, heads.key, by_scores, factor, 2.0 ** -SIGNIFICAND[dtype])

    def _by_head(self, rows: np.ndarray, images: int) -> list[np.ndarray]:
        """The queries, keys and values of pixels, each (images, heads, pixels, channels of a head)."""
        parts = (part.T for part in self.parts_of(rows.T))
        return [part.reshape(images, -1, self.heads, part.shape[1] // self.heads).swapaxes(1, 2) for part in parts]

    def _joined(self, heads: np.ndarray) -> np.ndarray:
        """The channels of all heads in one row for each pixel."""
        return heads.swapaxes(1, 2).reshape(-1, heads.shape[1] * heads.shape[3])


@dataclass(frozen=True, eq=False)
class ClassToken(Layer):
    """The pixels of an image, row by row, as one column, with a learned pixel before them.

    Source: the class token of arXiv:2010.11929.

    Attributes:
        token: one number for each channel.
        dtype: its dtype.
    """

    kind = "class_token"
    arrays = ("token",)

    token: np.ndarray
    dtype: str = "float32"

    def output_size(self, size: Size) -> Size:
        """See `Layer.output_size`."""
        return 1 + math.prod(size), 1

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        return self._behind(np.asarray(self.token, np.float64), x)

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`: nothing is computed."""
        return self._behind(np.zeros(len(self.token)), off)

    def gradients(self, x: np.ndarray, dy: np.ndarray, dtype: str) -> tuple[Slopes, Slopes]:
        """See `Layer.gradients`."""
        first, others = dy[:, :, :1], dy[:, :, 1:].reshape(x.shape)
        by_token, bound = summed_by_channel(first, np.abs(first), dtype, 1)
        return {"X": others, "token": by_token}, {"X": np.zeros(x.shape), "token": bound}

    def _behind(self, token: np.ndarray, x: np.ndarray) -> np.ndarray:
        first = np.broadcast_to(token[:, None, None], (*x.shape[:2], 1, 1))
        return np.concatenate([first, x.reshape(*x.shape[:2], -1, 1)], axis=2)


@dataclass(frozen=True, eq=False)
class PositionEmbedding(Layer):
    """x + embedding, with a learned number for each channel of each pixel.

    Attributes:
        embedding: (channels, rows, columns), whose pixels, row by row, are for those of images of as many.
        dtype: its dtype.
    """

    kind = "position_embedding"
    arrays = ("embedding",)

    embedding: np.ndarray
    dtype: str = "float32"

    def output_size(self, size: Size) -> Size:
        """See `Layer.output_size`.

        Raises:
            ShapeError: the embedding is for images of more pixels, or of fewer.
        """
        rows, columns = self.embedding.shape[1:]
        if math.prod(size) != rows * columns:
            raise ShapeError(
                f"position_embedding: got images of {size[0]}x{size[1]} pixels, expected {rows}x{columns}.",
                hint="give images of the size that the model was made for.",
            )
        return size

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        return np.asarray(x + self._like(x))

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`: the sum is rounded."""
        return np.asarray(off + 2 * 2.0 ** -SIGNIFICAND[dtype] * (np.abs(x) + off + np.abs(self._like(x))))

    def gradients(self, x: np.ndarray, dy: np.ndarray, dtype: str) -> tuple[Slopes, Slopes]:
        """See `Layer.gradients`."""
        by_embedding, bound = dy.sum(0), sum_bound(np.abs(dy).sum(0), len(dy), dtype)
        shape = self.embedding.shape
        true = {"X": dy, "embedding": by_embedding.reshape(shape)}
        return true, {"X": np.zeros(x.shape), "embedding": bound.reshape(shape)}

    def _like(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.embedding, np.float64).reshape(x.shape[1:])


@dataclass(frozen=True, eq=False)
class FirstPixel(Layer):
    """The first pixel of each image, as a row of numbers: what a class token has become."""

    kind = "first_pixel"

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        return x[:, :, 0, 0]

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`: nothing is computed."""
        return off[:, :, 0, 0]


def gradients_read(layer: Attention) -> Slopes:
    """The gradients by the arrays of attention: those of a layer read of a copy that has gradients for parameters.

    Frameworks keep the arrays in layouts of their own, but for a window's `scale`, of which they may keep a logarithm.
    """
    names = (*Attention.arrays, "table")
    return {name: array for name in names if (array := getattr(layer, name, None)) is not None}


def both_of(slopes: Mapping[str, Rounded]) -> tuple[Slopes, Slopes]:
    """The gradients, and how far they may be off."""
    return {name: each.true for name, each in slopes.items()}, {name: each.off for name, each in slopes.items()}


def _pixels(x: np.ndarray) -> np.ndarray:
    """The pixels of all images as rows of their channels."""
    return np.moveaxis(x, 1, -1).reshape(-1, x.shape[1])


def _image(pixels: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Rows of channels as images of x's size."""
    return np.moveaxis(pixels.reshape(len(x), *x.shape[2:], -1), -1, 1)


def softmax(scores: np.ndarray) -> np.ndarray:
    """The softmax along the last axis."""
    from scipy import special

    return np.asarray(special.softmax(scores, axis=-1))


def softmax_error(scores: np.ndarray, change: np.ndarray, unit: float) -> tuple[np.ndarray, np.ndarray]:
    """The softmax of scores, and how far it may be off if the scores are by up to `change`.

    Each weight is at most exp(change) times as large beside the sum of all, each of which may be exp(-change) times
    as large. A score less the largest one is rounded before its exponential is.
    """
    weights = softmax(scores)
    spread = scores.max(-1, keepdims=True) - scores
    change = change + unit * (spread + 2 * change.max(-1, keepdims=True))
    change = np.minimum(change, _LARGEST)
    relative = unit * (scores.shape[-1] + ROUNDINGS)
    grown, shrunk = weights * np.exp(change), weights * np.exp(-change)
    # A weight is a share, at most 1.
    most = np.minimum(grown / shrunk.sum(-1, keepdims=True), 1) * (1 + relative)
    least = shrunk / grown.sum(-1, keepdims=True) * (1 - relative)
    return weights, np.maximum(most - weights, weights - least) + np.finfo("float32").tiny
