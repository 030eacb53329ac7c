"""Correlation and its gradients in the order of `reproducible=True`, as numba kernels.

Both kernels keep a block of sums of float64 in registers. Correlation: some output channels by some vectors of columns;
the sums go through all (channel, row, column) of K. Gradient of K: some output channels by some elements of K, for one
vector of columns; the sums go through all rows of the images. A block never splits a sum, so that its order is that of
a plain loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..dtypes import LEAST, LEAST_PRODUCT
from .vectors import REGISTER, Array, Emitter, inlined, ir, kernel

if TYPE_CHECKING:
    from llvmlite.ir import Value

# The numbers of a layout: the rows and columns of the kernel's windows; the channels of an image and of the result in a
# group, and the groups; how far apart two rows of windows are, in rows of a padded image; the length of such a row;
# where in it plain copies start and stop; the rows of windows in a band, and the rows of a padded image that they need;
# the images that are computed together; the pieces that a group's blocks of output channels are split into, and the
# pieces that a kernel's elements are split into.
(ROWS, COLUMNS, PER_GROUP, GROUPS, SHARE, STRIDE, PITCH, START, STOP, BAND, LINES, BATCH, BLOCKS, ELEMENTS) = range(14)
LANES = REGISTER // 8
# The blocks of sums, (output channels, vectors): of several output channels, and of a single one. AVX-512 has 32
# registers, AVX 16.
BLOCK, SINGLE = ((4, 6), (1, 8)) if REGISTER == 64 else ((4, 2), (1, 6))


def _is_wide(pointer: Value) -> bool:
    """Whether an array is of float64, where products are rounded, and not of float32."""
    return isinstance(pointer.type.pointee, ir.DoubleType)


def _flushed(e: Emitter, value: Value, limit: Value) -> Value:
    """The vector of float64 with +0 for all that is nearer to zero than a positive limit, a vector or a number."""
    above, below = (limit, e.subtract(e.zero, limit)) if not isinstance(limit, float) else map(e.splat, (limit, -limit))
    small = e.builder.and_(e.builder.fcmp_ordered("<", value, above), e.builder.fcmp_ordered(">", value, below))
    return e.builder.select(small, e.zero, value)


def _add_product(e: Emitter, total: Value, a: Value, b: Value, rounded: bool) -> None:
    """Add a * b to a variable. Unless the product is exact, it is rounded first, and counts as zero if it is tiny."""
    if not rounded:
        e.accumulate(total, a, b)
        return
    # Without flags, LLVM doesn't fuse the multiplication with the addition.
    product = _flushed(e, e.builder.fmul(a, b), LEAST_PRODUCT)
    e.builder.store(e.builder.fadd(e.builder.load(total), product), total)


def _masked(e: Emitter, name: str, vector: Value, result: Value, *arguments: Value) -> Value:
    """LLVM's masked load or store of a vector of float32 or float64."""
    bits = 64 if isinstance(vector.element, ir.DoubleType) else 32
    function = ir.FunctionType(result, [argument.type for argument in arguments])
    module, name = e.builder.module, f"llvm.masked.{name}.v{e.lanes}f{bits}.p0"
    declared = module.globals.get(name) or ir.Function(module, function, name)
    return e.builder.call(declared, arguments)


def _place(e: Emitter, pointer: Value, index: Value) -> tuple[Value, Value, Value]:
    """The type of as many elements of an array as e has lanes, the pointer to those from an index on, its alignment."""
    vector = ir.VectorType(pointer.type.pointee, e.lanes)
    align = ir.Constant(ir.IntType(32), 8 if _is_wide(pointer) else 4)
    return vector, e.builder.bitcast(e.builder.gep(pointer, [e.index(index)]), vector.as_pointer()), align


def _widened(e: Emitter, x: Value, index: Value, count: Value) -> Value:
    """The first `count` elements from an index on in float64, subnormal numbers as zero; zeros in the other lanes."""
    vector, place, align = _place(e, x, index)
    value = _masked(e, "load", vector, vector, place, align, e.mask(count), ir.Constant(vector, None))
    if _is_wide(x):
        return _flushed(e, value, LEAST["float64"])
    return _flushed(e, e.builder.fpext(value, e.vector), LEAST["float32"])


@inlined
def _widen(e: Emitter, out: Value, to: Value, x: Value, at: Value, count: Value) -> None:
    """Write elements of x in float64, and up to the next full vector zeros."""
    with e.loop(count, step=e.lanes) as i:
        value = _widened(e, x, e.index(at, i), e.index(count, e.times(-1, i)))
        e.store(value, out, e.index(to, i))


