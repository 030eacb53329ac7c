"""What the kernels of `reproducible=True` share: their blocks of sums, and images in float64.

Both kernels, `in_order_result` and `in_order_gradient`, keep a block of sums of float64 in registers. A block never
splits a sum, so that its order is that of a plain loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

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
# The sums in a block: so many output channels by so many vectors of columns, or elements of K; and of either where
# there is a single output channel. AVX-512 has 32 registers, AVX 16.
CHANNELS = 4
VECTORS, TAPS, ALONE = (6, 6, 8) if REGISTER == 64 else (3, 2, 6)


def is_float64(pointer: Value) -> bool:
    """Whether an array is of float64, where products are rounded, and not of float32."""
    return isinstance(pointer.type.pointee, ir.DoubleType)


def flushed(e: Emitter, value: Value, limit: Value) -> Value:
    """The vector of float64 with +0 for all that is nearer to zero than a positive limit, a vector or a number."""
    above, below = (limit, e.subtract(e.zero, limit)) if not isinstance(limit, float) else map(e.splat, (limit, -limit))
    small = e.builder.and_(e.builder.fcmp_ordered("<", value, above), e.builder.fcmp_ordered(">", value, below))
    return e.builder.select(small, e.zero, value)


def add_product(e: Emitter, total: Value, a: Value, b: Value, rounded: bool) -> None:
    """Add a * b to a variable. Unless the product is exact, it is rounded first, and counts as zero if it is tiny."""
    if not rounded:
        e.accumulate(total, a, b)
        return
    # Without flags, LLVM doesn't fuse the multiplication with the addition.
    product = flushed(e, e.builder.fmul(a, b), LEAST_PRODUCT)
    e.builder.store(e.builder.fadd(e.builder.load(total), product), total)


def vector_at(e: Emitter, pointer: Value, index: Value) -> tuple[Value, Value, Value]:
    """The type of as many elements of an array as e has lanes, the pointer to those from an index on, its alignment."""
    vector = ir.VectorType(pointer.type.pointee, e.lanes)
    align = ir.Constant(ir.IntType(32), 8 if is_float64(pointer) else 4)
    return vector, e.builder.bitcast(e.builder.gep(pointer, [e.index(index)]), vector.as_pointer()), align


def load_widened(e: Emitter, x: Value, index: Value, count: Value) -> Value:
    """The first `count` elements from an index on in float64, subnormal numbers as zero; zeros in the other lanes."""
    vector, place, align = vector_at(e, x, index)
    value = e.masked("load", vector, vector, place, align, e.mask(count), ir.Constant(vector, None))
    if is_float64(x):
        return flushed(e, value, LEAST["float64"])
    return flushed(e, e.builder.fpext(value, e.vector), LEAST["float32"])


@inlined
def widen_row(e: Emitter, out: Value, to: Value, x: Value, at: Value, count: Value) -> None:
    """Write elements of x in float64, and up to the next full vector zeros."""
    with e.loop(count, step=e.lanes) as i:
        value = load_widened(e, x, e.index(at, i), e.index(count, e.times(-1, i)))
        e.store(value, out, e.index(to, i))


def by_count(e: Emitter, count: Value, most: int, body: Callable[[int], None]) -> None:
    """Run body(count), written out for each count from 1 to `most`."""
    for size in range(1, most + 1):
        with e.builder.if_then(e.builder.icmp_signed("==", e.index(count), e.index(size))):
            body(size)


@kernel
def gather_widened(
    x: Array, at: int, width: int, channels: int, height: int, down: Array, right: Array, first: int, lines: int,
    start: int, stop: int, least: float, out: Array, begin: int, pixels: Array,
) -> None:  # fmt: skip
    """Write lines of some channels of a padded image in float64, their columns in the layout's order.

    Columns that aren't neighbours in the image are taken from `pixels`, which gets a row of it, and ends with a zero.
    """
    pitch = len(right)
    for c in range(channels):
        for r in range(lines):
            row, to = down[first + r], begin + (c * lines + r) * pitch
            if row < 0:
                for t in range(pitch):
                    out[to + t] = 0.0
                continue
            source = at + (c * height + row) * width
            if start == stop:
                widen_row(pixels, 0, x, source, width)
                for t in range(pitch):
                    out[to + t] = pixels[right[t]]  # the last one, a zero, for -1
                continue
            widen_row(out, to + start, x, source, stop - start)
            for t in range(start):
                value = x[source + right[t]] if right[t] >= 0 else 0.0
                out[to + t] = 0.0 if abs(value) < least else value
            for t in range(stop, pitch):
                value = x[source + right[t]] if right[t] >= 0 else 0.0
                out[to + t] = 0.0 if abs(value) < least else value
