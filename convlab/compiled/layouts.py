"""Images from NHWC to NCHW and back, as a numba kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from . import threads
from .kernels import ready
from .vectors import REGISTER, Array, Emitter, inlined, kernel, transposed_square

if TYPE_CHECKING:  # numba's type hints are incomplete
    from llvmlite.ir import Value

# A piece of work: so many rows, which are columns of the result.
_ROWS = 64
# A second thread is used for at least so many numbers.
_NUMBERS = 2**16


def to_nchw(x: np.ndarray) -> np.ndarray:
    """The images x (N, H, W, C) as (N, C, H, W); both are C-contiguous, float32 or float64.

    >>> to_nchw(np.arange(6.0).reshape(1, 1, 3, 2))
    array([[[[0., 2., 4.]],
    <BLANKLINE>
            [[1., 3., 5.]]]])
    """
    images, rows, columns, channels = x.shape
    out = np.empty((images, channels, rows, columns), x.dtype)
    _transpose(ready(x).reshape(images, rows * columns, channels), out.reshape(images, channels, -1))
    return out


def to_nhwc(x: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Write the images x (N, C, H, W) in out (N, H, W, C), which is returned; see `to_nchw`."""
    images, channels, rows, columns = x.shape
    _transpose(x.reshape(images, channels, rows * columns), out.reshape(images, -1, channels))
    return out


def _transpose(x: np.ndarray, out: np.ndarray) -> None:
    """Write each matrix of x (N, A, B) transposed in out (N, B, A)."""
    pieces = -(-x.shape[1] // _ROWS)

    def work(start: int, stop: int) -> None:
        transpose_pieces(x, out, _ROWS, start, stop)

    threads.spread(work, len(x) * pieces, max(1, _NUMBERS // (min(_ROWS, x.shape[1]) * x.shape[2])))


@inlined
def _square(e: Emitter, x: Value, at: Value, width: Value, out: Value, to: Value, height: Value) -> None:
    """Write the square of numbers that starts at an index of x, transposed."""
    rows = [e.load(x, e.index(at, e.times(i, width))) for i in range(e.lanes)]
    for i, column in enumerate(transposed_square(e, rows)):
        e.store(column, out, e.index(to, e.times(i, height)))


@kernel
def transpose_pieces(x: Array, out: Array, rows: int, start: int, stop: int) -> None:
    """Transpose pieces start to stop, of so many rows each, of the matrices of x (N, A, B)."""
    _, height, width = x.shape
    pieces, flat_x, flat_out = -(-height // rows), x.reshape(-1), out.reshape(-1)
    lanes = REGISTER // x.itemsize
    for item in range(start, stop):
        base, top = item // pieces * height * width, item % pieces * rows
        bottom = min(top + rows, height)
        for left in range(0, width, lanes):
            right = min(left + lanes, width)
            for row in range(top, bottom, lanes):
                at, to = base + row * width + left, base + left * height + row
                if row + lanes <= bottom and left + lanes <= right:
                    _square(flat_x, at, width, flat_out, to, height)
                    continue
                for j in range(left, right):
                    for i in range(row, min(row + lanes, bottom)):
                        flat_out[base + j * height + i] = flat_x[base + i * width + j]