@inlined
def _check(e: Emitter, x: Value, count: Value, check: Value) -> None:
    """Make the check NaN if one of the first numbers of x isn't finite, else 0."""
    zeros = e.variable(e.zero)
    with e.loop(count, step=e.lanes) as i:
        e.accumulate(zeros, e.load(x, i), e.zero)
    e.builder.store(e.sum(e.builder.load(zeros)), check)


@inlined
def _widen_seeds(
    e: Emitter, seeds: Value, to: Value, outputs: Value, dy: Value, at: Value, step: Value, rows: Value, apart: Value,
    some: Value, count: Value,
) -> None:  # fmt: skip
    """Write the first `count` numbers of some output channels' rows of dY; rows have room for `outputs` vectors."""
    with e.loop(rows) as i, e.loop(some) as o:
        value = _widened(e, dy, e.index(at, e.times(i, step), e.times(o, apart)), count)
        e.store(value, seeds, e.times(e.index(to, e.times(i, outputs), o), e.lanes))


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
            value = _flushed(e, value, limit)
            value = e.builder.select(is_nan, e.splat(math.nan), value)
            if not _is_wide(y):
                value = e.builder.fptrunc(value, vector)
            target = e.index(at, e.times(r, step), e.number(places, e.index(place, 1)))
            _, pointer, align = _place(e, y, target)
            mask = e.mask(e.number(places, e.index(place, 2)))
            _masked(e, "store", vector, ir.VoidType(), value, pointer, align, mask)


def _tile(block: tuple[int, int]) -> Any:
    """The function that computes a block's output channels by up to as many vectors of columns as it has."""
    outputs, most = block

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
                        _add_product(e, total, weight, pixel, _is_wide(raw))
            for o, row in enumerate(totals):
                for v, total in enumerate(row):
                    e.store(e.builder.load(total), sums, e.index((o * vectors + v) * e.lanes))

        _by_count(e, count, most, compute)

    return inlined(emit)


def _products(block: tuple[int, int]) -> Any:
    """The function that adds what some rows contribute to the gradient of up to so many elements of K."""
    outputs, most = block

    def emit(
        e: Emitter, x: Value, raw: Value, at_x: Value, step: Value, shifts: Value, first: Value, count: Value,
        seeds: Value, images: Value, rows: Value, plane: Value, totals: Value, at: Value, apart: Value,
    ) -> None:  # fmt: skip
        def compute(taps: int) -> None:
            starts = [e.index(at_x, e.number(shifts, e.index(first, t))) for t in range(taps)]
            places = [[e.index(at, e.times(t * outputs + o, apart)) for o in range(outputs)] for t in range(taps)]
            sums = [[e.variable(e.load(totals, place)) for place in row] for row in places]
            with e.loop(images) as n, e.loop(rows) as i:
                seed = e.times(e.index(e.times(n, rows), i), outputs)
                factors = [e.load(seeds, e.times(e.index(seed, o), e.lanes)) for o in range(outputs)]
                for row, start in zip(sums, starts, strict=True):
                    pixel = e.load(x, e.index(start, e.times(n, plane), e.times(i, step)))
                    for total, factor in zip(row, factors, strict=True):
                        _add_product(e, total, factor, pixel, _is_wide(raw))
            for row, to in zip(sums, places, strict=True):
                for total, place in zip(row, to, strict=True):
                    e.store(e.builder.load(total), totals, place)

        _by_count(e, count, most, compute)

    return inlined(emit)


def _by_count(e: Emitter, count: Value, most: int, body: Callable[[int], None]) -> None:
    """Run body(count), written out for each count from 1 to `most`."""
    for size in range(1, most + 1):
        with e.builder.if_then(e.builder.icmp_signed("==", e.index(count), e.index(size))):
            body(size)


_tile_block, _tile_single = _tile(BLOCK), _tile(SINGLE)
_products_block, _products_single = _products(BLOCK), _products(SINGLE)


