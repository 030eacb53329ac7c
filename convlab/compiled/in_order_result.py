"""Correlation in the order of `reproducible=True`, as numba kernels.

A block of sums is some output channels by some vectors of columns; they go through all (channel, row, column) of K.
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
    LANES,
    LINES,
    PITCH,
    START,
    STOP,
    STRIDE,
    VECTORS,
    add_product,
    by_count,
    flushed,
    gather_widened,
    is_float64,
    vector_at,
)
from .pointers import JOB, SPACE, A, B, C, Y, doubles, integers, pointer, stage_array, sums, tensor
from .vectors import Array, Emitter, inlined, ir, kernel

if TYPE_CHECKING:  # numba's type hints are incomplete
    numba: Any

    from llvmlite.ir import Value
else:
    import numba


@inlined
def _check(e: Emitter, x: Value, count: Value, check: Value) -> None:
    """Make the check NaN if one of the first numbers of x isn't finite, else 0."""
    zeros = e.variable(e.zero)
    with e.loop(count, step=e.lanes) as i:
        e.accumulate(zeros, e.load(x, i), e.zero)
    e.builder.store(e.sum(e.builder.load(zeros)), check)


@inlined
def _narrow(
    e: Emitter, sums: Value, y: Value, at: Value, step: Value, limit: Value, bias: Value, output: Value, apart: Value,
    places: Value, first: Value, rows: Value, count: Value,
) -> None:  # fmt: skip
    """Store rows of `count` vectors of sums in y, each with a bias, rounded to y's dtype.

    Numbers below the limit become +0, and every NaN the same one.
    """
    limit, vector = e.splat(e.number(limit, e.index(0))), ir.VectorType(y.type.pointee, e.lanes)
    with e.loop(rows) as r:
        addend = e.splat(e.number(bias, e.index(output, e.times(r, apart))))
        with e.loop(count) as v:
            place = e.times(e.index(first, v), 3)
            value = e.builder.fadd(e.load(sums, e.times(e.index(e.times(r, count), v), e.lanes)), addend)
            is_nan = e.builder.fcmp_unordered("uno", value, value)
            value = flushed(e, value, limit)
            value = e.builder.select(is_nan, e.splat(math.nan), value)
            if not is_float64(y):
                value = e.builder.fptrunc(value, vector)
            target = e.index(at, e.times(r, step), e.number(places, e.index(place, 1)))
            _, pointer, align = vector_at(e, y, target)
            mask = e.mask(e.number(places, e.index(place, 2)))
            e.masked("store", vector, ir.VoidType(), value, pointer, align, mask)


def _tile(outputs: int, most: int) -> Any:
    """The function that computes so many output channels by up to so many vectors of columns."""

    def emit(
        e: Emitter, x: Value, raw: Value, places: Value, first: Value, count: Value, k: Value, at_k: Value, taps: Value,
        shifts: Value, some: Value, channels: Value, per_channel: Value, plane: Value, sums: Value,
    ) -> None:  # fmt: skip
        def compute(vectors: int) -> None:
            starts = [e.number(places, e.times(e.index(first, v), 3)) for v in range(vectors)]
            totals = [[e.variable(e.zero) for _ in starts] for _ in range(outputs)]
            with e.loop(channels) as c, e.loop(some) as t:
                tap = e.number(taps, t)
                shift = e.index(e.times(c, plane), e.number(shifts, tap))
                pixels = [e.load(x, e.index(start, shift)) for start in starts]
                at = e.index(at_k, e.times(e.index(e.times(c, per_channel), tap), outputs))
                for o, row in enumerate(totals):
                    weight = e.splat(e.number(k, e.index(at, o)))
                    for total, pixel in zip(row, pixels, strict=True):
                        add_product(e, total, weight, pixel, is_float64(raw))
            for o, row in enumerate(totals):
                for v, total in enumerate(row):
                    e.store(e.builder.load(total), sums, e.index((o * vectors + v) * e.lanes))

        by_count(e, count, most, compute)

    return inlined(emit)


_tile_block, _tile_single = _tile(CHANNELS, VECTORS), _tile(1, ALONE)


@kernel
def pack(k: Array, packed: Array, kept: Array, least: float, apart: int, start: int, stop: int) -> None:
    """Write blocks of K (O, C/groups, h, w) in float64 as (groups, blocks, C/groups, h * w, channels of a block).

    Start and stop are blocks of all groups. The output channels of a block are `apart` from each other. `kept` (groups,
    blocks, h * w) becomes whether there is a number other than zero.
    """
    outputs, per_group, h, w = k.shape
    groups, blocks, _, _, size = packed.shape
    share = outputs // groups
    for item in range(start, stop):
        group, block = item // blocks, item % blocks
        first = block // apart * size * apart + block % apart
        kept[group, block] = False
        for c in range(per_group):
            for p in range(h):
                for q in range(w):
                    for o in range(size):
                        output, value = first + o * apart, 0.0
                        if output < share:
                            value = k[group * share + output, c, p, q]
                        value = 0.0 if abs(value) < least else value
                        packed[group, block, c, p * w + q, o] = value
                        if value != 0.0:
                            kept[group, block, p * w + q] = True


