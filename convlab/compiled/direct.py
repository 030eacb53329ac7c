"""Direct correlation and its gradient with respect to the kernel, as numba kernels.

Both keep a block of 4 by 4 vectors of sums in registers. Correlation: 4 rows of y by 4 vectors of columns; a vector of
x, once loaded, serves the 4 rows, with a different row of k for each. Gradient: 4 rows of k by 4 columns; a vector of x
serves the 4 rows with a different row of dy for each, and a vector of dy the 4 columns.

All of them compute only true products: rows of a block that a row of x doesn't reach are left out, not multiplied by 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .pointers import A, B, Pointer, Y, stored, sums, tensor
from .vectors import ABREAST, REGISTER, Array, Emitter, inlined, kernel, move

if TYPE_CHECKING:  # numba's type hints are incomplete
    numba: Any

    from llvmlite.ir import Value
else:
    import numba

# The numbers of a layout: the rows' stride and dilation; the length of a gathered row, 0 if x is read in place; where
# in that row plain copies start and stop, and how far back in x they are; the rows of a band.
STRIDE, DILATION, PITCH, START, STOP, SHIFT, BAND = range(7)
_ROWS = 4


def _tile(abreast: int, masked: bool) -> Value:
    """The numba function that computes up to 4 rows of y by `abreast` vectors, or if masked their first `columns`."""

    def emit(
        e: Emitter, x: Value, at_x: Value, step_x: Value, k: Value, at_k: Value, offsets: Value, y: Value,
        at_y: Value, step_y: Value, h: Value, w: Value, rows: Value, columns: Value, first: Value,
    ) -> None:  # fmt: skip
        starts = [v * e.lanes for v in range(abreast)]
        masks = [e.mask(e.index(columns, -start)) if masked else None for start in starts]
        sums = [[e.variable(e.zero) for _ in starts] for _ in range(_ROWS)]

        def each_row(visit: Value) -> None:
            for r in range(_ROWS):
                with e.builder.if_then(e.less(r, rows)):
                    row = e.index(at_y, e.times(r, step_y))
                    for total, start, mask in zip(sums[r], starts, masks, strict=True):
                        visit(total, e.index(row, start), mask)

        with e.builder.if_then(e.less(first, 1)):
            each_row(lambda total, at, mask: e.builder.store(e.load(y, at, mask), total))
        with e.loop(e.index(h, rows, -1)) as m:

            def add_row(block: range) -> None:
                with e.loop(w) as q:
                    at = e.index(at_x, e.times(m, step_x), e.number(offsets, q))
                    pixels = [e.load(x, e.index(at, start), mask) for start, mask in zip(starts, masks, strict=True)]
                    for r in block:
                        weight = e.splat(e.number(k, e.index(at_k, e.times(e.index(m, -r), w), q)))
                        for total, pixel in zip(sums[r], pixels, strict=True):
                            e.accumulate(total, weight, pixel)

            # For row r of y, row m of x meets row m - r of k.
            e.ranges(e.largest(0, e.index(m, 1, e.times(-1, h))), e.least(m, e.index(rows, -1)), _ROWS, add_row)
        each_row(lambda total, at, mask: e.store(e.builder.load(total), y, at, mask))

    return inlined(emit)


def _products(across: int) -> Value:
    """The numba function that adds the gradients of up to 4 rows by so many columns of k to float64 sums."""

    def emit(
        e: Emitter, x: Value, at_x: Value, step_x: Value, offsets: Value, at_q: Value, dy: Value,
        at_dy: Value, step_dy: Value, rows: Value, columns: Value, taps: Value, total: Value, at_total: Value, w: Value,
    ) -> None:  # fmt: skip
        shifts = [e.number(offsets, e.index(at_q, q)) for q in range(across)]
        sums = [[e.variable(e.zero) for _ in range(across)] for _ in range(_ROWS)]
        with e.loop(e.index(rows, taps, -1)) as m:

            def add_row(block: range) -> None:
                with e.loop(columns, step=e.lanes) as j:
                    mask = e.mask(e.index(columns, e.times(-1, j)))
                    at = e.index(at_x, e.times(m, step_x), j)
                    pixels = [e.load(x, e.index(at, shift), mask) for shift in shifts]
                    for p in block:
                        factor = e.load(dy, e.index(at_dy, e.times(e.index(m, -p), step_dy), j), mask)
                        for q, pixel in enumerate(pixels):
                            e.accumulate(sums[p][q], factor, pixel)

            # For row p of k, row m of x meets row m - p of dy.
            e.ranges(e.largest(0, e.index(m, 1, e.times(-1, rows))), e.least(m, e.index(taps, -1)), _ROWS, add_row)
        for p in range(_ROWS):
            with e.builder.if_then(e.less(p, taps)):
                for q in range(across):
                    place = e.builder.gep(total, [e.index(at_total, e.times(p, w), q)])
                    e.builder.store(e.add(e.builder.load(place), e.sum(e.builder.load(sums[p][q]))), place)

    return inlined(emit)


_wide, _tail_wide, _tail_two, _tail_one = _tile(ABREAST, False), _tile(ABREAST, True), _tile(2, True), _tile(1, True)
_products_1, _products_2, _products_3, _products_4 = map(_products, (1, 2, 3, 4))


@kernel
def padded_row(
    x: Array, at: int, right: Array, first: int, count: int, start: int, stop: int, shift: int, out: Array, to: int
) -> None:
    """Write positions first to first + count of a padded row of x; from start to stop they are x itself, shifted."""
    lanes = REGISTER // x.itemsize
    start, last = max(start, first), first + count
    stop = max(min(stop, last), start)
    for t in range(first, min(start, last)):
        out[to + t - first] = x[at + right[t]] if right[t] >= 0 else 0
    t = start
    while t + lanes <= stop:
        move(x, at + t + shift, out, to + t - first)
        t += lanes
    for rest in range(t, stop):
        out[to + rest - first] = x[at + rest + shift]
    for t in range(stop, last):
        out[to + t - first] = x[at + right[t]] if right[t] >= 0 else 0


@kernel
def gather(
    x: Array, at: int, width: int, down: Array, right: Array, first: int, rows: int, layout: Array, out: Array
) -> None:
    """Write rows of the padded image, from the first on, with their columns in the layout's order."""
    pitch = layout[PITCH]
    for r in range(rows):
        source, to = down[first + r], r * pitch
        if source < 0:
            for t in range(pitch):
                out[to + t] = 0
        else:
            padded_row(x, at + source * width, right, 0, pitch, layout[START], layout[STOP], layout[SHIFT], out, to)


