"""Correlation of NumPy arrays in the order of `reproducible=True`, by numba kernels.

All arrays are NCHW and OIHW, float32 or float64. What is computed, to the last bit, is what the operations of
`convlab.algorithms.reproducible` compute. numba is imported, and kernels are compiled or fetched from its cache on
disk, when they are first used.
"""

from __future__ import annotations

import functools
import sys
from typing import NamedTuple

import numpy as np

from ..dtypes import LEAST
from ..geometry.geometry import Geometry
from . import threads
from .kernels import compiled_module, ready
from .tiling import border_indices, phase_by_phase, phase_offsets

# A thread adds up about so many vectors of products in a microsecond.
_VECTORS_PER_MICROSECOND = 2000
# A second thread is used for work of at least `_PAYS` microseconds; a piece of work takes at least `_PIECE`.
_PAYS, _PIECE = 100, 20
# Where there is enough, the work is split into so many pieces.
_PIECES = 16
# A second thread widens at least so many numbers.
_NUMBERS = 2**16
# The bytes of padded images, and of sums, that stay in a thread's cache.
_IMAGES, _SUMS = 2**18 + 2**17, 2**19
# The most elements of K whose gradients are computed together, if a channel hasn't more.
_ELEMENTS = 72
# The most rows of dY that are widened at a time.
_SEEDS = 64


def is_loaded() -> bool:
    """Whether the kernels have been imported."""
    return f"{__package__}.in_order" in sys.modules


def correlate_in_order(
    x: np.ndarray,
    k: np.ndarray,
    bias: np.ndarray,
    geometry: Geometry,
    out: np.ndarray,
    limit: float,
    phases: int = 1,
) -> np.ndarray:
    """Cross-correlation, where each sum has the order (channel, kernel row, kernel column), and then the bias.

    Args:
        x: (N, C, H, W), float32 or float64.
        k: (O, C/groups, h, w), of x's dtype, in any memory order.
        bias: (O,), float64.
        geometry: NCHW, with padding in integers.
        out: where to put the result (N, O, H', W'), C-contiguous.
        limit: what is nearer to zero becomes zero.
        phases: output channels that are so far apart are computed together. If they have zeros at the same elements of
            K, they save time.

    Returns:
        out.
    """
    kernels, x = compiled_module("in_order_result"), ready(x)
    plan = correlation_plan(x.shape, k.shape, geometry, phases)
    groups, blocks, _, elements, _ = plan.packed
    packed, kept = np.empty(plan.packed), np.empty((groups, blocks, elements), np.bool_)
    limits = np.array([limit, LEAST[x.dtype.name]])

    def pack(start: int, stop: int) -> None:
        kernels.pack(k, packed, kept, limits[1], phases, start, stop)

    threads.spread(pack, groups * blocks, at_once(packed[0, 0].size))

    def work(start: int, stop: int) -> None:
        inputs = x, packed, kept, phases, bias, out, limits
        kernels.correlate_pieces(*inputs, *plan.maps, plan.places, plan.layout, start, stop)

    threads.spread(work, plan.items, plan.chunk)
    return out


def gradient_in_order(x: np.ndarray, dy: np.ndarray, geometry: Geometry, out: np.ndarray) -> np.ndarray:
    """The gradient of K: each sum image by image and row by row, then the columns in a halving tree.

    Args:
        x: (N, C, H, W), float32 or float64.
        dy: (N, O, H', W'), of x's dtype.
        geometry: NCHW, with padding in integers.
        out: where to put the result (O, C/groups, h, w), C-contiguous and of x's dtype.

    Returns:
        out.
    """
    kernels, x, dy = compiled_module("in_order_gradient"), ready(x), ready(dy)
    plan = gradient_plan(x.shape, out.shape, geometry, threads.count())
    limits = np.array([LEAST[x.dtype.name]] * 2)

    def work(start: int, stop: int) -> None:
        kernels.gradient_pieces(x, dy, out, limits, *plan.maps, plan.layout, plan.packed[-1], start, stop)

    threads.spread(work, plan.items, plan.chunk)
    return out


def plane_sums_in_order(x: np.ndarray) -> np.ndarray:
    """The sums (N, O) in float64 of each plane of x (N, O, H, W): columns and rows in halving trees."""
    kernels, x = compiled_module("in_order_gradient"), ready(x)
    sums = np.empty(x.shape[:2])
    planes, flat = x.reshape(-1, *x.shape[2:]), sums.reshape(-1)

    def work(start: int, stop: int) -> None:
        kernels.plane_sums(planes, flat, start, stop)

    threads.spread(work, len(planes), at_once(planes[0].size))
    return sums


class Plan(NamedTuple):
    """How a kernel computes inputs of some shapes.

    Attributes:
        maps: which row and which column of the image stands where in a padded one; where in it the elements of K lie.
        places: for each vector of sums of a piece: where it begins in the padded images and in the result, and how
            many of its numbers are in the result.
        layout: the numbers `ROWS` to `ELEMENTS` of `in_order`.
        packed: K's shape in blocks of output channels: (groups, blocks, C/groups, h * w, channels of a block).
        items: how many pieces of work there are.
        chunk: how many of them a thread takes at a time.
    """

    maps: tuple[np.ndarray, np.ndarray, np.ndarray]
    places: np.ndarray
    layout: np.ndarray
    packed: tuple[int, int, int, int, int]
    items: int
    chunk: int


