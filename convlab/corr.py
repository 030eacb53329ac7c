"""`corr2d` and `conv2d`: check the arguments, pick the backend, compute on its tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar, Unpack

import numpy as np

from .algorithms import extend, taps
from .contract import Operations, Shape
from .dtypes import COMPLEX
from .errors import GeometryError, IntegerOverflowError, ShapeError, UnsupportedError
from .geometry import (
    NO_PADDING,
    DataFormat,
    Geometry,
    Padding,
    PaddingMode,
    Pair,
    boolean,
    check_shapes,
    choice,
    kernel_size,
    lower,
    options,
)
from .operands import admit
from .registry import backend as load_backend
from .registry import resolve
from .reproducible import correlate

if TYPE_CHECKING:
    from .lab import Backend

Tensor = TypeVar("Tensor")
Function = TypeVar("Function", bound=Callable[..., Any])
Algorithm = Literal["auto", "native"]
ALGORITHMS = ("auto", "native")


def _untouched_by_autograph(function: Function) -> Function:
    """Mark a function as TensorFlow's AutoGraph marks those it mustn't rewrite, without importing TensorFlow.

    Rewritten, they would be slower to trace and their errors would lose their types.
    """
    function.autograph_info__ = {}  # type: ignore[attr-defined]
    return function


@_untouched_by_autograph
def corr2d(
    X: Tensor,
    K: Any,
    *,
    bias: Any = None,
    stride: int | Pair = 1,
    padding: Padding = 0,
    padding_mode: PaddingMode = "zeros",
    dilation: int | Pair = 1,
    groups: int = 1,
    data_format: DataFormat = "NCHW",
    algorithm: Algorithm = "auto",
    reproducible: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Two-dimensional cross-correlation of an image X with a kernel K, on whatever tensors come in.

    >>> corr2d([[0, 1, 2], [3, 4, 5], [6, 7, 8]], [[0, 1], [2, 3]])
    array([[19, 25],
           [37, 43]])

    Y[i, j] is the sum over p, q of X[i * stride + p * dilation, j * stride + q * dilation] * K[p, q], X padded
    first; with channels, also over the input channels of the group.

    Args:
        X: (..., H, W) for a rank-2 kernel, which is applied to each image of the leading axes.
            For a rank-4 kernel (N, C, H, W) or (C, H, W), or with `data_format="NHWC"` (N, H, W, C) or (H, W, C).
        K: (h, w), or rank 4: OIHW (O, C/groups, h, w), or with "NHWC" HWIO (h, w, C/groups, O).
            A NumPy array or a list is fine beside another framework's X.
        bias: a number or shape (1,) for a rank-2 kernel, shape (O,) for rank 4; added to the result.
        stride: steps of the window, an int or (rows, columns).
        padding: elements around X: an int, (rows, columns), ((top, bottom), (left, right)), or
            "valid" (none), "same" (output ceil(n / stride), the odd element at the end: TensorFlow's SAME),
            "same_lower" (the odd one at the start: ONNX's SAME_LOWER), "full" (every overlap).
        padding_mode: what they hold: "zeros", "reflect", "replicate" or "circular".
        dilation: steps between the kernel's elements, an int or (rows, columns).
        groups: groups of channels convolved apart from one another.
        data_format: where the channels stand; it fixes the kernel's order too. Rank-2 kernels ignore it.
        algorithm: "auto" or "native", which today are both the framework's own convolution.
        reproducible: the same bits on every backend, eager or compiled, for the result and its gradients
            (`convlab.reproducible` defines them); slower than the framework's own convolution for many channels.
        backend: where to compute if X, K and bias belong to no framework; NumPy if nothing is said.

    Returns:
        A tensor of X's framework on X's device, with gradients. Its dtype follows `convlab.dtypes`: the widest
        floating dtype among X, K and bias; int64, exact, if all are integers.

    Raises:
        ShapeError, GeometryError, DTypeError: an argument that makes no sense.
        MixedBackendsError, MixedDevicesError: tensors of two frameworks or on two devices.
        IntegerOverflowError: an exact integer result that doesn't fit into int64.
    """
    return _correlate(  # type: ignore[no-any-return]
        X,
        K,
        False,
        bias=bias,
        stride=stride,
        padding=padding,
        padding_mode=padding_mode,
        dilation=dilation,
        groups=groups,
        data_format=data_format,
        algorithm=algorithm,
        reproducible=reproducible,
        backend=backend,
    )


class Options(TypedDict, total=False):
    """corr2d's keyword arguments, for type checkers."""

    bias: Any
    stride: int | Pair
    padding: Padding
    padding_mode: PaddingMode
    dilation: int | Pair
    groups: int
    data_format: DataFormat
    algorithm: Algorithm
    reproducible: bool
    backend: str | None


