"""Direct correlation and its gradient with respect to the kernel, as numba kernels.

All keep a block of sums in registers (`convlab.compiled.vectors.BLOCK`). Correlation: some rows of y by some vectors of
columns; a vector of x, once loaded, serves all the rows, with a different row of k for each. Gradient: some rows of k
by some columns; a vector of x serves the rows with a different row of dy for each, and a vector of dy the columns.

All of them compute only true products: rows of a block that a row of x doesn't reach are left out, not multiplied by 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .pointers import A, B, Y, stage_array, sums, tensor
from .vectors import BLOCK, REGISTER, Array, Emitter, inlined, kernel, move

if TYPE_CHECKING:  # numba's type hints are incomplete
    numba: Any

    from llvmlite.ir import Value
else:
    import numba

# The numbers at the start of a plan: the rows' stride and dilation; the length of a gathered row, 0 if x is read in
# place; where in that row plain copies start and stop, and how far back in x they are; the most rows of a band, and how
# many bands an image has; how many columns the kernel has and how many rows the padded image. After them stand the
# columns' offsets, and which row and which column of the image stands where in the padded one.
STRIDE, DILATION, PITCH, START, STOP, SHIFT, BAND, BANDS, ACROSS, DOWN, HEADER = range(11)
_ROWS, _ABREAST = BLOCK
# A kernel's rows and columns as far as its code is written out for them: tuples of so many elements, or of none.
Extent = tuple[int, ...]


def extents(h: int, w: int, same_rows: bool) -> tuple[Extent, Extent]:
    """What is written out of a kernel of h by w; `same_rows` says whether neighbours in y share rows of x."""
    across = (0,) * w if w in (3, 5, 7) else ()
    # Beyond 3x3, the whole kernel written out doesn't fit the registers.
    return across if h == w == 3 and same_rows else (), across


def _block(rows: int, abreast: int, masked: bool) -> Any:
    """The numba function that computes `rows` rows of y by `abreast` vectors, or if masked their first `columns`."""

    def emit(
        e: Emitter, x: Value, at_x: Value, step_x: Value, plane: Value, k: Value, at_k: Value, channels: Value,
        h: Value, w: Value, tall: int, across: int, offsets: Value, skip: Value,
        y: Value, at_y: Value, step_y: Value, columns: Value,
    ) -> None:  # fmt: skip
        starts = [v * e.lanes for v in range(abreast)]
        masks = [e.mask(e.index(columns, -start)) if masked else None for start in starts]
        sums = [[e.variable(e.zero) for _ in starts] for _ in range(rows)]

        def add_products(from_x: Value, from_k: Value, m: Value, q: Value, block: Sequence[int]) -> None:
            at = e.index(from_x, e.times(m, step_x), e.number(offsets, e.index(q)))
            pixels = [e.load(x, e.index(at, start), mask) for start, mask in zip(starts, masks, strict=True)]
            for r in block:
                row = e.times(e.index(m, e.times(-r, skip)), w)
                weight = e.splat(e.number(k, e.index(from_k, row, q)))
                for total, pixel in zip(sums[r], pixels, strict=True):
                    e.accumulate(total, weight, pixel)

        with e.loop(channels) as c:
            start = e.index(at_x, e.times(c, plane)), e.index(at_k, e.times(c, e.times(h, w)))
            _each_product(e, rows, h, w, tall, across, skip, lambda *product: add_products(*start, *product))
        for r in range(rows):
            row = e.index(at_y, e.times(r, step_y))
            for total, offset, mask in zip(sums[r], starts, masks, strict=True):
                e.store(e.builder.load(total), y, e.index(row, offset), mask)

    return inlined(emit)


def _each_product(
    e: Emitter, rows: int, h: Value, w: Value, tall: int, across: int, skip: Value, visit: Callable[..., None]
) -> None:
    """Visit each row m of x and each column q of k, with the rows r of y that meet them: row m - r * skip of k does."""
    if tall:
        for m in range(tall + rows - 1):
            for q in range(across):
                visit(m, q, range(max(0, m - tall + 1), min(rows, m + 1)))
        return
    with e.loop(e.index(h, e.times(rows - 1, skip))) as m:

        def visit_row(block: range) -> None:
            if across:
                for q in range(across):
                    visit(m, q, block)
            else:
                with e.loop(w) as q:
                    visit(m, q, block)

        first = e.quotient(e.index(m, skip, e.times(-1, h)), skip)
        e.ranges(e.largest(0, first), e.least(e.quotient(m, skip), rows - 1), rows, visit_row)


def _products(across: int) -> Value:
    """The numba function that adds the gradients of up to `_ROWS` rows by so many columns of k to float64 sums."""

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


_wide, _narrow, _narrow_row = _block(*BLOCK, False), _block(_ROWS, 1, True), _block(1, 1, True)
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
    x: Array, at: int, width: int, down: Array, right: Array, first: int, rows: int, plan: Array, out: Array
) -> None:
    """Write rows of the padded image, from the first on, with their columns in the layout's order."""
    pitch = plan[PITCH]
    for r in range(rows):
        source, to = down[first + r], r * pitch
        if source < 0:
            for t in range(pitch):
                out[to + t] = 0
        else:
            padded_row(x, at + source * width, right, 0, pitch, plan[START], plan[STOP], plan[SHIFT], out, to)