@functools.lru_cache(512)
def correlation_plan(x: tuple[int, ...], k: tuple[int, ...], geometry: Geometry, phases: int = 1) -> Plan:
    """How images of shape x and kernels of shape k are correlated; `phases` as in `correlate_in_order`."""
    maps, pitch = _maps(x, geometry)
    (images, _, _, _), (outputs, per_group, h, w) = x, k
    stride, groups, extent = geometry.stride[0], geometry.groups, geometry.extent[0]
    rows, columns = geometry.output_size((x[2], x[3]))
    lanes, share = compiled_module("in_order").LANES, outputs // groups // phases
    size = _block(share)
    across, blocks = -(-columns // lanes), phases * -(-share // size)
    computed = blocks * size
    cost = images * groups * rows * across * computed * per_group * h * w / _VECTORS_PER_MICROSECOND
    line = 8 * per_group * pitch
    band = max((_IMAGES // line - extent) // stride + 1, -(-6 // across), extent // 4)
    if cost > _PAYS:
        # There is work for each thread.
        band = min(band, max(-(-rows * images * groups * blocks // _PIECES), 4, extent // 4))
    band = max(1, min(band, rows))
    lines = (band - 1) * stride + extent
    bands = groups * -(-rows // band)
    # The vectors of small images are computed with those of the next.
    batch = max(1, min(images, _IMAGES // (line * lines), -(-24 // (rows * across)))) if band == rows else 1
    items = bands * -(-images // batch)
    parts = 1 if cost <= _PAYS else min(blocks, -(-_PIECES // items))
    places = [
        ((n * per_group * lines + i * stride) * pitch + j, (n * outputs * rows + i) * columns + j, columns - j)
        for n in range(batch)
        for i in range(band)
        for j in range(0, columns, lanes)
    ]
    starts = np.array(places, np.int64).clip((0, 0, 0), (2**62, 2**62, lanes)).ravel()
    layout = _layout(x, k, geometry, pitch, (band, lines, batch, parts, 1))
    packed = groups, blocks, per_group, h * w, size
    return Plan(maps, starts, layout, packed, items * parts, _chunk(items * parts, cost))


@functools.lru_cache(512)
def gradient_plan(x: tuple[int, ...], k: tuple[int, ...], geometry: Geometry, helpers: int) -> Plan:
    """How the gradient of kernels of shape k is computed from images of shape x, on so many threads at most."""
    maps, pitch = _maps(x, geometry)
    (images, _, _, _), (outputs, per_group, h, w) = x, k
    stride, groups, extent = geometry.stride[0], geometry.groups, geometry.extent[0]
    rows, columns = geometry.output_size((x[2], x[3]))
    lanes, size = compiled_module("in_order").LANES, _block(outputs // groups)
    across, blocks = -(-columns // lanes), -(-outputs // groups // size)
    elements = per_group * h * w
    cost = images * groups * rows * across * blocks * size * elements / _VECTORS_PER_MICROSECOND
    band = max(8, min((_IMAGES // (8 * pitch) - extent) // stride + 1, _SEEDS))
    band = max(1, min(band, rows))
    lines = (band - 1) * stride + extent
    batch = max(1, min(images, _SEEDS // rows, _IMAGES // (8 * pitch * lines))) if band == rows else 1
    channels = max(1, _IMAGES // (8 * pitch * lines * batch))
    sums = size * across * 8 * lanes
    some = min(channels * h * w, max(8, _SUMS // sums), max(_ELEMENTS, h * w))
    pieces = -(-elements // (some - some % (h * w) or some))  # of whole channels, if there is room
    parts = min(blocks, -(-blocks * sums * -(-elements // pieces) // _SUMS))
    if cost > _PAYS:
        parts = max(parts, min(blocks, -(-2 * helpers // (groups * pieces))))
        pieces = max(pieces, min(elements, -(-2 * helpers // (groups * parts))))
    layout = _layout(x, k, geometry, pitch, (band, lines, batch, parts, pieces))
    items = groups * parts * pieces
    packed = groups, blocks, per_group, h * w, size
    return Plan(maps, maps[0], layout, packed, items, items if cost <= _PAYS else 1)


def at_once(numbers: int) -> int:
    """How many pieces of work, each of which widens so many numbers, a thread takes at a time."""
    return max(1, _NUMBERS // numbers)


def _chunk(items: int, cost: float) -> int:
    """How many pieces of work a thread takes at a time, where all take `cost` microseconds."""
    return items if cost <= _PAYS else max(1, int(items * _PIECE / cost))


def _maps(x: tuple[int, ...], geometry: Geometry) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], int]:
    """The `Plan.maps` of an image, and the length of a padded row."""
    (h, w), (_, step), (dilation, spread) = geometry.kernel_size, geometry.stride, geometry.dilation
    _, columns = geometry.output_size((x[2], x[3]))
    down = border_indices(x[2], geometry.padding[0], geometry.padding_mode)
    right = border_indices(x[3], geometry.padding[1], geometry.padding_mode)
    lanes = compiled_module("in_order").LANES
    # A phase is long enough for whole vectors.
    phase = max(-(-len(right) // step), -(-columns // lanes) * lanes + (w - 1) * spread // step)
    offsets = phase_offsets(np.arange(w) * spread, step, phase)
    taps = np.arange(h)[:, None] * dilation * phase * step + offsets
    return (down, phase_by_phase(right, step, phase), taps.ravel()), phase * step


def _layout(
    x: tuple[int, ...], k: tuple[int, ...], geometry: Geometry, pitch: int, cut: tuple[int, int, int, int, int]
) -> np.ndarray:
    left, groups = geometry.padding[1][0], geometry.groups
    start, stop = (left, left + x[3]) if geometry.stride[1] == 1 else (0, 0)
    sizes = *geometry.output_size((x[2], x[3])), k[1], groups, k[0] // groups
    return np.array((*sizes, geometry.stride[0], pitch, start, stop, *cut), np.int64)


def _block(share: int) -> int:
    """How many output channels are computed together, for so many in a group."""
    size: int = compiled_module("in_order").CHANNELS if share > 1 else 1
    return size
