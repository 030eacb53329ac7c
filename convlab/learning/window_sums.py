"""Computing the statistics of images: `Moments`, `ExactMoments` or a `Factor`, strip by strip."""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..geometry.geometry import Geometry, Pair
from .exact_sums import ExactSum
from .moments import ExactMoments, Factor, Moments, StatisticsKind, times_transposed, triangular_factors

if TYPE_CHECKING:
    from numpy.lib.stride_tricks import sliding_window_view
else:
    sliding_window_view = np.lib.stride_tricks.sliding_window_view

# The numbers of V that are computed at a time: they stay in the cache. For many unknowns they are more, up to _MOST, so
# that a strip's products take longer than adding them to the sums; a triangular factor needs taller strips.
_BLOCK, _MOST = 1 << 19, 1 << 25
_PIXELS_PER_UNKNOWN, _ROWS_PER_UNKNOWN = 4, 16
# The pixels that are transformed at a time.
_STRIP = 1 << 20
# The least number of a kernel's elements for which an FFT is faster.
_FFT_FROM = 12


class PreparedImages(NamedTuple):
    """Images to learn from, as real NumPy arrays.

    Attributes:
        x: (N, C, H, W), padded already.
        y: (N, O, H', W').
        weights: (N, 1 or O, H', W'), or None.
        geometry: where the kernel meets x; its padding is ignored.
        use_bias: whether a bias is learned too.
    """

    x: np.ndarray
    y: np.ndarray
    weights: np.ndarray | None
    geometry: Geometry
    use_bias: bool = False


def window_sums(images: PreparedImages, kind: StatisticsKind = "moments", workers: int | None = None) -> Any:
    """The `Moments`, `ExactMoments` or `Factor` of images, of float64 numbers.

    Args:
        images: the images.
        kind: "moments" for `Moments`, "factor" for `Factor`, "reproducible" for `ExactMoments`.
        workers: threads for the transforms; None is all cores.

    >>> one = np.ones((1, 1, 3, 4))
    >>> moments = window_sums(PreparedImages(one, one[:, :, :, 1:] * 2, None, Geometry((1, 2))))
    >>> moments.gram.tolist(), moments.cross.tolist(), moments.energy
    ([[[9.0, 9.0], [9.0, 9.0]]], [[[18.0], [18.0]]], 36.0)
    """
    # An overflow shows in the sums.
    with np.errstate(over="ignore", invalid="ignore"):
        return _sum_of_strips(images, kind, workers)


