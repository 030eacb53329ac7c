"""Correlation by overlap-save: Fourier transforms of small square tiles that stay in a thread's cache.

Two real tiles make one complex tile, a + ib: its correlation with a real kernel is the two tiles' own, side by side.
A transform works on a strip of the tile, as many columns as a vector has lanes, from top to bottom, and writes it
transposed for the other axis. The forward transforms decimate in frequency and leave their result in scrambled order,
in which it is multiplied; the inverse ones decimate in time and restore the order.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..geometry.geometry import Geometry
from . import threads
from .direct import padded_row
from .pointers import SPACE, A, B, Y, floats, stage_array, sums, tensor
from .tiling import border_indices, tile
from .transforms import forward, inverse, multiply, multiply_add, read_strip, scatter, write_transposed
from .vectors import REGISTER, Array, kernel

if TYPE_CHECKING:  # numba's type hints are incomplete
    numba: Any
else:
    import numba

_Maps = tuple[np.ndarray, np.ndarray, np.ndarray]

# The numbers of a layout: a tile's size; how far apart tiles are; how many there are in a row and in an image; where on
# the padded axis the image's columns start and stop, and how far back in x they are; how much of a tile isn't zeros.
SIZE, STEP, ACROSS, TILES, START, STOP, SHIFT, MOST = range(8)
# How many pairs of tiles are added up in the tiles' dtype before the sum is added to a float64 total.
_RUN = 16


class _Layout(NamedTuple):
    """How tiles cover the images of a shape.

    Attributes:
        size: rows and columns of a tile.
        pairs: how many pairs of tiles there are.
        x: for the tiles of X, which pixel stands where, down and to the right, and the numbers `SIZE` to `MOST`.
        k: the same for the kernels.
        dy: the same for the tiles of dY.
        table: the roots of unity (`_table`).
    """

    size: int
    pairs: int
    x: _Maps
    k: _Maps
    dy: _Maps
    table: np.ndarray


def correlate_tiles(x: np.ndarray, k: np.ndarray, y: np.ndarray, geometry: Geometry) -> bool:
    """Write `kernels.correlate(x, k, geometry)` to y, all of one dtype and C-contiguous; whether y is finite."""
    layout = tile_layout(x.shape, k.shape, geometry, x.dtype.char)
    kernels = k.shape[0] * k.shape[1]
    spectra = np.empty((kernels, 2, layout.size**2), x.dtype)
    lines = k.reshape(1, kernels, *k.shape[2:])
    threads.spread(
        lambda start, stop: kernel_spectra(lines, spectra, *layout.k, layout.table, start, stop),
        kernels,
        tiles_per_chunk(layout, 1),
    )
    checks: list[float] = []
    threads.spread(
        lambda start, stop: checks.append(correlate_pairs(x, spectra, y, *layout.x, layout.table, start, stop)),
        layout.pairs * geometry.groups,
        tiles_per_chunk(layout, kernels // geometry.groups),
    )
    return all(check == 0 for check in checks)


def gradient_of_tiles(x: np.ndarray, dy: np.ndarray, geometry: Geometry) -> tuple[np.ndarray, bool]:
    """`kernels.kernel_gradient(x, dy, geometry)` in float64, and whether all of it is finite."""
    shape = (dy.shape[1], x.shape[1] // geometry.groups, *geometry.kernel_size)
    layout = tile_layout(x.shape, shape, geometry, x.dtype.char)
    kernels = shape[0] * shape[1]
    parts = gradient_parts(layout, kernels)
    totals = np.zeros((parts, *shape))
    threads.spread(
        lambda start, stop: gradient_pairs(x, dy, totals, *layout.x, *layout.dy, layout.table, start, stop),
        parts * kernels,
        tiles_per_chunk(layout, layout.pairs // parts),
    )
    total = totals.sum(axis=0)
    return total, bool(np.isfinite(total).all())


def gradient_parts(layout: _Layout, kernels: int) -> int:
    """How many sums the gradient of each of so many kernels is split into."""
    return max(1, min(8 // kernels, layout.pairs // 3))


def tiles_per_chunk(layout: _Layout, transforms: int) -> int:
    """How many items of so many transforms are worth handing over to another thread."""
    return -(-(2**15) // (layout.size**2 * max(transforms, 1)))


@functools.lru_cache(256)
def tile_layout(x: tuple[int, ...], k: tuple[int, ...], geometry: Geometry, dtype: str) -> _Layout:
    """How tiles cover images of shape x beside kernels of shape k; `dtype` is a character."""
    (images, _, height, width), (h, w) = x, k[2:]
    rows, columns = geometry.output_size((height, width))

    size, _ = tile(images, (rows, columns), (h, w))
    step = size - max(h, w) + 1
    deep, across = -(-rows // step), -(-columns // step)
    beyond = step * max(deep, across) + size
    (_, _), (left, _) = geometry.padding

    def maps(down: np.ndarray, right: np.ndarray, *layout: int) -> _Maps:
        down, right = (np.pad(a, (0, max(beyond - len(a), 0)), constant_values=-1) for a in (down, right))
        return down, right, np.array([size, step, *layout], np.int64)

    down, right = (
        border_indices(n, pads, geometry.padding_mode)
        for n, pads in zip((height, width), geometry.padding, strict=True)
    )
    return _Layout(
        size,
        -(-images * deep * across // 2),
        maps(down, right, across, deep * across, left, left + width, -left, size),
        maps(np.arange(h), np.arange(w), 1, 1, 0, w, 0, size),
        maps(np.arange(rows), np.arange(columns), across, deep * across, 0, columns, 0, step),
        _table(size, dtype),
    )


@functools.cache
def _table(size: int, dtype: str) -> np.ndarray:
    """The roots of unity of all stages of a transform, real and imaginary parts side by side.

    For each stage, of length n, and each j below n / 4, they are w**j, w**2j and w**3j for w the nth root of unity.
    """
    stages, n = [np.zeros(0, complex)], size
    while n > 8 or n == 4:
        exponents = np.multiply.outer(np.arange(n // 4), (1, 2, 3))
        stages.append(np.exp(-2j * np.pi * exponents / n).ravel())
        n //= 4
    return np.concatenate(stages).view(np.float64).astype(dtype)


@kernel
def _fill(tile: Array, x: Array, at: int, width: int, down: Array, i: int, right: Array, j: int, layout: Array) -> None:
    """Write the tile at row i and column j of the padded image."""
    size, most = layout[SIZE], layout[MOST]
    pitch = size + REGISTER // x.itemsize
    for r in range(size):
        source, to, filled = down[i + r], r * pitch, 0
        if r < most and source >= 0:
            padded_row(x, at + source * width, right, j, most, layout[START], layout[STOP], layout[SHIFT], tile, to)
            filled = most
        for t in range(filled, size):
            tile[to + t] = 0


@kernel
def _start(
    x: Array, channel: int, pair: int, down: Array, right: Array, layout: Array, table: Array,
    re: Array, im: Array, space: Array,
) -> None:  # fmt: skip
    """Compute the first half of the transform of two tiles, down their columns, transposed, in half of the space."""
    images, channels, height, width = x.shape
    size, flat = layout[SIZE], x.reshape(-1)
    for part in range(2):
        image, tile = (2 * pair + part) // layout[TILES], (2 * pair + part) % layout[TILES]
        if image < images:
            at = (image * channels + channel) * height * width
            i, j = tile // layout[ACROSS] * layout[STEP], tile % layout[ACROSS] * layout[STEP]
            _fill(space[2 + part], flat, at, width, down, i, right, j, layout)
        else:
            space[2 + part] = 0
    for strip in range(size * size // len(re)):
        read_strip(re, im, space[2], space[3], strip, size)
        forward(re, im, size, table)
        write_transposed(re, im, space[0], space[1], strip, size)


@kernel
def _spectrum(
    x: Array, channel: int, pair: int, down: Array, right: Array, layout: Array, table: Array,
    re: Array, im: Array, space: Array, to_re: Array, to_im: Array,
) -> None:  # fmt: skip
    """Compute the whole transform of two tiles, strip by strip."""
    size, count = layout[SIZE], len(re)
    _start(x, channel, pair, down, right, layout, table, re, im, space)
    for strip in range(size * size // count):
        read_strip(re, im, space[0], space[1], strip, size)
        forward(re, im, size, table)
        to_re[strip * count : (strip + 1) * count] = re
        to_im[strip * count : (strip + 1) * count] = im


@kernel
def kernel_spectra(
    k: Array, spectra: Array, down: Array, right: Array, layout: Array, table: Array, start: int, stop: int
) -> None:
    """Transform and scale kernels start to stop of k (1, kernels, h, w) into spectra (kernels, 2, size * size)."""
    size, lanes = layout[SIZE], REGISTER // k.itemsize
    strips, space = np.empty((2, size * lanes), k.dtype), np.empty((4, size * (size + lanes)), k.dtype)
    for item in range(start, stop):
        re, im = spectra[item]
        _spectrum(k, item, 0, down, right, layout, table, strips[0], strips[1], space, re, im)
        for i in range(size * size):
            re[i] /= size * size
            im[i] /= size * size


@kernel
def correlate_pairs(
    x: Array, spectra: Array, y: Array, down: Array, right: Array, layout: Array, table: Array, start: int, stop: int
) -> float:
    """Compute pairs of tiles start to stop of y; return NaN unless they are finite, else 0."""
    (images, channels, _, _), (_, outputs, rows, columns) = x.shape, y.shape
    per_group, size, lanes = len(spectra) // outputs, layout[SIZE], REGISTER // x.itemsize
    groups, share = channels // per_group, outputs * per_group // channels
    strips, space = np.empty((2, size * lanes), x.dtype), np.empty((4, size * (size + lanes)), x.dtype)
    (re, im), check, flat_y, step = strips, np.zeros(1), y.reshape(-1), layout[STEP]
    for item in range(start, stop):
        pair, group = item // groups, item % groups
        for index in range(share * per_group):
            o, c = group * share + index // per_group, index % per_group
            other = spectra[o * per_group + c]
            _start(x, group * per_group + c, pair, down, right, layout, table, re, im, space)
            for strip in range(size // lanes):
                read_strip(re, im, space[0], space[1], strip, size)
                forward(re, im, size, table)
                multiply(re, im, other[0], other[1], strip * size * lanes, size * lanes)
                inverse(re, im, size, table)
                write_transposed(re, im, space[2], space[3], strip, size)
            for strip in range(-(-step // lanes)):
                read_strip(re, im, space[2], space[3], strip, size)
                inverse(re, im, size, table)
                for part in range(2):
                    image, tile = (2 * pair + part) // layout[TILES], (2 * pair + part) % layout[TILES]
                    i, j = tile // layout[ACROSS] * step, tile % layout[ACROSS] * step + strip * lanes
                    many = min(step - strip * lanes, columns - j)
                    if image < images and many > 0:
                        at = ((image * outputs + o) * rows + i) * columns + j
                        scatter(im if part else re, flat_y, at, columns, min(step, rows - i), many, c == 0, check)
    return float(check[0])


@kernel
def _add_back(spectrum: Array, layout: Array, table: Array, re: Array, im: Array, space: Array, total: Array) -> None:
    """Add the inverse transform's real part, as far as a kernel reaches, to a total (h, w)."""
    (h, w), size, count = total.shape, layout[SIZE], len(re)
    lanes = count // size
    for strip in range(size // lanes):
        re[:] = spectrum[0, strip * count : (strip + 1) * count]
        im[:] = spectrum[1, strip * count : (strip + 1) * count]
        inverse(re, im, size, table)
        write_transposed(re, im, space[2], space[3], strip, size)
    for strip in range(-(-w // lanes)):
        read_strip(re, im, space[2], space[3], strip, size)
        inverse(re, im, size, table)
        for p in range(h):
            for q in range(strip * lanes, min(w, (strip + 1) * lanes)):
                total[p, q] += np.float64(re[p * lanes + q - strip * lanes]) / (size * size)


@kernel
def gradient_pairs(
    x: Array, dy: Array, totals: Array, down: Array, right: Array, layout: Array,
    dy_down: Array, dy_right: Array, dy_layout: Array, table: Array, start: int, stop: int,
) -> None:  # fmt: skip
    """Compute sums start to stop in totals (parts, O, C/groups, h, w): over a part of all pairs, for one kernel."""
    (images, channels, _, _), outputs = x.shape, dy.shape[1]
    parts, _, per_group, _, _ = totals.shape
    size, lanes, share = layout[SIZE], REGISTER // x.itemsize, outputs * per_group // channels
    strips, space = np.empty((2, size * lanes), x.dtype), np.empty((4, size * (size + lanes)), x.dtype)
    (re, im), count, pairs = strips, size * lanes, -(-images * layout[TILES] // 2)
    first, spectrum = np.empty((2, size * size), x.dtype), np.zeros((2, size * size), x.dtype)
    for item in range(start, stop):
        part, o, c = item // (outputs * per_group), item // per_group % outputs, item % per_group
        channel, last = o // share * per_group + c, (part + 1) * pairs // parts
        for pair in range(part * pairs // parts, last):
            _spectrum(x, channel, pair, down, right, layout, table, re, im, space, first[0], first[1])
            _start(dy, o, pair, dy_down, dy_right, dy_layout, table, re, im, space)
            for strip in range(size // lanes):
                read_strip(re, im, space[0], space[1], strip, size)
                forward(re, im, size, table)
                multiply_add(re, im, first[0], first[1], spectrum[0], spectrum[1], strip * count, count)
            if pair % _RUN == 0 or pair == last - 1:
                _add_back(spectrum, layout, table, re, im, space, totals[part, o, c])
                spectrum[:] = 0


def spectra_stage(first: Any, job: int, start: int, stop: int) -> int:
    """`kernel_spectra` for native code (`convlab.compiled.stages`)."""
    like = numba.carray(first, (1,))
    k, spectra = tensor(job, B, 0, like), tensor(job, SPACE, 1, like)[0]
    kernel_spectra(
        k, spectra, stage_array(job, 2), stage_array(job, 3), stage_array(job, 4), floats(job, 5, like), start, stop
    )
    return 0


def pairs_stage(first: Any, job: int, start: int, stop: int) -> int:
    """`correlate_pairs` for native code; 1 unless the result is finite."""
    like = numba.carray(first, (1,))
    x, spectra, y = tensor(job, A, 0, like), tensor(job, SPACE, 1, like)[0], tensor(job, Y, 2, like)
    maps = stage_array(job, 3), stage_array(job, 4), stage_array(job, 5)
    return int(correlate_pairs(x, spectra, y, *maps, floats(job, 6, like), start, stop) != 0)


def gradient_pairs_stage(first: Any, job: int, start: int, stop: int) -> int:
    """`gradient_pairs` for native code."""
    like = numba.carray(first, (1,))
    x, dy, totals = tensor(job, A, 0, like), tensor(job, B, 1, like), sums(job, 2)
    maps = (
        stage_array(job, 3),
        stage_array(job, 4),
        stage_array(job, 5),
        stage_array(job, 6),
        stage_array(job, 7),
        stage_array(job, 8),
    )
    gradient_pairs(x, dy, totals, *maps, floats(job, 9, like), start, stop)
    return 0