@kernel
def _maps(plan: Array) -> tuple[Array, Array, Array]:
    """The columns' offsets, and which row and which column of the image stands where in the padded one."""
    down = HEADER + plan[ACROSS]
    right = down + plan[DOWN]
    return plan[HEADER:down], plan[down:right], plan[right:]


@kernel
def _correlate_rows(
    x: Array, at_x: int, step_x: int, plane: int, k: Array, at_k: int, channels: int, h: int, w: int,
    tall: Extent, across: Extent, offsets: Array, skip: int, y: Array, at_y: int, step_y: int, columns: int, rows: int,
) -> None:  # fmt: skip
    """Compute one row of y, or `_ROWS`, from left to right. The last block may compute again what is there."""
    lanes = REGISTER // x.itemsize
    wide = _ABREAST * lanes
    if rows > 1 and columns >= wide:
        for start in range(0, columns, wide):
            j = min(start, columns - wide)
            _wide(
                x, at_x + j, step_x, plane, k, at_k, channels, h, w, tall, across, offsets, skip,
                y, at_y + j, step_y, wide,
            )  # fmt: skip
        return
    for j in range(0, columns, lanes):
        if rows > 1:
            _narrow(
                x, at_x + j, step_x, plane, k, at_k, channels, h, w, tall, across, offsets, skip,
                y, at_y + j, step_y, columns - j,
            )  # fmt: skip
        else:
            _narrow_row(
                x, at_x + j, step_x, plane, k, at_k, channels, h, w, tall, across, offsets, skip,
                y, at_y + j, step_y, columns - j,
            )  # fmt: skip


@kernel
def _correlate_band(
    x: Array, at_x: int, plane: int, pitch: int, k: Array, at_k: int, channels: int, h: int, w: int,
    tall: Extent, across: Extent, offsets: Array, y: Array, at_y: int, rows: int, columns: int,
    stride: int, dilation: int,
) -> None:  # fmt: skip
    """Compute rows of one channel of y from the rows of x at `at_x`, whose channels are `plane` apart."""
    common = math.gcd(stride, dilation)
    # Rows of y that lie this far apart read the same rows of x.
    apart, skip = dilation // common, stride // common
    for phase in range(min(apart, rows)):
        lines = (rows - phase + apart - 1) // apart
        deep = _ROWS if lines >= _ROWS else 1
        for start in range(0, lines, deep):
            # The last block may compute again rows that are there.
            i = phase + min(start, lines - deep) * apart
            _correlate_rows(
                x, at_x + i * stride * pitch, dilation * pitch, plane, k, at_k, channels, h, w,
                tall, across, offsets, skip, y, at_y + i * columns, apart * columns, columns, deep,
            )  # fmt: skip