def _sum_of_strips(images: PreparedImages, kind: StatisticsKind, workers: int | None) -> Any:
    """The statistics of images, by the fastest way for their kind and geometry."""
    if kind == "moments" and _suits_fft(images):
        most_rows = max(_STRIP // images.y.shape[3], 4 * images.geometry.kernel_size[0])
        return _total(_by_fft(strip, workers) for strip in _strips(images, most_rows))
    if kind == "factor":
        factor = None
        for strip in _blocks(images, _ROWS_PER_UNKNOWN):
            factor = _factor(strip, factor)
        return factor
    strips = _blocks(images, _PIXELS_PER_UNKNOWN)
    by_products = _exactly if kind == "reproducible" else _by_products
    return _total(by_products(strip) for strip in strips)


def _total(statistics: Iterable[Any]) -> Any:
    return functools.reduce(operator.add, statistics)


def residuals(images: PreparedImages, unknowns: np.ndarray) -> tuple[np.ndarray, float]:
    """V' W r and r' W r, where r = Y - V K is what a kernel K leaves over: half the downward slope, and the loss.

    Args:
        images: the images.
        unknowns: K, (blocks, n, outputs in a block).

    >>> one = np.ones((1, 1, 3, 4))
    >>> slope, loss = residuals(PreparedImages(one, one[:, :, :, 1:] * 2, None, Geometry((1, 2))), np.ones((1, 2, 1)))
    >>> slope.tolist(), loss
    ([[[0.0], [0.0]]], 0.0)
    """
    slope, loss = np.zeros(unknowns.shape), 0.0
    for strip in _blocks(images, _PIXELS_PER_UNKNOWN):
        v, y, weights = _weighted(strip)
        if len(v) < len(unknowns):
            v, y = np.repeat(v, y.shape[1], 0), y.reshape(-1, 1, y.shape[2])
        left = y - unknowns.transpose(0, 2, 1) @ v
        counted = left if weights is None else left * weights
        slope += times_transposed(v, counted)
        loss += float(np.vdot(counted, left))
    return slope, loss


def _blocks(images: PreparedImages, per_unknown: int) -> Iterator[PreparedImages]:
    """The images cut into strips, or small images put together, so that V has so many pixels for each unknown."""
    columns = _columns(images)
    pixels = max(_BLOCK // columns, min(per_unknown * _unknowns(images), _MOST // columns))
    at_once = pixels // (images.y.shape[2] * images.y.shape[3])
    if at_once <= 1:
        yield from _strips(images, max(1, pixels // images.y.shape[3]))
        return
    for start in range(0, len(images.y), at_once):
        part = slice(start, start + at_once)
        weights = None if images.weights is None else images.weights[part]
        yield images._replace(x=images.x[part], y=images.y[part], weights=weights)


def _strips(images: PreparedImages, most_rows: int) -> Iterator[PreparedImages]:
    """The images cut into strips of at most so many rows of one image."""
    (sh, _), (extent, _), height = images.geometry.stride, images.geometry.extent, images.y.shape[2]
    count = -(-height // most_rows)
    edges = [height * i // count for i in range(count + 1)]
    for n, (start, stop) in itertools.product(range(len(images.y)), itertools.pairwise(edges)):
        yield images._replace(
            x=images.x[n : n + 1, :, start * sh : (stop - 1) * sh + extent],
            y=images.y[n : n + 1, :, start:stop],
            weights=None if images.weights is None else images.weights[n : n + 1, :, start:stop],
        )


def _columns(images: PreparedImages) -> int:
    """The number of V's columns, times the number of blocks."""
    blocks = 1 if images.weights is None else images.weights.shape[1]
    return max(blocks, images.geometry.groups) * _unknowns(images)


def _unknowns(images: PreparedImages) -> int:
    per_group: int = images.x.shape[1] // images.geometry.groups
    return per_group * math.prod(images.geometry.kernel_size) + images.use_bias


def _transposed(images: PreparedImages) -> tuple[np.ndarray, np.ndarray]:
    """V' (groups, n, pixels) and Y' (groups, outputs in a group, pixels) in float64."""
    (sh, sw), (dh, dw), groups = images.geometry.stride, images.geometry.dilation, images.geometry.groups
    views = sliding_window_view(images.x, images.geometry.extent, (2, 3))[:, :, ::sh, ::sw, ::dh, ::dw]
    views = views.transpose(1, 4, 5, 0, 2, 3)
    pixels = math.prod(views.shape[3:])
    v = np.empty((groups, _unknowns(images), pixels))
    for group, channels in enumerate(np.split(views, groups)):
        v[group, : v.shape[1] - images.use_bias].reshape(channels.shape)[...] = channels
    if images.use_bias:
        v[:, -1] = 1
    return v, images.y.transpose(1, 0, 2, 3).reshape(groups, -1, pixels).astype(np.float64)


def _weighted(images: PreparedImages) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """V', Y' and the weights (blocks, 1, pixels); a block for each output if the outputs' weights differ."""
    v, y = _transposed(images)
    if images.weights is None:
        return v, y, None
    weights = images.weights.transpose(1, 0, 2, 3).reshape(images.weights.shape[1], 1, -1).astype(np.float64)
    if len(weights) > 1:
        v, y = np.repeat(v, y.shape[1], 0), y.reshape(-1, 1, y.shape[2])
    return v, y, weights


def _by_products(images: PreparedImages) -> Moments:
    v, y, weighted_v, weighted_y = _factors(images)
    gram, cross = times_transposed(weighted_v, v), times_transposed(weighted_v, y)
    return Moments(gram, cross, float(np.vdot(weighted_y, y)), _count(images))


def _exactly(images: PreparedImages) -> ExactMoments:
    v, y, weighted_v, weighted_y = _factors(images)
    gram, cross = ExactSum.of_products(weighted_v, v), ExactSum.of_products(weighted_v, y)
    energy = ExactSum.of_products(weighted_y.reshape(1, 1, -1), y.reshape(1, 1, -1))
    return ExactMoments(gram, cross, energy, _count(images))


def _factors(images: PreparedImages) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """V', Y', and both with the weights."""
    v, y, weights = _weighted(images)
    return (v, y, v, y) if weights is None else (v, y, v * weights, y * weights)


def _count(images: PreparedImages) -> int:
    if images.weights is None:
        return images.y.size
    return int(np.count_nonzero(np.broadcast_to(images.weights, images.y.shape)))


def _factor(images: PreparedImages, before: Factor | None) -> Factor:
    """The factor of images, and of those before them."""
    v, y, weights = _weighted(images)
    rows = np.concatenate([v, y], 1).transpose(0, 2, 1)
    if weights is not None:
        rows = rows * np.sqrt(weights).transpose(0, 2, 1)
    if before is not None:
        rows = np.concatenate([before.triangle, rows], 1)
    pixels = _count(images) + (before.pixels if before is not None else 0)
    return Factor(triangular_factors(rows), y.shape[1], pixels)


def _suits_fft(images: PreparedImages) -> bool:
    geometry, (h, w) = images.geometry, images.geometry.kernel_size
    large = images.y.shape[2] >= h and images.y.shape[3] >= 2 * w
    one_channel_each = images.x.shape[1] == geometry.groups
    dense = geometry.stride == (1, 1) == geometry.dilation
    return one_channel_each and dense and images.weights is None and large and h * w >= _FFT_FROM


def _by_fft(images: PreparedImages, workers: int | None) -> Moments:
    x, y = images.x[0].astype(np.float64), images.y[0].astype(np.float64)
    h, w = images.geometry.kernel_size
    y = y.reshape(len(x), -1, *y.shape[1:])
    by_channel = [_one_channel(image, results, (h, w), workers or -1) for image, results in zip(x, y, strict=True)]
    gram, cross = (np.stack(each) for each in zip(*by_channel, strict=True))
    if images.use_bias:
        sums = _pixel_sums(images)
        totals = y.sum((2, 3))[:, None]
        gram = np.pad(gram, ((0, 0), (0, 1), (0, 1)))
        gram[:, -1, :-1] = gram[:, :-1, -1] = sums
        gram[:, -1, -1] = y[0, 0].size
        cross = np.concatenate([cross, totals], 1)
    return Moments(gram, cross, float(np.vdot(y, y)), y.size)


def _pixel_sums(images: PreparedImages) -> np.ndarray:
    """The sum of each element's pixels over all windows, (groups, h * w), for one channel in each group."""
    (h, w), (rows, columns) = images.geometry.kernel_size, images.y.shape[2:]
    x = images.x[0].astype(np.float64)
    lines = np.stack([x[:, :, q : q + columns].sum(2) for q in range(w)], 2)
    return np.stack([lines[:, p : p + rows].sum(1) for p in range(h)], 1).reshape(len(x), -1)


def _one_channel(x: np.ndarray, y: np.ndarray, size: Pair, workers: int) -> tuple[np.ndarray, np.ndarray]:
    """A (h * w, h * w) and b (h * w, outputs) of an image (H, W) and its results (outputs, H', W')."""
    import scipy.fft

    (h, w), (rows, columns) = size, y.shape[1:]
    shape = tuple(scipy.fft.next_fast_len(n, real=True) for n in x.shape)
    spectrum = scipy.fft.rfft2(x, shape, workers=workers)

    def lags(other: np.ndarray, down: int, right: int) -> np.ndarray:
        """Sums of other[i, j] * x[i + p, j + q] for p < down, q < right."""
        product = scipy.fft.rfft2(other, shape, workers=workers)
        np.conjugate(product, out=product)
        product *= spectrum
        turns = np.exp(2j * np.pi / shape[0] * (np.outer(np.arange(down), np.arange(shape[0])) % shape[0]))
        return scipy.fft.irfft(turns @ product, shape[1])[:, :right] / shape[0]  # type: ignore[no-any-return]

    cross = np.stack([lags(each, h, w).ravel() for each in y], 1)
    # These are products of pixels by their distance, rows 0 … h - 1 and columns -(w - 1) … w - 1, over the columns that
    # every window has; the columns left and right of them are added below.
    inner = lags(x[:rows, w - 1 : columns], h, 2 * w - 1)
    across = np.arange(w)[None] - np.arange(w)[:, None]
    gram = np.empty((h, w, h, w))
    for p in range(h):
        lower = x[p : p + rows]
        left = x[:rows, : w - 1].T @ lower[:, : 2 * w - 2]
        right = x[:rows, columns:].T @ lower[:, columns - w + 1 :]
        gram[0, :, p] = inner[p][across + w - 1] + _border(left, right, w)[np.arange(w)[:, None], across + w - 1]
    # A window one row further down loses a row of products at the top and gains one at the bottom.
    change = _row_products(x[rows:], w, columns) - _row_products(x[: h - 1], w, columns)
    for p in range(h - 1):
        gram[p + 1, :, p + 1 :] = gram[p, :, p:-1] + change[p, :, p:]
    for p in range(h):
        gram[p, :, :p] = gram[:p, :, p].transpose(2, 0, 1)
    return gram.reshape(h * w, h * w), cross


def _border(left: np.ndarray, right: np.ndarray, w: int) -> np.ndarray:
    """What the border columns add to a window that begins at column q, by distance d: (q, d + w - 1)."""
    total = np.zeros((w, 2 * w - 1))
    for d in range(-(w - 1), w):
        diagonal = np.zeros(w)
        # No window has a pixel at distance d left of column -d.
        diagonal[max(0, -d) : w - 1] = np.diagonal(left, d)
        total[:, d + w - 1] = diagonal[::-1].cumsum()[::-1]
        end = np.diagonal(right, d + w - 1)
        total[1 : len(end) + 1, d + w - 1] += end.cumsum()
    return total


def _row_products(x: np.ndarray, w: int, columns: int) -> np.ndarray:
    """(rows, w, rows, w): sums over j of x[p, j + q] * x[p', j + q']."""
    views = np.ascontiguousarray(sliding_window_view(x, columns, 1)).reshape(-1, columns)
    return np.asarray(views @ views.T).reshape(len(x), w, len(x), w)
