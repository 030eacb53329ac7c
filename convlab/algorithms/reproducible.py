"""`reproducible=True`: the same bits on every backend, eager or compiled, on any number of threads.

What is computed: the inputs are widened to float64, where a product of two narrower numbers is exact; the products are
added one after another in a fixed order; the sum is rounded once to the inputs' dtype. Nothing but elementwise
operations takes part, so that no library chooses an order. Where numba is installed, CPU tensors that have values, and
JAX's programs, are computed by the loops of `convlab.compiled.in_order` instead, which give the same bits
(`convlab.correlation.on_host`).

| | the order of the sum |
|---|---|
| result | input channel, kernel row, kernel column; then the bias |
| gradient of X | output channel, kernel row and column backwards; then the pixels that a padding mode repeats |
| `conv_transpose2d` | that of the gradient of X; then the bias |
| gradient of K | in each column of the result image by image and row by row; then the columns in a halving tree |
| gradient of the bias, a loss | columns in a halving tree, rows in a halving tree, then image by image |

A halving tree adds the second half of the numbers to the first until one is left. Subnormal numbers count as zero (some
frameworks know no others), zeros are +0, NaN is NaN. The zeros of a padding take part, and so do those that a stride
puts between the pixels of dY. float64 has no wider dtype: there each product is rounded, and one below 2^-960 counts as
zero. float16 and bfloat16 are rounded through float32.

Gradients are reproducible to any order that the framework gives (`convlab.contract.rule`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..contract.arrays import T
from ..contract.operations import Operations
from ..dtypes import LEAST, LEAST_PRODUCT
from ..geometry.geometry import Geometry
from .adjoint import image_gradient
from .border import with_border
from .taps import taps

if TYPE_CHECKING:
    from ..contract.rule import Part, Rule

_HALF_OF_FLOAT16S_LEAST = 2.0**-25 * (1 + 2.0**-23)


def reproduce(ops: Operations[T], rule: Rule, *inputs: T) -> T:
    """A rule's result for tensors with values, or while tracing; without gradient."""
    dtype = ops.dtype(inputs[0]) or ""
    with ops.scope("float64"):
        wide = [widen(ops, x) for x in inputs]
        result: T = _COMPUTE[rule.part](ops, rule, dtype, *wide)
        return narrow(ops, result, dtype)


def widen(ops: Operations[T], x: T) -> T:
    """The tensor x in float64, subnormal numbers as zero."""
    dtype = ops.dtype(x)
    if dtype in ("float16", "bfloat16"):
        x = ops.cast(x, "float32")
    return ops.cast(_flush(ops, x, LEAST["float64" if dtype == "float64" else "float32"]), "float64")


def narrow(ops: Operations[T], y: T, dtype: str) -> T:
    """A float64 tensor rounded to a dtype: subnormal numbers as zero, zeros as +0, every NaN the same."""
    is_nan = y != y
    y = _flush(ops, y, LEAST["float64" if dtype == "float64" else "float32"])
    if dtype != "float64":
        y = ops.cast(y, "float32")
    if dtype == "float16":
        # Numbers that float16 rounds to zero, of either sign, become +0.
        y = _flush(ops, y, _HALF_OF_FLOAT16S_LEAST)
    y = ops.cast(y, dtype)
    return ops.where(is_nan, ops.number(math.nan, y), y)


def _flush(ops: Operations[T], x: T, limit: float) -> T:
    return ops.where(abs(x) < ops.number(limit, x), ops.number(0.0, x), x)


def product(ops: Operations[T], a: T, b: T, dtype: str) -> T:
    """The product of a and b in float64: exact for factors that come from a narrower dtype.

    The product of two float64 numbers is rounded. Products near the underflow count as zero; this also keeps compilers,
    above all XLA, from fusing the multiplication with the addition after it, which would round only once. The float64
    cases of `tests/frameworks/test_*_reproducible.py` guard it under each compiler.
    """
    return _flush(ops, a * b, LEAST_PRODUCT) if dtype == "float64" else a * b


def _subtraction(ops: Operations[T], dtype: str) -> Callable[[T, T, T], T]:
    """The function of (total, a, b) that computes total - a * b for inputs that come from a dtype."""
    if dtype != "float64":
        return ops.subtract_product
    return lambda total, a, b: total - product(ops, a, b, dtype)


