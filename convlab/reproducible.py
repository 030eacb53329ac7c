"""`reproducible=True`: the same bits on every backend, eager or compiled, on any number of threads.

What is computed: the inputs are widened to float64, where a product of two narrower numbers is exact; the products are
added one after another in a fixed order; the sum is rounded once to the inputs' dtype. Nothing but elementwise
operations takes part, so that no library chooses an order.

| | the order of the sum |
|---|---|
| result | input channel, kernel row, kernel column; then the bias |
| gradient of X | output channel, kernel row and column backwards; then the pixels that a padding mode repeats |
| gradient of K | in each column of the result image by image and row by row; then the columns in a halving tree |
| gradient of the bias, a loss | columns in a halving tree, rows in a halving tree, then image by image |

A halving tree adds the second half of the numbers to the first until one is left. Subnormal numbers count as zero (some
frameworks know no others), zeros are +0, NaN is NaN. The zeros of a padding take part, and so do those that a stride
puts between the pixels of dY. float64 has no wider dtype: there each product is rounded, and one below 2^-960 counts as
zero. float16 and bfloat16 are rounded through float32.

Result, gradient of X and gradient of K are the three derivatives of one trilinear form, so that each derivative of one
of them is another: gradients are reproducible to any order that the framework gives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .algorithms import extend, source, taps
from .contract import Operations
from .geometry import PADDING_MODES, Geometry, Pair

_PARTS = ("y", "x", "k", "b")
_HALF_OF_FLOAT16S_LEAST = 2.0**-25 * (1 + 2.0**-23)
_TINY32, _TINY64, _CUT64 = 2.0**-126, 2.0**-1000, 2.0**-960


class Rule(NamedTuple):
    """A function of tensors with its gradient, for `Operations.apply`: the result or one of its gradients.

    part "y": (X, K) or (X, K, bias) to the result Y; "x": (dY, K) to the gradient of X, "k": (X, dY) to that of K,
    "b": dY to that of the bias. X is (N, C, H, W), K (O, C/groups, h, w), all of one floating dtype; `size` is X's
    (H, W), which the parts "x" and "k" need.
    """

    part: str
    geometry: Geometry
    size: Pair = (0, 0)

    def compute(self, ops: Operations, *inputs: Any) -> Any:
        """The result for tensors with values, or while tracing; without gradient."""
        dtype = ops.dtype(inputs[0]) or ""
        with ops.scope("float64"):
            wide = [widen(ops, x) for x in inputs]
            return narrow(ops, _COMPUTE[self.part](ops, self, dtype, *wide), dtype)

    def gradients(self, ops: Operations, inputs: Sequence[Any], dy: Any, needed: Sequence[bool]) -> list[Any]:
        """The gradients of sum(dy * compute(*inputs)) with respect to the inputs; None where not needed."""
        if self.part == "b":
            return [ops.zeros(ops.sizes(inputs[0]), dy) + ops.reshape(dy, (1, -1, 1, 1))]
        first, second = inputs[:2]
        # Which gradients of the trilinear form these are, and of what.
        parts = {
            "y": (("x", dy, second), ("k", first, dy)),
            "x": (("y", dy, second), ("k", dy, first)),
            "k": (("x", second, dy), ("y", first, dy)),
        }[self.part]
        _, _, height, width = ops.sizes(dy if self.part == "x" else first)
        found = [
            ops.apply(Rule(part, self.geometry, (height, width)), a, b) if need else None
            for (part, a, b), need in zip(parts, needed, strict=False)
        ]
        if len(inputs) == 3:
            found.append(ops.apply(Rule("b", self.geometry), dy) if needed[2] else None)
        return found

    def output_shape(self, *shapes: Sequence[Any]) -> tuple[Any, ...]:
        """The result's shape for inputs of these shapes."""
        first, geometry = shapes[0], self.geometry
        if self.part == "y":
            return (first[0], shapes[1][0], *geometry.output_size((first[2], first[3])))
        if self.part == "x":
            return (first[0], shapes[1][1] * geometry.groups, *self.size)
        if self.part == "k":
            return (shapes[1][1], first[1] // geometry.groups, *geometry.kernel_size)
        return (first[1],)

    def products(self, *shapes: Sequence[int]) -> int:
        """How many products are added up, for inputs of these shapes."""
        if self.part == "b":
            return math.prod(shapes[0])
        result = self.output_shape(*shapes)
        outputs, kernel = {"y": (result, shapes[1]), "x": shapes, "k": (shapes[1], result)}[self.part][:2]
        return math.prod(outputs) * math.prod(kernel[1:])

    def encode(self) -> list[int]:
        """The rule as integers, for frameworks whose operators take nothing else."""
        g = self.geometry
        (top, bottom), (left, right) = g.padding
        mode, pads = PADDING_MODES.index(g.padding_mode), (top, bottom, left, right)
        part = _PARTS.index(self.part)
        return [part, *self.size, *g.kernel_size, *g.stride, *pads, mode, *g.dilation, g.groups]

    @classmethod
    def decode(cls, code: Sequence[int]) -> Rule:
        """`encode` undone.

        >>> rule = Rule("x", Geometry((3, 5), stride=(2, 1), padding=((1, 2), (0, 3)), groups=2), (7, 8))
        >>> Rule.decode(rule.encode()) == rule
        True
        """
        part, height, width, h, w, sh, sw, top, bottom, left, right, mode, dh, dw, groups = code
        pads = ((top, bottom), (left, right))
        geometry = Geometry((h, w), (sh, sw), pads, PADDING_MODES[mode], (dh, dw), groups)
        return cls(_PARTS[part], geometry, (height, width))


def correlate(ops: Operations, x: Any, k: Any, b: Any, geometry: Geometry) -> Any:
    """corr2d on NCHW or NHWC tensors of one floating dtype, reproducibly and with gradients."""
    nhwc = geometry.data_format == "NHWC"
    if nhwc:
        x, k = ops.transpose(x, (0, 3, 1, 2)), ops.transpose(k, (3, 2, 0, 1))
    rule = Rule("y", geometry._replace(data_format="NCHW"))
    y = ops.apply(rule, x, k) if b is None else ops.apply(rule, x, k, ops.reshape(b, (-1,)))
    return ops.transpose(y, (0, 2, 3, 1)) if nhwc else y


def widen(ops: Operations, x: Any) -> Any:
    """x in float64, subnormal numbers as zero."""
    dtype = ops.dtype(x)
    if dtype in ("float16", "bfloat16"):
        x = ops.cast(x, "float32")
    return ops.cast(_flush(ops, x, _TINY64 if dtype == "float64" else _TINY32), "float64")


def narrow(ops: Operations, y: Any, dtype: str) -> Any:
    """A float64 tensor rounded to a dtype: subnormal numbers as zero, zeros as +0, every NaN the same."""
    bad = y != y
    y = _flush(ops, y, _TINY64 if dtype == "float64" else _TINY32)
    if dtype != "float64":
        y = ops.cast(y, "float32")
    if dtype == "float16":  # what it rounds to zero, with either sign
        y = _flush(ops, y, _HALF_OF_FLOAT16S_LEAST)
    y = ops.cast(y, dtype)
    return ops.where(bad, ops.number(math.nan, y), y)


def _flush(ops: Operations, x: Any, limit: float) -> Any:
    return ops.where(abs(x) < ops.number(limit, x), ops.number(0.0, x), x)


def product(ops: Operations, a: Any, b: Any, dtype: str) -> Any:
    """a * b in float64: exact for factors that come from a narrower dtype.

    In float64 it is rounded; that products near the underflow count as zero also keeps compilers, XLA's above all, from
    fusing the multiplication with the addition after it, which would round only once. The float64 cases of the tests
    under each compiler, `tests/frameworks/test_*_reproducible.py`, guard it.
    """
    return _flush(ops, a * b, _CUT64) if dtype == "float64" else a * b


def _subtraction(ops: Operations, dtype: str) -> Any:
    if dtype != "float64":
        return ops.subtract_product
    return lambda total, a, b: total - product(ops, a, b, dtype)


def _result(ops: Operations, rule: Rule, dtype: str, x: Any, k: Any, b: Any = None) -> Any:
    padded = extend(ops, x, rule.geometry)
    y = taps(ops, padded, k, rule.geometry, _subtraction(ops, dtype))
    return y if b is None else y + ops.reshape(b, (1, -1, 1, 1))


def _image_gradient(ops: Operations, rule: Rule, dtype: str, dy: Any, k: Any) -> Any:
    """dY correlated with the kernel flipped; with a stride, each phase of the image with its part of the kernel."""
    geometry, (sh, sw) = rule.geometry, rule.geometry.stride
    n, outputs, rows, columns = ops.sizes(dy)
    _, per_group, h, w = ops.sizes(k)
    groups, inputs = geometry.groups, geometry.groups * per_group
    k = ops.reshape(k, (groups, outputs // groups, per_group, h, w))
    k = ops.reshape(ops.transpose(k, (0, 2, 1, 3, 4)), (inputs, outputs // groups, h, w))
    flat = Geometry((h, w), dilation=geometry.dilation, groups=groups)
    if geometry.stride != (1, 1):
        k = _phases(ops, k, geometry)
        flat = Geometry(ops.sizes(k)[2:], groups=groups)  # type: ignore[arg-type]
    height, width = (size + sum(pads) for size, pads in zip(rule.size, geometry.padding, strict=True))
    down, right = -(-height // sh), -(-width // sw)
    above, left = flat.extent[0] - 1, flat.extent[1] - 1
    pads = (above, max(down - rows, 0)), (left, max(right - columns, 0))
    seen = ops.pad(dy, ((0, 0), (0, 0), *pads))[:, :, : above + down, : left + right]
    dx = taps(ops, seen, ops.flip(k, (2, 3)), flat, _subtraction(ops, dtype))
    if geometry.stride != (1, 1):
        dx = ops.transpose(ops.reshape(dx, (n * inputs, sh, sw, down, right)), (0, 3, 1, 4, 2))
        dx = ops.reshape(dx, (n, inputs, down * sh, right * sw))[:, :, :height, :width]
    return _undo_border(ops, rule, dx)


def _phases(ops: Operations, k: Any, geometry: Geometry) -> Any:
    """(C, O, h, w) as (C * sh * sw, O, R, S): the kernel's part for each phase, the image's rows i = phase (mod sh).

    With the dilation's zeros written out, the kernel's row t belongs to phase t % sh and is row t // sh there.
    """
    channels, outputs, *_ = ops.sizes(k)
    k = ops.pad(k, ((0, 0), (0, 0), (0, 1), (0, 1)))  # a zero to take where there is no element
    length = []
    for axis, (size, extent, stride, dilation) in enumerate(
        zip(geometry.kernel_size, geometry.extent, geometry.stride, geometry.dilation, strict=True), start=2
    ):
        length.append(-(-extent // stride))
        places = range(length[-1] * stride)
        k = ops.take(k, [t // dilation if t % dilation == 0 and t < extent else size for t in places], axis)
    (r, s), (sh, sw) = length, geometry.stride
    k = ops.transpose(ops.reshape(k, (channels, outputs, r, sh, s * sw)), (0, 3, 1, 2, 4))
    k = ops.transpose(ops.reshape(k, (channels * sh, outputs, r, s, sw)), (0, 4, 1, 2, 3))
    return ops.reshape(k, (channels * sh * sw, outputs, r, s))


def _undo_border(ops: Operations, rule: Rule, dx: Any) -> Any:
    """The gradient of X from that of the padded X: what stands for one pixel is added up, in order of position."""
    mode = rule.geometry.padding_mode
    for axis, (n, (before, after)) in enumerate(zip(rule.size, rule.geometry.padding, strict=True), start=2):
        if mode == "zeros":
            dx = ops.part(dx, before, n, axis)
        elif before or after:
            places: list[list[int]] = [[] for _ in range(n)]
            for position in range(n + before + after):
                places[source(position - before, n, mode)].append(position)
            nothing = n + before + after  # the index of a zero beyond the last position
            widths = [(0, 0)] * 4
            widths[axis] = (0, 1)
            terms, dx = ops.pad(-dx, widths), None
            for turn in range(max(map(len, places))):
                index = [place[turn] if turn < len(place) else nothing for place in places]
                term = ops.take(terms, index, axis)
                dx = -term if dx is None else dx - term
    return dx


def _kernel_gradient(ops: Operations, rule: Rule, dtype: str, x: Any, dy: Any) -> Any:
    geometry, groups, subtract = rule.geometry, rule.geometry.groups, _subtraction(ops, dtype)
    (h, w), (sh, sw), (dh, dw) = geometry.kernel_size, geometry.stride, geometry.dilation
    x = extend(ops, x, geometry)
    n, channels, height, width = ops.sizes(x)
    _, outputs, rows, columns = ops.sizes(dy)
    per_group, each = channels // groups, outputs // groups
    x = ops.reshape(x, (n, groups, per_group, height, width))
    seeds = -ops.reshape(dy, (n, groups, each, rows, columns))

    def row(total: Any, index: Any) -> Any:
        image, top = index // rows, index % rows
        lines = ops.part(ops.part(x, image, 1, 0), top * sh, (h - 1) * dh + 1, 3)
        lines = ops.reshape(lines[:, :, :, ::dh, :], (groups, per_group * h, width))
        windows = ops.stack([lines[:, :, q * dw : q * dw + (columns - 1) * sw + 1 : sw] for q in range(w)], 2)
        seed = ops.part(ops.part(seeds, image, 1, 0), top, 1, 3)
        windows = ops.reshape(windows, (groups, 1, per_group * h, w, columns))
        return subtract(total, windows, ops.reshape(seed, (groups, each, 1, 1, columns)))

    # Five axes, MXNet's limit.
    total = ops.fold(row, ops.zeros((groups, each, per_group * h, w, columns), x), n * rows)
    return ops.reshape(_halve(ops, total), (outputs, per_group, h, w))


def _bias_gradient(ops: Operations, rule: Rule, dtype: str, dy: Any) -> Any:
    return _sum(ops, dy)


def descend(ops: Operations, x: Any, y: Any, k: Any, lr: Any) -> tuple[Any, Any]:
    """One step of gradient descent on the summed squared error of one-channel images: the loss and the next kernel.

    x (N, 1, H, W), y (N, 1, H', W'), k (1, 1, h, w) of one dtype, lr a float64 scalar.
    """
    _, _, h, w = ops.sizes(k)
    geometry, dtype = Geometry((h, w)), ops.dtype(x) or ""
    found = Rule("y", geometry).compute(ops, x, k)
    with ops.scope("float64"):
        error = narrow(ops, widen(ops, found) - widen(ops, y), dtype)
        wide = widen(ops, error)
        loss = narrow(ops, _sum(ops, product(ops, wide, wide, dtype)), dtype)
        slope = Rule("k", geometry).compute(ops, x, narrow(ops, wide + wide, dtype))
        if dtype != "float64":  # so that its product with the gradient is exact
            lr = ops.cast(ops.cast(lr, "float32"), "float64")
        k = narrow(ops, widen(ops, k) - product(ops, widen(ops, slope), lr, dtype), dtype)
        return ops.reshape(loss, ()), k


def _sum(ops: Operations, x: Any) -> Any:
    """(N, O, H, W) summed to (O,)."""
    n, outputs, rows, _ = ops.sizes(x)
    sums = ops.reshape(_halve(ops, x), (n * outputs, rows))
    sums = -ops.reshape(_halve(ops, sums), (n, outputs))

    def add(total: Any, index: Any) -> Any:
        return total - ops.part(sums, index, 1, 0)

    return ops.reshape(ops.fold(add, ops.zeros((1, outputs), x), n), (outputs,))


def _halve(ops: Operations, x: Any) -> Any:
    """The sums over the last axis, in a halving tree; the other axes flattened."""
    length = ops.sizes(x)[-1]
    x = ops.reshape(x, (-1, length))
    while length > 1:
        half = (length + 1) // 2
        second = x[:, half:]
        if length % 2:
            second = ops.pad(second, ((0, 0), (0, 1)))
        x, length = x[:, :half] + second, half
    return x


_COMPUTE: dict[str, Callable[..., Any]] = {
    "y": _result,
    "x": _image_gradient,
    "k": _kernel_gradient,
    "b": _bias_gradient,
}