@kernel
def pack(k: Array, packed: Array, kept: Array, least: float, apart: int) -> None:
    """Write K (O, C/groups, h, w) in float64 as (groups, blocks, C/groups, h * w, output channels of a block).

    The output channels of a block are `apart` from each other. `kept` (groups, blocks, h * w) becomes whether there is
    a number other than zero.
    """
    outputs, per_group, h, w = k.shape
    groups, blocks, _, _, size = packed.shape
    share = outputs // groups
    kept[:] = False
    for group in range(groups):
        for block in range(blocks):
            first = block // apart * size * apart + block % apart
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
def _gather(
    x: Array, at: int, width: int, channels: int, height: int, down: Array, right: Array, first: int, lines: int,
    start: int, stop: int, least: float, out: Array, begin: int,
) -> None:  # fmt: skip
    """Write lines of some channels of a padded image in float64, their columns in the layout's order."""
    pitch = len(right)
    for c in range(channels):
        for r in range(lines):
            row, to = down[first + r], begin + (c * lines + r) * pitch
            if row < 0:
                for t in range(pitch):
                    out[to + t] = 0.0
                continue
            source = at + (c * height + row) * width
            if start < stop:
                _widen(out, to + start, x, source, stop - start)
            for t in range(start):
                value = x[source + right[t]] if right[t] >= 0 else 0.0
                out[to + t] = 0.0 if abs(value) < least else value
            for t in range(stop, pitch):
                value = x[source + right[t]] if right[t] >= 0 else 0.0
                out[to + t] = 0.0 if abs(value) < least else value


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
    sums = np.empty(BLOCK[0] * (BLOCK[1] + SINGLE[1]) * LANES)
    scratch[-2 * LANES :] = 0.0
    taps, check = np.empty(per_channel, np.int64), np.zeros(1)
    across, gathered = -(-columns // LANES), -1
    most = BLOCK[1] if size > 1 else SINGLE[1]
    for item in range(start, stop):
        place, piece = item // pieces, item % pieces
        first, group, image = place % bands * band, place // bands % groups, place // bands // groups * batch
        count, many = min(band, rows - first), min(batch, images - image)
        plane = (lines - (band - count) * stride) * pitch
        if place != gathered:
            gathered = place
            for n in range(many):
                at = ((image + n) * groups + group) * per_group * height * width
                _gather(
                    flat_x, at, width, per_group, height, down, right, first * stride, plane // pitch, layout[START],
                    layout[STOP], limits[1], scratch, n * per_group * plane,
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


@kernel
def _halve(numbers: Array, at: int, length: int) -> None:
    """Add up numbers in a halving tree; the sum is then the first of them."""
    while length > 1:
        half = (length + 1) // 2
        for i in range(length - half):
            numbers[at + i] += numbers[at + half + i]
        length = half


@kernel
def _narrowed(value: float, limit: float) -> float:
    if value != value:
        return math.nan
    return 0.0 if abs(value) < limit else value


@kernel
def _add_rows(
    x: Array, raw: Array, shifts: Array, step: int, plane: int, dy: Array, at: int, area: int, outputs: int,
    columns: int, some: int, images: int, rows: int, seeds: Array, size: int, totals: Array, to: int,
) -> None:  # fmt: skip
    """Add what rows of some images contribute to the gradient of some elements of K, for a block of output channels."""
    apart, most = -(-columns // LANES) * LANES, BLOCK[1] if size > 1 else SINGLE[1]
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
                    x, raw, v, step, shifts, t, count, seeds, images, rows, plane, totals, place, apart
                )  # fmt: skip
            else:
                _products_block(
                    x, raw, v, step, shifts, t, count, seeds, images, rows, plane, totals, place, apart
                )  # fmt: skip


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
    totals = np.empty(broadest * longest * size * apart)
    shifts = np.empty(longest, np.int64)
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
                    _gather(
                        flat_x, at, width, deep, height, down, right, top * stride, plane // pitch, layout[START],
                        layout[STOP], limits[1], scratch, n * deep * plane,
                    )  # fmt: skip
                for t in range(first, last):
                    shifts[t - first] = (t // per_channel - channel) * plane + taps[t % per_channel]
                for block in range(begin, end):
                    output, at_block = group * share + block * size, (block - begin) * longest * size * apart
                    at = ((image * outputs + output) * rows + top) * columns
                    _add_rows(
                        scratch, flat_x, shifts[: last - first], stride * pitch, deep * plane, flat_dy, at,
                        rows * columns, outputs, columns, min(size, share - block * size), many, count, seeds, size,
                        totals, at_block,
                    )  # fmt: skip
        for o in range(begin * size, min(end * size, share)):
            for t in range(first, last):
                at = (((o // size - begin) * longest + t - first) * size + o % size) * apart
                _halve(totals, at, columns)
                flat_out[(group * share + o) * elements + t] = _narrowed(totals[at], limits[0])


@kernel
def plane_sums(x: Array, sums: Array, start: int, stop: int) -> None:
    """The sums of planes start to stop of x (planes, H, W): columns in a halving tree, then rows in a halving tree."""
    _, rows, columns = x.shape
    flat = x.reshape(-1)
    line, column = np.empty(columns + LANES), np.empty(rows)
    for plane in range(start, stop):
        for row in range(rows):
            _widen(line, 0, flat, (plane * rows + row) * columns, columns)
            _halve(line, 0, columns)
            column[row] = line[0]
        _halve(column, 0, rows)
        sums[plane] = column[0]