@kernel
def _correlate_band(
    x: Array, at_x: int, pitch: int, k: Array, at_k: int, h: int, w: int, offsets: Array,
    y: Array, at_y: int, rows: int, columns: int, stride: int, dilation: int, first: bool,
) -> None:  # fmt: skip
    """Compute rows of y from the rows of x at `at_x`; they are added to y unless they are the first."""
    lanes = REGISTER // x.itemsize
    # Rows of y that lie this far apart read the same rows of x.
    shared = dilation % stride == 0
    apart = dilation // stride if shared else 1
    step_x, step_y = dilation * pitch, apart * columns
    for phase in range(min(apart, rows)):
        for i in range(phase, rows, _ROWS * apart if shared else 1):
            count = min(_ROWS, (rows - i + apart - 1) // apart) if shared else 1
            from_x, from_y, j = at_x + i * stride * pitch, at_y + i * columns, 0
            while j + ABREAST * lanes <= columns:
                _wide(x, from_x + j, step_x, k, at_k, offsets, y, from_y + j, step_y, h, w, count, 0, first)
                j += ABREAST * lanes
            rest = columns - j
            if rest > 2 * lanes:
                _tail_wide(x, from_x + j, step_x, k, at_k, offsets, y, from_y + j, step_y, h, w, count, rest, first)
            elif rest > lanes:
                _tail_two(x, from_x + j, step_x, k, at_k, offsets, y, from_y + j, step_y, h, w, count, rest, first)
            elif rest > 0:
                _tail_one(x, from_x + j, step_x, k, at_k, offsets, y, from_y + j, step_y, h, w, count, rest, first)


@kernel
def correlate_bands(
    x: Array, k: Array, y: Array, offsets: Array, down: Array, right: Array, layout: Array, start: int, stop: int
) -> None:
    """Compute bands start to stop of y (N, O, H', W'); a band is some rows of all the output channels of a group."""
    (_, channels, height, width), (_, outputs, rows, columns) = x.shape, y.shape
    _, per_group, h, w = k.shape
    stride, dilation, pitch, band = layout[STRIDE], layout[DILATION], layout[PITCH], layout[BAND]
    groups, bands = channels // per_group, -(-rows // band)
    share = outputs // groups
    flat_x, flat_k, flat_y = x.reshape(-1), k.reshape(-1), y.reshape(-1)
    scratch = np.empty(((band - 1) * stride + (h - 1) * dilation + 1) * pitch, x.dtype)
    for item in range(start, stop):
        image, i = item // bands, item % bands * band
        group, count = image % groups, min(band, rows - i)
        for c in range(per_group):
            source, at, step = flat_x, (image * per_group + c) * height * width, width
            if pitch:
                lines = (count - 1) * stride + (h - 1) * dilation + 1
                gather(flat_x, at, width, down, right, i * stride, lines, layout, scratch)
                source, at, step = scratch, 0, pitch
            else:
                at += i * stride * width
            for o in range(share):
                at_k = ((group * share + o) * per_group + c) * h * w
                at_y = ((image * share + o) * rows + i) * columns
                _correlate_band(
                    source,
                    at,
                    step,
                    flat_k,
                    at_k,
                    h,
                    w,
                    offsets,
                    flat_y,
                    at_y,
                    count,
                    columns,
                    stride,
                    dilation,
                    c == 0,
                )


@kernel
def _gradient_band(
    x: Array, at_x: int, pitch: int, dy: Array, at_dy: int, rows: int, columns: int, offsets: Array,
    total: Array, at_total: int, h: int, w: int, stride: int, dilation: int,
) -> None:  # fmt: skip
    """Add what rows of dy contribute to the gradient of one kernel."""
    shared = dilation % stride == 0
    apart = dilation // stride if shared else 1
    step_x = (dilation if shared else stride) * pitch
    step_dy = apart * columns
    deep = -(-h // _ROWS) if shared else h
    across = -(-w // 4)
    for phase in range(min(apart, rows)):
        lines = (rows - phase + apart - 1) // apart
        at_row = at_dy + phase * columns
        for block in range(deep):
            p, taps = block * h // deep, (block + 1) * h // deep - block * h // deep
            at = at_x + (phase * stride + p * dilation) * pitch
            for part in range(across):
                q, many = part * w // across, (part + 1) * w // across - part * w // across
                to = at_total + p * w + q
                if many == 4:
                    _products_4(x, at, step_x, offsets, q, dy, at_row, step_dy, lines, columns, taps, total, to, w)
                elif many == 3:
                    _products_3(x, at, step_x, offsets, q, dy, at_row, step_dy, lines, columns, taps, total, to, w)
                elif many == 2:
                    _products_2(x, at, step_x, offsets, q, dy, at_row, step_dy, lines, columns, taps, total, to, w)
                else:
                    _products_1(x, at, step_x, offsets, q, dy, at_row, step_dy, lines, columns, taps, total, to, w)


@kernel
def gradient_bands(
    x: Array, dy: Array, totals: Array, offsets: Array, down: Array, right: Array, layout: Array, start: int, stop: int
) -> None:
    """Compute sums start to stop in totals (parts, O, C/groups, h, w) of float64.

    A sum is over a part of all bands, for one channel of x.
    """
    (images, channels, height, width), (_, outputs, rows, columns) = x.shape, dy.shape
    parts, _, per_group, h, w = totals.shape
    stride, dilation, pitch, band = layout[STRIDE], layout[DILATION], layout[PITCH], layout[BAND]
    share, bands = outputs * per_group // channels, -(-rows // band)
    flat_x, flat_dy, flat = x.reshape(-1), dy.reshape(-1), totals.reshape(-1)
    scratch = np.empty(((band - 1) * stride + (h - 1) * dilation + 1) * pitch, x.dtype)
    for item in range(start, stop):
        part, channel = item // channels, item % channels
        group, c = channel // per_group, channel % per_group
        for unit in range(part * images * bands // parts, (part + 1) * images * bands // parts):
            image, i = unit // bands, unit % bands * band
            count = min(band, rows - i)
            source, at, step = flat_x, (image * channels + channel) * height * width, width
            if pitch:
                lines = (count - 1) * stride + (h - 1) * dilation + 1
                gather(flat_x, at, width, down, right, i * stride, lines, layout, scratch)
                source, at, step = scratch, 0, pitch
            else:
                at += i * stride * width
            for o in range(group * share, (group + 1) * share):
                at_dy = ((image * outputs + o) * rows + i) * columns
                to = ((part * outputs + o) * per_group + c) * h * w
                _gradient_band(
                    source, at, step, flat_dy, at_dy, count, columns, offsets, flat, to, h, w, stride, dilation
                )


@kernel
def separable_bands(
    x: Array,
    u: Array,
    v: Array,
    y: Array,
    offsets: Array,
    down: Array,
    right: Array,
    layout: Array,
    start: int,
    stop: int,
) -> None:
    """Compute bands start to stop of y (N, C, H', W') for the kernel outer(u, v): v along the rows, then u."""
    (_, _, height, width), (_, _, rows, columns) = x.shape, y.shape
    stride, dilation, pitch, band = layout[STRIDE], layout[DILATION], layout[PITCH], layout[BAND]
    most, bands = (band - 1) * stride + (len(u) - 1) * dilation + 1, -(-rows // band)
    flat_x, flat_y, none = x.reshape(-1), y.reshape(-1), np.zeros(1, np.int64)
    scratch, between = np.empty(most * pitch, x.dtype), np.empty(most * columns, x.dtype)
    for item in range(start, stop):
        image, i = item // bands, item % bands * band
        count = min(band, rows - i)
        lines = (count - 1) * stride + (len(u) - 1) * dilation + 1
        source, at, step = flat_x, image * height * width, width
        if pitch:
            gather(flat_x, at, width, down, right, i * stride, lines, layout, scratch)
            source, at, step = scratch, 0, pitch
        else:
            at += i * stride * width
        _correlate_band(source, at, step, v, 0, 1, len(v), offsets, between, 0, lines, columns, 1, 1, True)
        at_y = (image * rows + i) * columns
        _correlate_band(
            between, 0, columns, u, 0, len(u), 1, none, flat_y, at_y, count, columns, stride, dilation, True
        )


def correlate_stage(first: Pointer, job: int, start: int, stop: int) -> int:
    """`correlate_bands` for native code (`convlab.compiled.stages`)."""
    like = numba.carray(first, (1,))
    x, k, y = tensor(job, A, 0, like), tensor(job, B, 1, like), tensor(job, Y, 2, like)
    correlate_bands(x, k, y, stored(job, 3), stored(job, 4), stored(job, 5), stored(job, 6), start, stop)
    return 0


def gradient_stage(first: Pointer, job: int, start: int, stop: int) -> int:
    """`gradient_bands` for native code."""
    like = numba.carray(first, (1,))
    x, dy, totals = tensor(job, A, 0, like), tensor(job, B, 1, like), sums(job, 2)
    gradient_bands(x, dy, totals, stored(job, 3), stored(job, 4), stored(job, 5), stored(job, 6), start, stop)
    return 0