@kernel
def correlate_pieces(
    x: Array, k: Array, kept: Array, apart: int, bias: Array, y: Array, limits: Array, down: Array, right: Array,
    shifts: Array, places: Array, layout: Array, start: int, stop: int,
) -> None:  # fmt: skip
    """Compute pieces start to stop of y (N, O, H', W'): some output channels in a band of rows of some images.

    k, `kept` and `apart` are as in `pack`; `limits` are the least numbers of the result and of x that count; for each
    vector of a piece, `places` has where it starts in the padded images and in y, and how many numbers of it are in y.

    Zeros of K that a whole block has are left out where the images are finite, since they don't change any sum there.
    """
    rows, columns, per_group, groups, share = layout[0], layout[1], layout[2], layout[3], layout[4]
    stride, pitch, band, lines = layout[STRIDE], layout[PITCH], layout[BAND], layout[LINES]
    batch, pieces = layout[BATCH], layout[BLOCKS]
    images, _, height, width = x.shape
    size, per_channel, blocks, bands = k.shape[4], len(shifts), k.shape[1], -(-rows // band)
    flat_x, flat_k, flat_y = x.reshape(-1), k.reshape(-1), y.reshape(-1)
    scratch = np.empty(batch * per_group * lines * pitch + 2 * LANES)
    sums = np.empty(max(CHANNELS * VECTORS, ALONE) * LANES)
    scratch[-2 * LANES :] = 0.0
    taps, check, pixels = np.empty(per_channel, np.int64), np.zeros(1), np.zeros(width + LANES + 1)
    across, gathered = -(-columns // LANES), -1
    most = VECTORS if size > 1 else ALONE
    for item in range(start, stop):
        place, piece = item // pieces, item % pieces
        first, group, image = place % bands * band, place // bands % groups, place // bands // groups * batch
        count, many = min(band, rows - first), min(batch, images - image)
        plane = (lines - (band - count) * stride) * pitch
        if place != gathered:
            gathered = place
            for n in range(many):
                at = ((image + n) * groups + group) * per_group * height * width
                gather_widened(
                    flat_x, at, width, per_group, height, down, right, first * stride, plane // pitch, layout[START],
                    layout[STOP], limits[1], scratch, n * per_group * plane, pixels,
                )  # fmt: skip
            _check(scratch, many * per_group * plane, check)
        vectors = many * count * across
        tiles = -(-vectors // most)
        for block in range(piece * blocks // pieces, (piece + 1) * blocks // pieces):
            at_k = (group * blocks + block) * per_group * per_channel * size
            output = block // apart * size * apart + block % apart
            outputs = min(size, (share - output + apart - 1) // apart)
            output += group * share
            at_y = ((image * groups * share + output) * rows + first) * columns
            some = 0
            for t in range(per_channel):
                if kept[group, block, t] or check[0] != 0.0:
                    taps[some] = t
                    some += 1
            for tile in range(tiles):
                v = tile * vectors // tiles
                wide = (tile + 1) * vectors // tiles - v
                if size == 1:
                    _tile_single(
                        scratch, flat_x, places, v, wide, flat_k, at_k, taps, shifts, some, per_group, per_channel,
                        plane, sums,
                    )  # fmt: skip
                else:
                    _tile_block(
                        scratch, flat_x, places, v, wide, flat_k, at_k, taps, shifts, some, per_group, per_channel,
                        plane, sums,
                    )  # fmt: skip
                _narrow(
                    sums, flat_y, at_y, apart * rows * columns, limits, bias, output, apart, places, v, outputs, wide
                )  # fmt: skip


def pack_stage(first: Any, job: int, start: int, stop: int) -> int:
    """`pack` for native code (`convlab.compiled.stages`); the blocks and `kept` are in the job's space."""
    like, packed = numba.carray(first, (1,)), sums(job, 1)
    apart = stage_array(job, 3)[0]
    pack(tensor(job, B, 0, like), packed, _kept(job, packed), doubles(job, 2)[1], apart, start, stop)
    return 0


def result_stage(first: Any, job: int, start: int, stop: int) -> int:
    """`correlate_pieces` for native code, after `pack_stage`."""
    like = numba.carray(first, (1,))
    _correlate_packed(job, like, tensor(job, Y, 2, like), start, stop)
    return 0


def unrounded_result_stage(first: Any, job: int, start: int, stop: int) -> int:
    """`result_stage` with a result of float64."""
    _correlate_packed(job, numba.carray(first, (1,)), tensor(job, Y, 2, sums(job, 1)), start, stop)
    return 0


@kernel
def _correlate_packed(job: int, like: Array, y: Array, start: int, stop: int) -> None:
    x, packed, limits, apart = tensor(job, A, 0, like), sums(job, 1), doubles(job, 3), stage_array(job, 4)[0]
    bias = numba.carray(pointer(integers(job, JOB)[C]), (y.shape[1],), np.float64)
    down, right, shifts = stage_array(job, 5), stage_array(job, 6), stage_array(job, 7)
    places, layout = stage_array(job, 8), stage_array(job, 9)
    correlate_pieces(
        x, packed, _kept(job, packed), apart, bias, y, limits, down, right, shifts, places, layout, start, stop
    )


@kernel
def _kept(job: int, packed: Array) -> Array:
    """The array `kept` of `pack`, which lies after the blocks."""
    place = pointer(integers(job, JOB)[SPACE] + 8 * packed.size)
    kept: Array = numba.carray(place, (packed.shape[0], packed.shape[1], packed.shape[3]), np.bool_)
    return kept
