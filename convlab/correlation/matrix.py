"""Cross-correlation as a matrix product: change the input (`im2col`) or the kernel (`corr2d_matrix`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..algorithms.border import with_border
from ..dtypes import check_numeric, itemsize
from ..errors import ShapeError
from ..geometry.checks import pair
from ..geometry.geometry import NO_PADDING, Geometry, Padding, Pair
from ..geometry.limits import check_held, laid_out
from ..geometry.options import options
from ..reference import ops as reference
from ..registry import resolve
from .arguments import as_array, asarray
from .images import with_value

if TYPE_CHECKING:
    from scipy.sparse import csr_array

# The bytes for each number of a sparse matrix while it is built: places and values, and SciPy's copies of them.
_ENTRY = 80


def im2col(
    X: Any,
    kernel_size: int | Pair,
    *,
    stride: int | Pair = 1,
    padding: Padding = 0,
    padding_mode: str = "zeros",
    padding_value: float = 0.0,
    origin: int | Pair | None = None,
    dilation: int | Pair = 1,
    backend: str | None = None,
) -> Any:
    """The windows of X as columns: (..., H, W) gives (..., h * w, H' * W'), on X's framework, with gradients.

    `K.reshape(1, -1) @ im2col(X, K.shape)` is `corr2d(X, K)`, flattened: the change of the *input*.

    >>> import numpy as np
    >>> im2col(np.arange(6).reshape(2, 3), (2, 2))
    array([[0, 1],
           [1, 2],
           [3, 4],
           [4, 5]])

    For (N, C, H, W), reshaping the result to (N, C * h * w, -1) gives `torch.nn.Unfold`'s columns.

    Raises:
        ShapeError, GeometryError, DTypeError: an argument that makes no sense, or columns that don't fit into this
            machine's memory (`convlab.geometry.limits`).
    """
    framework = resolve(backend, X=X)
    ops, x = framework.ops, asarray(framework, X)
    shape = ops.sizes(x)
    if len(shape) < 2:
        raise ShapeError(f"X: got shape {shape}, expected (..., H, W).", hint="X[None] makes a one-row image.")
    *leading, height, width = shape
    checked, padding_name = options(
        kernel_size, stride, padding, padding_mode, dilation, padding_value=padding_value, origin=origin
    )
    geometry = laid_out(checked, padding_name, (height, width))
    x, geometry = with_value(ops, x, geometry, ops.dtype(x), 2)
    *leading, height, width = ops.sizes(x)
    _check_windows("X, kernel_size", "columns", geometry, (height, width), leading, max(itemsize(ops.dtype(x)), 8))
    (top, bottom), (left, right) = geometry.padding
    size = height + top + bottom, width + left + right
    index = windows(geometry._replace(padding=NO_PADDING), size)
    with ops.scope(ops.dtype(x)):
        flat = ops.reshape(with_border(ops, ops.to_images(x, "NCHW"), geometry), (*leading, size[0] * size[1]))
        columns = ops.reshape(ops.take(flat, index.ravel(), len(leading)), (*leading, *index.shape))
        return ops.native(columns, X)


def _check_windows(name: str, what: str, geometry: Geometry, size: Pair, leading: Sequence[int], width: int) -> None:
    """Raise `GeometryError` unless there is memory for all windows of images of a size and for the padded images."""
    rows, columns = (n + sum(pads) for n, pads in zip(size, geometry.padding, strict=True))
    check_held(name, "padded images", (*leading, rows, columns), width)
    check_held(name, what, (*leading, *geometry.kernel_size, *geometry.output_size(size)), width)


def windows(geometry: Geometry, size: Pair) -> np.ndarray:
    """The flat index of each window's elements in an unpadded image of a size: (h * w, H' * W')."""
    starts, offsets = [], []
    for out, kernel, stride, dilation in zip(
        geometry.output_size(size), geometry.kernel_size, geometry.stride, geometry.dilation, strict=True
    ):
        starts.append(np.arange(out) * stride)
        offsets.append(np.arange(kernel) * dilation)
    row = offsets[0][:, None, None, None] + starts[0][:, None]
    column = offsets[1][:, None, None] + starts[1]
    index: np.ndarray = row * size[1] + column
    return index.reshape(len(offsets[0]) * len(offsets[1]), -1)


def corr2d_matrix(
    K: Any,
    input_size: Pair,
    *,
    stride: int | Pair = 1,
    padding: Padding = 0,
    padding_mode: str = "zeros",
    origin: int | Pair | None = None,
    dilation: int | Pair = 1,
) -> csr_array:
    """The sparse matrix A with vec(Y) = A vec(X) for Y = corr2d(X, K): the change of the *kernel*.

    A has H' * W' rows and H * W columns; vec reads an image row by row. Its transpose is the adjoint: A.T @ vec(dY)
    is the gradient with respect to X.

    >>> A = corr2d_matrix([[0, 1], [2, 3]], (3, 3))
    >>> (A @ [0, 1, 2, 3, 4, 5, 6, 7, 8]).reshape(2, 2)
    array([[19, 25],
           [37, 43]])

    Raises:
        ShapeError, GeometryError, DTypeError: an argument that makes no sense, or a matrix that doesn't fit into this
            machine's memory (`convlab.geometry.limits`).
    """
    from scipy.sparse import csr_array

    kernel = as_array("K", K)
    check_numeric("K", kernel.dtype.name)
    # The entries of one pixel are added up, and SciPy has no half precision.
    kernel = kernel.astype(np.result_type(kernel.dtype, np.int64 if kernel.dtype.kind in "iub" else np.float32))
    if kernel.ndim != 2:
        raise ShapeError(f"K: got shape {kernel.shape}, expected (h, w).", hint="take one channel's kernel.")
    checked, padding_name = options(kernel.shape, stride, padding, padding_mode, dilation, origin=origin)
    height, width = pair("input_size", input_size, 0)
    geometry = laid_out(checked, padding_name, (height, width))
    _check_windows("K, input_size", "a matrix", geometry, (height, width), (), _ENTRY)
    # Pixels are numbered from 1, so that 0 marks the zeros around the image.
    numbered = np.arange(1, height * width + 1).reshape(1, 1, height, width)
    padded = with_border(reference, numbered, geometry)[0, 0]
    index = padded.ravel()[windows(geometry._replace(padding=NO_PADDING), padded.shape)]
    outputs = index.shape[1]
    entry = np.broadcast_to(kernel.ravel()[:, None], index.shape)
    row = np.broadcast_to(np.arange(outputs), index.shape)
    inside = index > 0
    matrix = csr_array((entry[inside], (row[inside], index[inside] - 1)), shape=(outputs, height * width))
    matrix.sum_duplicates()
    return matrix
