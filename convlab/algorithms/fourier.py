"""Correlation by the fast Fourier transform, in tiles (overlap-save), over the operations of any backend.

corr2d(X, K) is the inverse transform of F(X) * conj(F(K)), with the kernel's spectrum computed once; each tile of
T x T pixels gives the (T - h + 1) x (T - w + 1) outputs that no wrap-around has reached (Oppenheim and Schafer,
Discrete-Time Signal Processing, section 8.7.3). Its error is small beside the norm of a tile, not beside each output,
and one NaN spreads over its tile: see `convlab.planning.execute` for what follows.
"""

from __future__ import annotations

import functools
import math

from ..contract.arrays import T
from ..contract.operations import Operations
from ..geometry.geometry import NO_PADDING, Geometry, Pair
from .border import with_border

_TILES = (64, 128, 256, 512)


@functools.lru_cache(1024)
def fft_tiling(size: Pair, kernel_size: Pair) -> tuple[Pair, float]:
    """The tile's rows and columns for a padded image, and the work: points times log2(points), over all tiles."""
    whole = _fast_length(size[0]), _fast_length(size[1])
    candidates = []
    for tile in {(min(t, whole[0]), min(t, whole[1])) for t in _TILES} | {whole}:
        if tile[0] < kernel_size[0] or tile[1] < kernel_size[1]:
            continue
        count = math.prod(-(-(n - k + 1) // (t - k + 1)) for n, k, t in zip(size, kernel_size, tile, strict=True))
        points = math.prod(tile)
        beyond_cache = 1.5 if points > 512 * 512 else 1.0
        candidates.append((count * points * math.log2(max(points, 2)) * beyond_cache, tile))
    work, tile = min(candidates)
    return tile, work


def _fast_length(n: int) -> int:
    """The least number not below n whose only prime factors are 2, 3 and 5: every library transforms it fast."""
    while True:
        rest = n
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return n
        n += 1


def fft_correlation(ops: Operations[T], x: T, k: T, geometry: Geometry) -> T:
    """The correlation of x (NCHW) with k (OIHW), for stride and dilation 1."""
    x, geometry = with_border(ops, x, geometry), geometry._replace(padding=NO_PADDING)
    n, _, height, width = ops.sizes(x)
    outputs, _, h, w = ops.sizes(k)
    groups, (rows, columns) = geometry.groups, (height - h + 1, width - w + 1)
    tile, _ = fft_tiling((height, width), (h, w))
    step = tile[0] - h + 1, tile[1] - w + 1
    count = -(-rows // step[0]), -(-columns // step[1])
    tiles = _cut(ops, x, tile, step, count)
    spectra = ops.rfft2(tiles, tile)  # (N, C, down, right, *frequencies)
    kernel = ops.conj(ops.rfft2(k, tile))  # (O, C/groups, *frequencies)
    products = _sum_channels(ops, spectra, kernel, groups)
    y = ops.irfft2(products, tile)[..., : step[0], : step[1]]
    y = ops.reshape(ops.transpose(y, (0, 1, 2, 4, 3, 5)), (n, outputs, count[0] * step[0], count[1] * step[1]))
    return y[:, :, :rows, :columns]


def fft_kernel_gradient(ops: Operations[T], x: T, dy: T, geometry: Geometry) -> T:
    """The gradient of K: the correlation of X with dY, summed over the tiles before the one inverse transform."""
    x = with_border(ops, x, geometry)
    _, channels, height, width = ops.sizes(x)
    _, outputs, rows, columns = ops.sizes(dy)
    (h, w), groups = geometry.kernel_size, geometry.groups
    tile, _ = fft_tiling((height, width), (h, w))
    step = tile[0] - h + 1, tile[1] - w + 1
    count = -(-rows // step[0]), -(-columns // step[1])
    spectra = ops.rfft2(_cut(ops, x, tile, step, count), tile)
    # The transform adds zeros to dY's tiles up to the size of x's tiles.
    seeds = ops.conj(ops.rfft2(_cut(ops, dy, step, step, count), tile))
    share, per_group = outputs // groups, channels // groups
    lines = []
    for o in range(share):
        pairs = []
        for c in range(per_group):
            # The product of the c-th input and the o-th output of each group.
            product = spectra[:, c::per_group, ...] * seeds[:, o::share, ...]
            pairs.append(ops.sum(product, (0, 2, 3)))
        lines.append(ops.stack(pairs, 1))
    spectrum = ops.reshape(ops.stack(lines, 1), (outputs, per_group, tile[0], tile[1] // 2 + 1))
    return ops.irfft2(spectrum, tile)[..., :h, :w]


def _cut(ops: Operations[T], x: T, tile: Pair, step: Pair, count: Pair) -> T:
    """`count` tiles of the image, with zeros where they reach beyond its end."""
    _, _, height, width = ops.sizes(x)
    needed = ((c - 1) * s + t for c, s, t in zip(count, step, tile, strict=True))
    down, right = (max(length - n, 0) for length, n in zip(needed, (height, width), strict=True))
    if down or right:
        x = ops.pad(x, ((0, 0), (0, 0), (0, down), (0, right)))
    return ops.tiles(x, tile, step)


def _sum_channels(ops: Operations[T], spectra: T, kernel: T, groups: int) -> T:
    """The products of spectra summed over the input channels of each group."""
    n, _, down, right, *frequencies = ops.sizes(spectra)
    outputs, per_group, *_ = ops.sizes(kernel)
    if per_group == 1 and outputs == groups:
        return spectra * ops.reshape(kernel, (1, outputs, 1, 1, *frequencies))
    spectra = ops.reshape(spectra, (n, groups, 1, per_group, down * right, *frequencies))
    kernel = ops.reshape(kernel, (1, groups, outputs // groups, per_group, 1, *frequencies))
    total = spectra[:, :, :, 0] * kernel[:, :, :, 0]
    for c in range(1, per_group):
        total = total + spectra[:, :, :, c] * kernel[:, :, :, c]
    return ops.reshape(total, (n, outputs, down, right, *frequencies))
