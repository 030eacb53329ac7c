"""Gradients by the numbers that a layer has for each channel, and how far rounding may take them."""

from __future__ import annotations

import numpy as np

from ...dtypes import SIGNIFICAND
from ...truth.bounds import sum_bound

# Gradients, or the bounds of their errors, by what they are taken by: "X", "K" for a kernel, or another of the layer's
# `arrays`.
Slopes = dict[str, np.ndarray]

# A product with the reciprocal of a square root of a sum makes at most so many roundings, in whatever order.
ROUNDINGS = 8


def column(numbers: np.ndarray, x: np.ndarray) -> np.ndarray:
    """One number for each channel, in float64, so that it goes with images or rows of numbers."""
    return np.asarray(numbers, np.float64).reshape(-1, *(1,) * (x.ndim - 2))


def summed_by_channel(
    products: np.ndarray, sizes: np.ndarray, dtype: str, roundings: int, *factors: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sums over images and pixels, one for each channel, and how far they may be off if computed in a dtype.

    They have as many terms as a channel has numbers, in any order; where the dtype is narrow, those that aren't 0 count
    (see `convlab.truth.bounds`).

    Args:
        products: what is added up.
        sizes: the magnitudes of what a framework may add up instead, at least those of the products.
        dtype: of the computation.
        roundings: of each product.
        factors: of the products.
    """
    axes = 0, *range(2, products.ndim)
    narrow = SIGNIFICAND[dtype] <= 11
    terms = np.count_nonzero(sizes, axis=axes).max(initial=0) if narrow else products.size // products.shape[1]
    bound = sum_bound(sizes.sum(axes), int(terms) + roundings, dtype, *map(np.abs, factors))
    return np.asarray(products.sum(axes)), bound


def affine_slopes(
    x: np.ndarray, dy: np.ndarray, dtype: str, scale: np.ndarray, mean: np.ndarray, factor: np.ndarray
) -> tuple[Slopes, Slopes]:
    """The gradients of sum(dy * ((x - mean) * factor * scale + shift)) by x, scale and shift, and their bounds.

    A framework may multiply x and the mean by the factor before it subtracts them, and add up both products apart: the
    roundings are as large as these.

    `scale`, `mean` and `factor` are columns of numbers that don't depend on x.
    """
    slope, size = dy * (scale * factor), np.abs(dy) * factor * (np.abs(x) + np.abs(mean))
    by_scale, scale_bound = summed_by_channel(dy * (x - mean) * factor, size, dtype, ROUNDINGS, dy, x, mean, factor)
    by_shift, shift_bound = summed_by_channel(dy, np.abs(dy), dtype, 1)
    bound = sum_bound(np.abs(slope), ROUNDINGS, dtype, *map(np.abs, (dy, scale, factor)))
    return (
        {"X": slope, "scale": by_scale, "shift": by_shift},
        {"X": bound, "scale": scale_bound, "shift": shift_bound},
    )