@_untouched_by_autograph
def conv2d(X: Tensor, K: Any, **options: Unpack[Options]) -> Tensor:
    """Strict convolution: `corr2d` with the kernel flipped on both axes; the same keyword arguments.

    >>> conv2d([[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]], [[1, 2], [3, 4]])
    array([[1, 2, 0],
           [3, 4, 0]])
    """
    return _correlate(X, K, True, **options)  # type: ignore[no-any-return]


def _correlate(
    X: Any,
    K: Any,
    flipped: bool,
    /,
    *,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    padding_mode: Any = "zeros",
    dilation: Any = 1,
    groups: Any = 1,
    data_format: Any = "NCHW",
    algorithm: Any = "auto",
    reproducible: bool = False,
    backend: str | None = None,
) -> Any:
    choice("algorithm", algorithm, ALGORITHMS)
    compute = _native
    if boolean("reproducible", reproducible):
        if algorithm != "auto":
            raise GeometryError(
                f"algorithm: got {algorithm!r} with reproducible=True, expected 'auto'.",
                hint="reproducible=True has an algorithm of its own, the same on every backend.",
            )
        compute = _reproducible
    lab = resolve(backend, X=X, K=K, bias=bias)
    ops = lab.ops
    (x, k, b), dtype = admit(lab, {"X": X, "K": K, "bias": bias})
    kernel = _kernel_shape(ops, k)
    geometry, named = options(
        kernel_size(kernel, data_format), stride, padding, padding_mode, dilation, groups, data_format
    )
    shape = ops.shape(x)
    if shape is None:
        shape = (None,) * len(kernel)
    geometry = lower(geometry, named, check_shapes(shape, kernel, geometry))
    if b is not None:
        _check_bias(ops.shape(b), kernel, geometry)
    with ops.scope(dtype):
        if flipped:
            k = flip(ops, k, geometry)
        if len(kernel) == 2:
            y = _single(lab, x, k, b, geometry, dtype, compute)
        elif len(shape) == 3:
            y = _batch(lab, x[None, ...], k, b, geometry, dtype, compute)[0, ...]
        else:
            y = _batch(lab, x, k, b, geometry, dtype, compute)
        return ops.native(y, X)


def _kernel_shape(ops: Operations, k: Any) -> Shape:
    shape = ops.shape(k)
    if shape is None:
        raise UnsupportedError(
            "K: got a symbol of unknown shape, expected one whose shape is known while tracing.",
            hint="declare the shape of the kernel's parameter.",
        )
    return shape


def _check_bias(shape: Shape | None, kernel: Shape, geometry: Geometry) -> None:
    if len(kernel) == 2:
        fits, expected = shape in ((), (1,), None), "a number or shape (1,) for a rank-2 kernel"
    else:
        outputs = kernel[0] if geometry.data_format == "NCHW" else kernel[3]
        fits, expected = shape in ((outputs,), (None,), None), f"shape ({outputs},), one for each output channel"
    if not fits:
        raise ShapeError(f"bias: got shape {shape}, expected {expected}.", hint="the bias is added per channel.")


def flip(ops: Operations, k: Any, geometry: Geometry) -> Any:
    """A kernel with its rows and its columns in reverse order."""
    first = 2 if geometry.data_format == "NCHW" and len(ops.known_rank(k)) == 4 else 0
    return ops.flip(k, (first, first + 1))


def _single(
    lab: Backend, x: Any, k: Any, b: Any, geometry: Geometry, dtype: str | None, compute: Callable[..., Any]
) -> Any:
    """A rank-2 kernel: each image of the leading axes is a batch element with one channel."""
    layout = lab.adapter.image_layout if compute is _native else "NCHW"
    h, w = geometry.kernel_size
    images = lab.ops.to_images(x, layout)
    kernel = lab.ops.reshape(k, (1, 1, h, w) if layout == "NCHW" else (h, w, 1, 1))
    y = _batch(lab, images, kernel, b, geometry._replace(data_format=layout), dtype, compute)
    return lab.ops.from_images(y, x, layout)


def _batch(
    lab: Backend, x: Any, k: Any, b: Any, geometry: Geometry, dtype: str | None, compute: Callable[..., Any]
) -> Any:
    """Images in rank 4; integers are exact, and so reproducible, in their own way."""
    ops = lab.ops
    shape = ops.shape(x) or ()
    if 0 in shape:  # frameworks know how to pad an image without pixels, but not their convolutions
        x, geometry = extend(ops, x, geometry), geometry._replace(padding=NO_PADDING)
    if shape[:1] == (0,):
        return _nothing(ops, x, k, b, geometry)
    if dtype == "int64":
        return _add_bias(ops, _exact(lab, x, k, b, geometry), b, geometry)
    return compute(ops, x, k, b, geometry)


