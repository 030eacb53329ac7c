"""The gradient of attention by the pixels, and how far rounding may take it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Rounded(NamedTuple):
    """Numbers in float64, and how far those that a framework has may be from them.

    Attributes:
        true: the numbers.
        off: as large as these, at least 0.
    """

    true: np.ndarray
    off: np.ndarray

    @classmethod
    def exact(cls, numbers: np.ndarray) -> Rounded:
        """Numbers that every framework has as they are."""
        numbers = np.asarray(numbers, np.float64)
        return cls(numbers, np.zeros(numbers.shape))

    @property
    def largest(self) -> np.ndarray:
        """The greatest magnitudes that they may have."""
        return np.asarray(np.abs(self.true) + self.off)

    def summed(self, unit: float) -> Rounded:
        """The sums of the columns of a matrix, in any order."""
        return Rounded(self.true.sum(0), self.off.sum(0) + len(self.true) * unit * self.largest.sum(0))

    @property
    def turned(self) -> Rounded:
        """The matrices transposed."""
        return Rounded(self.true.swapaxes(-1, -2), self.off.swapaxes(-1, -2))

    def times(self, other: Rounded, unit: float, roundings: int = 1) -> Rounded:
        """The product of matrices, each sum rounded so many times more than it has terms, in any order."""
        off = np.abs(self.true) @ other.off + self.off @ other.largest
        rounding = (self.true.shape[-1] + roundings) * unit * (self.largest @ other.largest)
        return Rounded(self.true @ other.true, off + rounding)


class Heads(NamedTuple):
    """The queries, keys and values of all heads, (images, heads, pixels, channels of a head), or gradients by them."""

    query: Rounded
    key: Rounded
    value: Rounded


def score_slopes(weights: Rounded, means: Rounded, values: Rounded, unit: float) -> Rounded:
    """The gradient of sum(means * (softmax(scores) @ values)) by the scores.

    Args:
        weights: softmax(scores), (..., pixels, pixels).
        means: the gradient by the means of the values, (..., pixels, channels).
        values: (..., pixels, channels).
        unit: the unit roundoff.

    It is weights * (slope - sum(weights * slope)), where slope is means @ values transposed. The sum may as well be
    that of means * (weights @ values), of the same products in another order.
    """
    slope = means.times(values.turned, unit)
    sizes = means.largest @ values.largest.swapaxes(-1, -2)
    mean = (weights.true * slope.true).sum(-1, keepdims=True)
    most = (weights.largest * sizes).sum(-1, keepdims=True)
    terms = values.true.shape[-2] + values.true.shape[-1] + 8
    mean_off = (weights.off * sizes + weights.true * slope.off).sum(-1, keepdims=True) + terms * unit * most
    centred, centred_off = slope.true - mean, slope.off + mean_off
    off = weights.off * (np.abs(centred) + centred_off) + weights.true * centred_off
    return Rounded(weights.true * centred, off + 4 * unit * weights.largest * (sizes + most))


def product_slopes(
    query: Rounded, key: Rounded, by_scores: Rounded, factor: np.ndarray, unit: float
) -> tuple[Rounded, Rounded]:
    """The gradients by queries and keys, whose scores are factor * query @ key, from that by the scores."""
    products = by_scores.times(key, unit), by_scores.turned.times(query, unit)
    size = np.abs(factor)
    first, second = (Rounded(factor * each.true, size * (each.off + 4 * unit * each.largest)) for each in products)
    return first, second


def direction_slope(vector: Rounded, direction: Rounded, slope: Rounded, shortest: float, unit: float) -> Rounded:
    """The gradient by vectors, from that by vector / length, with lengths of at least `shortest`.

    It is (slope - direction * sum(direction * slope)) / length. Each of both terms may be divided by itself, and by a
    length that comes from one that is off.
    """
    length, off = (np.sqrt((each**2).sum(-1, keepdims=True)) for each in vector)
    length = np.maximum(length, shortest)
    least = np.maximum(length - off, shortest)
    along = (direction.true * slope.true).sum(-1, keepdims=True)
    most = (direction.largest * slope.largest).sum(-1, keepdims=True)
    terms = 2 * (vector.true.shape[-1] + 8)
    along_off = (np.abs(direction.true) * slope.off + direction.off * slope.largest).sum(-1, keepdims=True)
    moved = slope.off + np.abs(direction.true) * along_off + direction.off * most
    sizes = slope.largest + direction.largest * most
    return Rounded(
        (slope.true - direction.true * along) / length, (moved + (3 * off / length + terms * unit) * sizes) / least
    )
