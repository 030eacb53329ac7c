"""Fourier transforms of strips of a tile, and the products and transpositions between them, as numba functions.

A strip is as many columns of a tile as a vector has lanes, row after row: (size, lanes) flat, real and imaginary parts
apart. The rows of a whole tile are `size + lanes` numbers apart, so that they don't compete for the same lines of the
cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .vectors import REGISTER, Array, Emitter, inlined, kernel, move, transposed_square

if TYPE_CHECKING:
    from llvmlite.ir import Value


class _Complex(NamedTuple):
    """Vectors of complex numbers, while their instructions are written."""

    e: Emitter
    re: Value
    im: Value

    def plus(self, other: _Complex) -> _Complex:
        return _Complex(self.e, self.e.add(self.re, other.re), self.e.add(self.im, other.im))

    def minus(self, other: _Complex) -> _Complex:
        return _Complex(self.e, self.e.subtract(self.re, other.re), self.e.subtract(self.im, other.im))

    def plus_i(self, other: _Complex) -> _Complex:
        """The number self + i other."""
        return _Complex(self.e, self.e.subtract(self.re, other.im), self.e.add(self.im, other.re))

    def minus_i(self, other: _Complex) -> _Complex:
        """The number self - i other."""
        return _Complex(self.e, self.e.add(self.re, other.im), self.e.subtract(self.im, other.re))

    def times(self, other: _Complex) -> _Complex:
        e = self.e
        re = e.subtract(e.multiply(self.re, other.re), e.multiply(self.im, other.im))
        return _Complex(e, re, e.add(e.multiply(self.re, other.im), e.multiply(self.im, other.re)))

    def times_conjugate(self, other: _Complex) -> _Complex:
        e = self.e
        re = e.add(e.multiply(self.re, other.re), e.multiply(self.im, other.im))
        return _Complex(e, re, e.subtract(e.multiply(self.im, other.re), e.multiply(self.re, other.im)))

    @classmethod
    def load(cls, e: Emitter, re: Value, im: Value, at: Value) -> _Complex:
        return cls(e, e.load(re, at), e.load(im, at))

    def store(self, re: Value, im: Value, at: Value) -> None:
        self.e.store(self.re, re, at)
        self.e.store(self.im, im, at)


def _radix_4(z: list[_Complex], twiddles: list[_Complex], inverse: bool) -> list[_Complex]:
    """A transform of length 4, its results 1 to 3 multiplied by the twiddles; or its inverse, times the factor 4."""
    if inverse:
        z = [z[0], *(a.times_conjugate(t) for a, t in zip(z[1:], twiddles, strict=True))] if twiddles else z
    even, odd, half, quarter = z[0].plus(z[2]), z[1].plus(z[3]), z[0].minus(z[2]), z[1].minus(z[3])
    if inverse:
        return [even.plus(odd), half.plus_i(quarter), even.minus(odd), half.minus_i(quarter)]
    z = [even.plus(odd), half.minus_i(quarter), even.minus(odd), half.plus_i(quarter)]
    return [z[0], *(a.times(t) for a, t in zip(z[1:], twiddles, strict=True))] if twiddles else z


def _butterfly(inverse: bool, twiddled: bool) -> Value:
    """The numba function of a radix-4 butterfly on rows at, at + step, ... of a strip."""

    def emit(e: Emitter, re: Value, im: Value, at: Value, step: Value, table: Value, at_table: Value) -> None:
        places = [e.index(at, e.times(i, step)) for i in range(4)]
        numbers = [e.splat(e.number(table, e.index(at_table, i))) for i in range(6)] if twiddled else []
        twiddles = [_Complex(e, *numbers[i : i + 2]) for i in range(0, len(numbers), 2)]
        z = _radix_4([_Complex.load(e, re, im, place) for place in places], twiddles, inverse)
        for a, place in zip(z, places, strict=True):
            a.store(re, im, place)

    return inlined(emit)


def _eight(inverse: bool) -> Value:
    """The numba function of a transform of 8 consecutive rows: a stage of radix 4, then one of radix 2."""

    def emit(e: Emitter, re: Value, im: Value, at: Value) -> None:
        places = [e.index(at, i * e.lanes) for i in range(8)]
        z = [_Complex.load(e, re, im, place) for place in places]
        roots = np.exp(-2j * np.pi * np.arange(1, 4) / 8)
        twiddles = [_Complex(e, e.splat(a.real), e.splat(a.imag)) for a in roots]

        def fours() -> None:
            z[::2], z[1::2] = _radix_4(z[::2], [], inverse), _radix_4(z[1::2], twiddles, inverse)

        if not inverse:
            fours()
        z[::2], z[1::2] = (
            [a.plus(b) for a, b in zip(z[::2], z[1::2], strict=True)],
            [a.minus(b) for a, b in zip(z[::2], z[1::2], strict=True)],
        )
        if inverse:
            fours()
        for a, place in zip(z, places, strict=True):
            a.store(re, im, place)

    return inlined(emit)


_forward_4, _forward_4_plain = _butterfly(False, True), _butterfly(False, False)
_inverse_4, _inverse_4_plain = _butterfly(True, True), _butterfly(True, False)
_forward_8, _inverse_8 = _eight(False), _eight(True)


@inlined
def _transpose(e: Emitter, source: Value, at: Value, target: Value, to: Value, step: Value) -> None:
    """Write a square of vectors, one after the other in a strip, transposed to rows that are a step apart."""
    rows = [e.load(source, e.index(at, i * e.lanes)) for i in range(e.lanes)]
    for i, row in enumerate(transposed_square(e, rows)):
        e.store(row, target, e.index(to, e.times(i, step)))


@inlined
def multiply(e: Emitter, re: Value, im: Value, other_re: Value, other_im: Value, at: Value, count: Value) -> None:
    """Multiply a strip by the conjugates of another."""
    with e.loop(count, step=e.lanes) as i:
        other = _Complex.load(e, other_re, other_im, e.index(at, i))
        _Complex.load(e, re, im, i).times_conjugate(other).store(re, im, i)


@inlined
def multiply_add(
    e: Emitter,
    re: Value,
    im: Value,
    other_re: Value,
    other_im: Value,
    total_re: Value,
    total_im: Value,
    at: Value,
    count: Value,
) -> None:
    """Add a strip of a spectrum times the conjugate of another strip to a strip of a total spectrum."""
    with e.loop(count, step=e.lanes) as i:
        place = e.index(at, i)
        product = _Complex.load(e, other_re, other_im, place).times_conjugate(_Complex.load(e, re, im, i))
        _Complex.load(e, total_re, total_im, place).plus(product).store(total_re, total_im, place)


@inlined
def scatter(
    e: Emitter, strip: Value, y: Value, at: Value, step: Value, rows: Value, columns: Value, first: Value, check: Value
) -> None:
    """Store the first columns of a strip's first rows in y, or add them; the check becomes NaN where y isn't finite."""
    mask, zeros = e.mask(columns), e.variable(e.zero)
    with e.loop(rows) as r:
        value, place = e.variable(e.load(strip, e.times(r, e.lanes))), e.index(at, e.times(r, step))
        with e.builder.if_then(e.less(first, 1)):
            e.builder.store(e.add(e.builder.load(value), e.load(y, place, mask)), value)
        e.store(e.builder.load(value), y, place, mask)
        e.accumulate(zeros, e.builder.load(value), e.zero)
    e.builder.store(e.add(e.builder.load(check), e.sum(e.builder.load(zeros))), check)


@kernel
def forward(re: Array, im: Array, size: int, table: Array) -> None:
    """Transform the columns of a strip; the result's rows are in scrambled order."""
    lanes, n, at = REGISTER // re.itemsize, size, 0
    while n > 8 or n == 4:
        quarter = n // 4
        for start in range(0, size, n):
            _forward_4_plain(re, im, start * lanes, quarter * lanes, table, 0)
        for j in range(1, quarter):
            for start in range(j, size, n):
                _forward_4(re, im, start * lanes, quarter * lanes, table, at + 6 * j)
        at += 6 * quarter
        n = quarter
    if n == 8:
        for start in range(0, size, 8):
            _forward_8(re, im, start * lanes)


