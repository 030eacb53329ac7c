"""The gradients of K and of the bias in the order of `reproducible=True`, as numba kernels.

A block of sums is some output channels by some elements of K, for one vector of columns; they go through all rows of
the images. The columns are added up at the end.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .in_order import (
    ALONE,
    BAND,
    BATCH,
    BLOCKS,
    CHANNELS,
    ELEMENTS,
    LANES,
    LINES,
    PITCH,
    START,
    STOP,
    STRIDE,
    TAPS,
    add_product,
    by_count,
    gather_widened,
    is_float64,
    load_widened,
    widen_row,
)
from .pointers import JOB, A, B, Y, doubles, integers, pointer, stage_array, tensor
from .vectors import Array, Emitter, inlined, kernel, transposed_square

if TYPE_CHECKING:  # numba's type hints are incomplete
    numba: Any

    from llvmlite.ir import Value
else:
    import numba


@inlined
def _widen_seeds(
    e: Emitter, seeds: Value, to: Value, outputs: Value, dy: Value, at: Value, step: Value, rows: Value, apart: Value,
    some: Value, count: Value,
) -> None:  # fmt: skip
    """Write the first `count` numbers of some output channels' rows of dY; rows have room for `outputs` vectors."""
    with e.loop(rows) as i, e.loop(some) as o:
        value = load_widened(e, dy, e.index(at, e.times(i, step), e.times(o, apart)), count)
        e.store(value, seeds, e.times(e.index(to, e.times(i, outputs), o), e.lanes))


@inlined
def _columns(e: Emitter, sums: Value, at: Value, apart: Value, columns: Value, out: Value) -> None:
    """Write the columns of as many rows of sums as a vector has lanes, each a vector."""
    with e.loop(columns, step=e.lanes) as j:
        rows = [e.load(sums, e.index(at, j, e.times(i, apart))) for i in range(e.lanes)]
        for i, column in enumerate(transposed_square(e, rows)):
            e.store(column, out, e.times(e.index(j, i), e.lanes))


@inlined
def _add_vectors(e: Emitter, numbers: Value, half: Value, count: Value) -> None:
    """Add `count` vectors, from vector `half` on, to the first ones."""
    with e.loop(count) as i:
        total = e.add(e.load(numbers, e.times(i, e.lanes)), e.load(numbers, e.times(e.index(half, i), e.lanes)))
        e.store(total, numbers, e.times(i, e.lanes))


def _products(outputs: int, most: int) -> Any:
    """The function that adds what rows contribute to the gradients of so many output channels by up to so many taps."""

    def emit(
        e: Emitter, x: Value, raw: Value, at_x: Value, lines: Value, rows: Value, shifts: Value, first: Value,
        count: Value, seeds: Value, totals: Value, at: Value, apart: Value,
    ) -> None:  # fmt: skip
        def compute(taps: int) -> None:
            starts = [e.index(at_x, e.number(shifts, e.index(first, t))) for t in range(taps)]
            places = [[e.index(at, e.times(t * outputs + o, apart)) for o in range(outputs)] for t in range(taps)]
            sums = [[e.variable(e.load(totals, place)) for place in row] for row in places]
            with e.loop(rows) as i:
                line = e.number(lines, i)
                factors = [e.load(seeds, e.times(e.index(e.times(i, outputs), o), e.lanes)) for o in range(outputs)]
                for row, start in zip(sums, starts, strict=True):
                    pixel = e.load(x, e.index(start, line))
                    for total, factor in zip(row, factors, strict=True):
                        add_product(e, total, factor, pixel, is_float64(raw))
            for row, to in zip(sums, places, strict=True):
                for total, place in zip(row, to, strict=True):
                    e.store(e.builder.load(total), totals, place)

        by_count(e, count, most, compute)

    return inlined(emit)


_products_block, _products_single = _products(CHANNELS, TAPS), _products(1, ALONE)


@kernel
def _halve(numbers: Array, at: int, length: int) -> None:
    """Add up numbers in a halving tree; the sum is then the first of them."""
    while length > 1:
        half = (length + 1) // 2
        for i in range(length - half):
            numbers[at + i] += numbers[at + half + i]
        length = half