def _result(ops: Operations[T], rule: Rule, dtype: str, x: T, k: T, b: T | None = None) -> T:
    padded = with_border(ops, x, rule.geometry)
    y = taps(ops, padded, k, rule.geometry, _subtraction(ops, dtype))
    return y if b is None else y + ops.reshape(b, (1, -1, 1, 1))


def _image_gradient(ops: Operations[T], rule: Rule, dtype: str, dy: T, k: T, b: T | None = None) -> T:
    def correlate(dy: T, k: T, geometry: Geometry) -> T:
        return taps(ops, with_border(ops, dy, geometry), k, geometry, _subtraction(ops, dtype))

    dx = image_gradient(ops, dy, k, rule.geometry, rule.size, correlate)
    return dx if b is None else dx + ops.reshape(b, (1, -1, 1, 1))


def _kernel_gradient(ops: Operations[T], rule: Rule, dtype: str, x: T, dy: T) -> T:
    geometry, groups, subtract = rule.geometry, rule.geometry.groups, _subtraction(ops, dtype)
    (h, w), (sh, sw), (dh, dw) = geometry.kernel_size, geometry.stride, geometry.dilation
    x = with_border(ops, x, geometry)
    n, channels, height, width = ops.sizes(x)
    _, outputs, rows, columns = ops.sizes(dy)
    per_group, share = channels // groups, outputs // groups
    x = ops.reshape(x, (n, groups, per_group, height, width))
    seeds = -ops.reshape(dy, (n, groups, share, rows, columns))

    def add_row(total: T, index: Any) -> T:
        image, top = index // rows, index % rows
        lines = ops.part(ops.part(x, image, 1, 0), top * sh, (h - 1) * dh + 1, 3)
        lines = ops.reshape(lines[:, :, :, ::dh, :], (groups, per_group * h, width))
        windows = ops.stack([lines[:, :, q * dw : q * dw + (columns - 1) * sw + 1 : sw] for q in range(w)], 2)
        seed = ops.part(ops.part(seeds, image, 1, 0), top, 1, 3)
        windows = ops.reshape(windows, (groups, 1, per_group * h, w, columns))
        return subtract(total, windows, ops.reshape(seed, (groups, share, 1, 1, columns)))

    # The total has five axes, which is MXNet's limit.
    total = ops.fold(add_row, ops.zeros((groups, share, per_group * h, w, columns), x), n * rows)
    return ops.reshape(halve(ops, total), (outputs, per_group, h, w))


def _bias_gradient(ops: Operations[T], rule: Rule, dtype: str, dy: T) -> T:
    return channel_sums(ops, dy)


def channel_sums(ops: Operations[T], x: T) -> T:
    """The sums of x (N, O, H, W) over all axes but the second: (O,)."""
    n, outputs, rows, _ = ops.sizes(x)
    sums = ops.reshape(halve(ops, x), (n * outputs, rows))
    return add_images(ops, ops.reshape(halve(ops, sums), (n, outputs)))


def add_images(ops: Operations[T], sums: T) -> T:
    """The sums of each image's channels (N, O), added up image by image: (O,)."""
    (n, outputs), sums = ops.sizes(sums), -sums

    def add(total: T, index: Any) -> T:
        return total - ops.part(sums, index, 1, 0)

    return ops.reshape(ops.fold(add, ops.zeros((1, outputs), sums), n), (outputs,))


def halve(ops: Operations[T], x: T) -> T:
    """The sums over the last axis, in a halving tree, with the other axes flattened: (…, 1)."""
    length = ops.sizes(x)[-1]
    x = ops.reshape(x, (-1, length))
    while length > 1:
        half = (length + 1) // 2
        second = x[:, half:]
        if length % 2:
            second = ops.pad(second, ((0, 0), (0, 1)))
        x, length = x[:, :half] + second, half
    return x


_COMPUTE: dict[Part, Callable[..., Any]] = {
    "y": _result,
    "x": _image_gradient,
    "k": _kernel_gradient,
    "b": _bias_gradient,
}