@kernel
def correlate_bands(
    x: Array, k: Array, y: Array, plan: Array, tall: Extent, across: Extent, start: int, stop: int
) -> None:
    """Compute bands start to stop of y (N, O, H', W'); a band is some rows of all the output channels of a group."""
    (_, channels, height, width), (_, outputs, rows, columns) = x.shape, y.shape
    _, per_group, h, w = k.shape
    stride, dilation, pitch, bands = plan[STRIDE], plan[DILATION], plan[PITCH], plan[BANDS]
    offsets, down, right = _maps(plan)
    groups = channels // per_group
    share = outputs // groups
    flat_x, flat_k, flat_y = x.reshape(-1), k.reshape(-1), y.reshape(-1)
    most = (plan[BAND] - 1) * stride + (h - 1) * dilation + 1
    scratch = np.empty(per_group * most * pitch, x.dtype)
    for item in range(start, stop):
        image, band = item // bands, item % bands
        i = band * rows // bands
        count = (band + 1) * rows // bands - i
        lines = (count - 1) * stride + (h - 1) * dilation + 1
        source, at, step, plane = flat_x, image * per_group * height * width + i * stride * width, width, height * width
        if pitch:
            source, at, step, plane = scratch, 0, pitch, lines * pitch
            for c in range(per_group):
                at_channel = (image * per_group + c) * height * width
                gather(flat_x, at_channel, width, down, right, i * stride, lines, plan, scratch[c * plane :])
        for o in range(share):
            at_k = (image % groups * share + o) * per_group * h * w
            at_y = ((image * share + o) * rows + i) * columns
            _correlate_band(
                source, at, plane, step, flat_k, at_k, per_group, h, w, tall, across, offsets,
                flat_y, at_y, count, columns, stride, dilation,
            )  # fmt: skip


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
    across = -(-w // _ABREAST)
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
def gradient_bands(x: Array, dy: Array, totals: Array, plan: Array, start: int, stop: int) -> None:
    """Compute sums start to stop in totals (parts, O, C/groups, h, w) of float64.

    A sum is over a part of all bands, for one channel of x.
    """
    (images, channels, height, width), (_, outputs, rows, columns) = x.shape, dy.shape
    parts, _, per_group, h, w = totals.shape
    stride, dilation, pitch, bands = plan[STRIDE], plan[DILATION], plan[PITCH], plan[BANDS]
    offsets, down, right = _maps(plan)
    share = outputs * per_group // channels
    flat_x, flat_dy, flat = x.reshape(-1), dy.reshape(-1), totals.reshape(-1)
    scratch = np.empty(((plan[BAND] - 1) * stride + (h - 1) * dilation + 1) * pitch, x.dtype)
    for item in range(start, stop):
        part, channel = item // channels, item % channels
        group, c = channel // per_group, channel % per_group
        for unit in range(part * images * bands // parts, (part + 1) * images * bands // parts):
            image, band = unit // bands, unit % bands
            i = band * rows // bands
            count = (band + 1) * rows // bands - i
            source, at, step = flat_x, (image * channels + channel) * height * width, width
            if pitch:
                lines = (count - 1) * stride + (h - 1) * dilation + 1
                gather(flat_x, at, width, down, right, i * stride, lines, plan, scratch)
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
    x: Array, u: Array, v: Array, y: Array, plan: Array, tall: Extent, across: Extent, start: int, stop: int
) -> None:
    """Compute bands start to stop of y (N, C, H', W') for the kernel outer(u, v): v along the rows, then u."""
    (_, _, height, width), (_, _, rows, columns) = x.shape, y.shape
    stride, dilation, pitch, bands = plan[STRIDE], plan[DILATION], plan[PITCH], plan[BANDS]
    offsets, down, right = _maps(plan)
    most = (plan[BAND] - 1) * stride + (len(u) - 1) * dilation + 1
    flat_x, flat_y, none = x.reshape(-1), y.reshape(-1), np.zeros(1, np.int64)
    scratch, between = np.empty(most * pitch, x.dtype), np.empty(most * columns, x.dtype)
    for item in range(start, stop):
        image, band = item // bands, item % bands
        i = band * rows // bands
        count = (band + 1) * rows // bands - i
        lines = (count - 1) * stride + (len(u) - 1) * dilation + 1
        source, at, step = flat_x, image * height * width, width
        if pitch:
            gather(flat_x, at, width, down, right, i * stride, lines, plan, scratch)
            source, at, step = scratch, 0, pitch
        else:
            at += i * stride * width
        _correlate_band(source, at, 0, step, v, 0, 1, 1, len(v), (), across, offsets, between, 0, lines, columns, 1, 1)
        at_y = (image * rows + i) * columns
        _correlate_band(
            between, 0, 0, columns, u, 0, 1, len(u), 1, (), (0,), none, flat_y, at_y, count, columns, stride, dilation
        )


def _correlate_stage(tall: Extent, across: Extent) -> Callable[..., int]:
    """`correlate_bands` for native code (`convlab.compiled.stages`), for a kernel of some extents."""

    def stage(first: Any, job: int, start: int, stop: int) -> int:
        like = numba.carray(first, (1,))
        x, k, y = tensor(job, A, 0, like), tensor(job, B, 1, like), tensor(job, Y, 2, like)
        correlate_bands(x, k, y, stage_array(job, 3), tall, across, start, stop)
        return 0

    return stage


CORRELATE_STAGES = {extents(size, size, True): _correlate_stage(*extents(size, size, True)) for size in (1, 3, 5, 7)}
CORRELATE_STAGES[extents(3, 3, False)] = _correlate_stage(*extents(3, 3, False))


def gradient_stage(first: Any, job: int, start: int, stop: int) -> int:
    """`gradient_bands` for native code."""
    like = numba.carray(first, (1,))
    x, dy, totals = tensor(job, A, 0, like), tensor(job, B, 1, like), sums(job, 2)
    gradient_bands(x, dy, totals, stage_array(job, 3), start, stop)
    return 0