@kernel
def _add_rows(
    x: Array, raw: Array, shifts: Array, places: Array, dy: Array, at: int, area: int, outputs: int,
    columns: int, some: int, images: int, rows: int, seeds: Array, size: int, totals: Array, to: int,
) -> None:  # fmt: skip
    """Add what rows of some images contribute to the gradient of some elements of K, for a block of output channels."""
    apart, most = -(-columns // LANES) * LANES, TAPS if size > 1 else ALONE
    tiles = -(-len(shifts) // most)
    for v in range(0, columns, LANES):
        for n in range(images):
            place = at + n * outputs * area + v
            _widen_seeds(
                seeds, n * rows * size, size, dy, place, columns, rows, area, some, min(LANES, columns - v)
            )  # fmt: skip
        for tile in range(tiles):
            t = tile * len(shifts) // tiles
            count, place = (tile + 1) * len(shifts) // tiles - t, to + t * size * apart + v
            if size == 1:
                _products_single(
                    x, raw, v, places, images * rows, shifts, t, count, seeds, totals, place, apart
                )  # fmt: skip
            else:
                _products_block(
                    x, raw, v, places, images * rows, shifts, t, count, seeds, totals, place, apart
                )  # fmt: skip


@kernel
def _write_sums(
    totals: Array, columns: int, outputs: int, longest: int, size: int, some: int, out: Array, at: int, elements: int,
    limit: float, by_column: Array,
) -> None:  # fmt: skip
    """Write the sums over the columns of totals (blocks, longest, size, columns) in out (outputs, elements).

    The first `some` of each block's elements are written. A vector holds the same column of several sums.
    """
    apart = -(-columns // LANES) * LANES
    output, slot, t, number = 0, 0, 0, 0
    while output < outputs:
        _columns(totals, number * apart, apart, columns, by_column)
        length = columns
        while length > 1:
            half = (length + 1) // 2
            _add_vectors(by_column, half, length - half)
            length = half
        for lane in range(LANES):
            if output + slot < outputs and t < some:
                value = by_column[lane]
                if value != value:
                    value = math.nan
                out[at + (output + slot) * elements + t] = 0.0 if abs(value) < limit else value
            slot += 1
            if slot == size:
                slot, t = 0, t + 1
                if t == longest:
                    t, output = 0, output + size
        number += LANES


@kernel
def gradient_pieces(
    x: Array, dy: Array, out: Array, limits: Array, down: Array, right: Array, taps: Array, layout: Array, size: int,
    start: int, stop: int,
) -> None:  # fmt: skip
    """Compute pieces start to stop of the gradient of K (O, C/groups, h, w): some output channels by some elements."""
    rows, columns, per_group, groups, share = layout[0], layout[1], layout[2], layout[3], layout[4]
    stride, pitch, band, lines = layout[STRIDE], layout[PITCH], layout[BAND], layout[LINES]
    batch, parts, pieces = layout[BATCH], layout[BLOCKS], layout[ELEMENTS]
    images, _, height, width = x.shape
    per_channel, blocks, outputs = len(taps), -(-share // size), groups * share
    elements, apart = per_group * per_channel, -(-columns // LANES) * LANES
    flat_x, flat_dy, flat_out = x.reshape(-1), dy.reshape(-1), out.reshape(-1)
    longest, broadest = -(-elements // pieces), -(-blocks // parts)
    deepest = min(per_group, (longest + per_channel - 2) // per_channel + 1)
    scratch = np.empty(batch * deepest * lines * pitch + 2 * LANES)
    seeds = np.zeros(batch * band * size * LANES)
    totals = np.empty((broadest * longest * size + LANES) * apart)
    by_column, pixels = np.empty(apart * LANES), np.zeros(width + LANES + 1)
    shifts, places = np.empty(longest, np.int64), np.empty(batch * band, np.int64)
    for item in range(start, stop):
        group, part, piece = item // pieces // parts, item // pieces % parts, item % pieces
        first, last = piece * elements // pieces, (piece + 1) * elements // pieces
        channel, deep = first // per_channel, (last - 1) // per_channel + 1 - first // per_channel
        begin, end = part * blocks // parts, (part + 1) * blocks // parts
        totals[:] = 0.0
        for image in range(0, images, batch):
            many = min(batch, images - image)
            for top in range(0, rows, band):
                count = min(band, rows - top)
                plane = (lines - (band - count) * stride) * pitch
                for n in range(many):
                    at = (((image + n) * groups + group) * per_group + channel) * height * width
                    gather_widened(
                        flat_x, at, width, deep, height, down, right, top * stride, plane // pitch, layout[START],
                        layout[STOP], limits[1], scratch, n * deep * plane, pixels,
                    )  # fmt: skip
                    for i in range(count):
                        places[n * count + i] = n * deep * plane + i * stride * pitch
                for t in range(first, last):
                    shifts[t - first] = (t // per_channel - channel) * plane + taps[t % per_channel]
                for block in range(begin, end):
                    output, at_block = group * share + block * size, (block - begin) * longest * size * apart
                    at = ((image * outputs + output) * rows + top) * columns
                    _add_rows(
                        scratch, flat_x, shifts[: last - first], places, flat_dy, at, rows * columns, outputs, columns,
                        min(size, share - block * size), many, count, seeds, size, totals, at_block,
                    )  # fmt: skip
        _write_sums(
            totals, columns, min(end * size, share) - begin * size, longest, size, last - first, flat_out,
            (group * share + begin * size) * elements + first, elements, limits[0], by_column,
        )  # fmt: skip


@kernel
def plane_sums(x: Array, sums: Array, start: int, stop: int) -> None:
    """The sums of planes start to stop of x (planes, H, W): columns in a halving tree, then rows in a halving tree."""
    _, rows, columns = x.shape
    flat = x.reshape(-1)
    line, column = np.empty(columns + LANES), np.empty(rows)
    for plane in range(start, stop):
        for row in range(rows):
            widen_row(line, 0, flat, (plane * rows + row) * columns, columns)
            _halve(line, 0, columns)
            column[row] = line[0]
        _halve(column, 0, rows)
        sums[plane] = column[0]


def gradient_in_order_stage(first: Any, job: int, start: int, stop: int) -> int:
    """`gradient_pieces` for native code (`convlab.compiled.stages`)."""
    like = numba.carray(first, (1,))
    x, dy, out = tensor(job, A, 0, like), tensor(job, B, 1, like), tensor(job, Y, 2, like)
    down, right, taps = stage_array(job, 4), stage_array(job, 5), stage_array(job, 6)
    layout, size = stage_array(job, 7), stage_array(job, 8)[0]
    gradient_pieces(x, dy, out, doubles(job, 3), down, right, taps, layout, size, start, stop)
    return 0


def plane_sums_stage(first: Any, job: int, start: int, stop: int) -> int:
    """`plane_sums` for native code; the result is float64."""
    x = tensor(job, A, 0, numba.carray(first, (1,)))
    images, channels, rows, columns = x.shape
    sums = numba.carray(pointer(integers(job, JOB)[Y]), (images * channels,), np.float64)
    plane_sums(x.reshape((images * channels, rows, columns)), sums, start, stop)
    return 0