def _native(ops: Operations, x: Any, k: Any, b: Any, geometry: Geometry) -> Any:
    if geometry.padding != NO_PADDING and geometry.padding_mode != "zeros":
        x, geometry = extend(ops, x, geometry), geometry._replace(padding=NO_PADDING)
    return _add_bias(ops, ops.conv(x, k, geometry), b, geometry)


def _reproducible(ops: Operations, x: Any, k: Any, b: Any, geometry: Geometry) -> Any:
    dtype, shape = ops.dtype(x), ops.shape(x)
    if dtype in COMPLEX:
        raise UnsupportedError(
            f"reproducible: got dtype {dtype}, expected a real one.", hint="correlate real and imaginary parts apart."
        )
    size = (shape[2:] if geometry.data_format == "NCHW" else shape[1:3]) if shape else (None,)
    if None in size and dtype is not None:  # MXNet's symbols, which have no dtype, are computed when they have values
        raise UnsupportedError(
            f"X: got an image of size {size} while tracing with reproducible=True, expected a known one.",
            hint="give the image's height and width to the tracer; the batch may stay unknown.",
        )
    return correlate(ops, x, k, b, geometry)


def _add_bias(ops: Operations, y: Any, b: Any, geometry: Geometry) -> Any:
    if b is None:
        return y
    b = ops.reshape(b, (-1, 1, 1) if geometry.data_format == "NCHW" else (-1,))
    return y + ops.cast(b, ops.dtype(y))  # which torch.autocast may have made narrower


def _nothing(ops: Operations, x: Any, k: Any, b: Any, geometry: Geometry) -> Any:
    """The result for no images, which not every framework's convolution survives; all gradients are zero."""
    nhwc = geometry.data_format == "NHWC"
    height, width = ops.sizes(x)[1:3] if nhwc else ops.sizes(x)[2:]
    rows, columns = geometry.output_size((height, width))
    outputs = ops.sizes(k)[3 if nhwc else 0]
    y = ops.reshape(x, (0, rows, columns, outputs) if nhwc else (0, outputs, rows, columns))
    for value in (k, b):
        if value is not None:  # no elements of it, so that nothing has to be summed up over nothing
            y = y + ops.reshape(ops.reshape(value, (-1,))[:0], ops.sizes(y))
    return y


def _exact(lab: Backend, x: Any, k: Any, b: Any, geometry: Geometry) -> Any:
    """Integers: by the framework's float64 convolution if no sum can reach 2**53, else in int64 with a check."""
    ops = lab.ops
    concrete = all(value is None or ops.is_concrete(value) for value in (x, k, b))
    bound = _largest_sum(_numpy(ops, x), _numpy(ops, k), _numpy(ops, b), geometry) if concrete else 0.0
    if concrete and bound < 2.0**53:
        y = _native(ops, ops.cast(x, "float64"), ops.cast(k, "float64"), None, geometry)
        return ops.cast(y, "int64")
    nhwc = geometry.data_format == "NHWC"
    if nhwc:
        x, k = ops.transpose(x, (0, 3, 1, 2)), ops.transpose(k, (3, 2, 0, 1))
        geometry = geometry._replace(data_format="NCHW")
    x, geometry = extend(ops, x, geometry), geometry._replace(padding=NO_PADDING)
    if bound >= 2.0**63:
        _check_overflow(_numpy(ops, x), _numpy(ops, k), _numpy(ops, b), geometry)
    y = taps(ops, x, k, geometry)
    return ops.transpose(y, (0, 2, 3, 1)) if nhwc else y


def _numpy(ops: Operations, x: Any) -> Any:
    return None if x is None else ops.to_numpy(x)


def _largest_sum(x: np.ndarray, k: np.ndarray, b: np.ndarray | None, geometry: Geometry) -> float:
    """An upper bound on the magnitude of every partial sum (up to the rounding of this very number)."""
    if not x.size:
        return 0.0
    axes = (1, 2, 3) if geometry.data_format == "NCHW" else (0, 1, 2)
    largest = max(float(x.max()), -float(x.min()))
    bias = 0.0 if b is None else float(np.abs(b.astype(float)).max())
    return 1.001 * (largest * float(np.abs(k.astype(float)).sum(axes).max()) + bias)


def _check_overflow(x: np.ndarray, k: np.ndarray, b: np.ndarray | None, geometry: Geometry) -> None:
    """Raise `IntegerOverflowError` if the exact result, computed in Python's own integers, leaves int64.

    int64 arithmetic is exact modulo 2**64, so that sums may leave int64 on their way.
    """
    exact = taps(load_backend("numpy").ops, x.astype(object), k.astype(object), geometry)
    if b is not None:
        exact = exact + np.reshape(b, (-1, 1, 1)).astype(object)
    for worst in (exact.max(), exact.min()):
        if not -(2**63) <= worst < 2**63:
            raise IntegerOverflowError(
                f"X, K: got a result of {worst}, expected one that fits into int64.",
                hint="convert X to float64, or scale the kernel down.",
            )