@kernel
def inverse(re: Array, im: Array, size: int, table: Array) -> None:
    """The inverse of `forward`, times the factor size."""
    lanes, n, at = REGISTER // re.itemsize, size, len(table)
    while n > 8 or n == 4:
        n //= 4
    if n == 8:
        for start in range(0, size, 8):
            _inverse_8(re, im, start * lanes)
    while n < size:
        quarter, n = n, 4 * n
        at -= 6 * quarter
        for start in range(0, size, n):
            _inverse_4_plain(re, im, start * lanes, quarter * lanes, table, 0)
        for j in range(1, quarter):
            for start in range(j, size, n):
                _inverse_4(re, im, start * lanes, quarter * lanes, table, at + 6 * j)


@kernel
def write_transposed(re: Array, im: Array, to_re: Array, to_im: Array, strip: int, size: int) -> None:
    """Write a strip, transposed, to the rows of a whole tile."""
    lanes = REGISTER // re.itemsize
    pitch = size + lanes
    for block in range(size // lanes):
        to = strip * lanes * pitch + block * lanes
        _transpose(re, block * lanes * lanes, to_re, to, pitch)
        _transpose(im, block * lanes * lanes, to_im, to, pitch)


@kernel
def read_strip(re: Array, im: Array, from_re: Array, from_im: Array, strip: int, size: int) -> None:
    """Read a strip of a whole tile."""
    lanes = REGISTER // re.itemsize
    for r in range(size):
        move(from_re, r * (size + lanes) + strip * lanes, re, r * lanes)
        move(from_im, r * (size + lanes) + strip * lanes, im, r * lanes)
