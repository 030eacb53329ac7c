"""Sums of products without any rounding until the end: the same in any order, on any machine, however cut into parts.

Numbers are cut into slices of 20 bits, integers that count units of 2^20, 1, 2^-20, …. Products of two slices, and sums
of up to 2^13 of them, are integers below 2^53, which float64 holds exactly, so that any library may multiply the
matrices, on any number of threads (Ozaki et al., "Error-free transformations of matrix multiplication by using fast
routines of matrix multiplication and its applications", 2012). The products are then added as integers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import numpy as np

from ..errors import DataError

_BITS = 20
# How many products of two slices float64 adds exactly: 2 * 20 + 13 = 53 bits.
_AT_ONCE = 1 << 13


class ExactSum:
    """An array of exact numbers: the sum of parts[e] * 2**(20 * e), int64 arrays of one shape.

    >>> a = ExactSum.of_products(np.array([[[1e30, 1.0, -1e30]]]), np.ones((1, 1, 3)))
    >>> a.rounded()
    array([[[1.]]])
    >>> (a + a).rounded()
    array([[[2.]]])
    """

    def __init__(self, parts: Mapping[int, np.ndarray]) -> None:
        self.parts = _carried(parts)

    @classmethod
    def of_products(cls, a: np.ndarray, b: np.ndarray) -> ExactSum:
        """The exact a @ b' of finite a (blocks, n, pixels) and b (blocks, m, pixels)."""
        total = cls({0: np.zeros((len(a), a.shape[1], b.shape[1]), np.int64)})
        for start in range(0, a.shape[2], _AT_ONCE):
            pixels = slice(start, start + _AT_ONCE)
            slices_a, slices_b = _slices(a[..., pixels]), _slices(b[..., pixels])
            parts: dict[int, np.ndarray] = {}
            for (i, u), (j, v) in itertools.product(slices_a.items(), slices_b.items()):
                products = (u @ v.transpose(0, 2, 1)).astype(np.int64)
                parts[i + j] = parts[i + j] + products if i + j in parts else products
            total = total + cls(parts)
        return total

    def __add__(self, other: ExactSum) -> ExactSum:
        parts = dict(self.parts)
        for e, part in other.parts.items():
            parts[e] = parts[e] + part if e in parts else part
        return ExactSum(parts)

    def __len__(self) -> int:
        return len(next(iter(self.parts.values())))

    def map(self, function: Callable[[np.ndarray], np.ndarray]) -> ExactSum:
        """The same numbers in other places."""
        return ExactSum({e: function(part) for e, part in self.parts.items()})

    def rounded(self) -> np.ndarray:
        """The numbers in float64, each rounded once; inf for a number that float64 can't hold."""
        least = min(0, *self.parts)
        unit = 1 << (-least * _BITS)
        # The division of Python's integers rounds correctly.
        whole = sum(part.astype(object) << ((e - least) * _BITS) for e, part in self.parts.items())
        flat = [_divided(number, unit) for number in np.asarray(whole).ravel()]
        return np.array(flat, np.float64).reshape(np.shape(whole))


def _divided(number: int, unit: int) -> float:
    try:
        return number / unit
    except OverflowError:
        return float("inf")


def _carried(parts: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
    """The same sum by parts of 20 bits, so that many can be added in int64."""
    pending, carried, e = dict(parts), {}, min(parts)
    while pending:
        if e in pending:
            part = pending.pop(e)
            above = (part + (1 << (_BITS - 1))) >> _BITS
            carried[e] = part - (above << _BITS)
            if above.any():
                pending[e + 1] = pending[e + 1] + above if e + 1 in pending else above
        e += 1
    return carried


def _slices(a: np.ndarray) -> dict[int, np.ndarray]:
    """For each exponent e, integers of at most 2^20; multiplied by 2^(20 e), they add up to a."""
    if not np.isfinite(a).all():
        raise DataError(
            "X, Y: got numbers whose squares float64 can't hold, expected smaller ones.", hint="scale them."
        )
    slices = {}
    while a.any():
        e = (int(np.frexp(np.abs(a).max())[1]) - 1) // _BITS
        count = np.rint(np.ldexp(a, -_BITS * e))
        slices[e] = count
        a = a - np.ldexp(count, _BITS * e)
    return slices or {0: np.zeros_like(a)}
