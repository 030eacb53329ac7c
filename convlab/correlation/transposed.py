"""`conv_transpose2d`: the transpose of `corr2d`, which is the gradient of its image, as a function."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any, TypeVar

from ..contract.call import Call, Shape, Variant
from ..contract.operations import TRACED, Operations
from ..contract.rule import RuleAlgorithm
from ..dtypes import itemsize
from ..errors import GeometryError
from ..geometry.checks import boolean
from ..geometry.geometry import Geometry, Padding, Pair
from ..geometry.limits import MOST_BYTES, check_held, memory
from ..geometry.options import channels_follow, check_shapes, kernel_size
from ..geometry.options import options as checked_options
from ..geometry.transposed import TransposedGeometry, lower_transposed
from ..registry import inner_backend, resolve
from .arguments import check_bias, image_shape, kernel_shape, unify
from .corr2d import Checked, run_checked, untouched_by_autograph
from .decide import decide
from .images import planes_first, warn_of_channels
from .repeated import Run, recall

Tensor = TypeVar("Tensor")


@untouched_by_autograph
def conv_transpose2d(
    Y: Tensor,
    K: Any,
    *,
    bias: Any = None,
    stride: int | Pair = 1,
    padding: Padding = 0,
    padding_mode: str = "zeros",
    output_padding: int | Pair = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
    data_format: str | None = None,
    reproducible: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Transposed convolution of Y with a kernel K, on the tensors of any framework: upsampling that is learned.

    It is the transpose of the linear map from X to `corr2d(X, K)` with the same options: the sum of
    `corr2d(X, K) * Y` equals the sum of `X * conv_transpose2d(Y, K)` for all X and Y. Each pixel of Y puts a copy
    of K, times itself, into the result:

    >>> conv_transpose2d([[0, 1], [2, 3]], [[0, 1], [2, 3]])
    array([[ 0,  0,  1],
           [ 0,  4,  6],
           [ 4, 12,  9]])
    >>> conv_transpose2d([[1, 2]], [[1, 10, 100]], stride=(1, 2))
    array([[  1,  10, 102,  20, 200]])

    X[i * stride + p * dilation, j * stride + q * dilation] is the sum of all Y[i, j] * K[p, q] that go there; then
    the padding is taken off. With channels, channel o of Y meets K[o], and the sum is over o as well.

    It is `torch.nn.functional.conv_transpose2d` with the same K and options. docs/reference/semantics.md has a table of
    what each framework calls them.

    Args:
        Y: (..., H, W) for a rank-2 kernel, which is applied to each image of the leading axes; with
            `data_format="NHWC"` (..., H, W, C), and it is applied to each channel.
            For a rank-4 kernel (N, O, H, W) or (O, H, W), or with `data_format="NHWC"` (N, H, W, O) or (H, W, O).
        K: (h, w), or rank 4, laid out as for `corr2d`: OIHW (O, C/groups, h, w), or with "NHWC" HWIO
            (h, w, C/groups, O). O is the number of channels of Y, and C that of the result.
        bias: a number or shape (1,) for a rank-2 kernel, shape (C,) for rank 4; added to the result.
        stride: rows and columns of the result between the copies of K, an int or (rows, columns).
        padding: rows and columns to take off the result: an int, (rows, columns), ((top, bottom), (left, right)), or
            "valid" (none), "same" (a result of H * stride rows: Keras's, and the transpose of TensorFlow's SAME),
            "same_lower" (likewise, the odd row taken off at the start: ONNX's SAME_LOWER), "full" (the transpose of
            `corr2d`'s "full").
        padding_mode: "zeros" alone; it is there so that `corr2d`'s options can be given.
        output_padding: rows and columns to add at the bottom and on the right, an int or (rows, columns), less than
            the larger of stride and dilation. With a stride, images of several sizes have results of one size in
            `corr2d`; this chooses among them.
        dilation: steps between the kernel's elements, an int or (rows, columns).
        groups: groups of channels that are computed apart from one another.
        data_format: the order of Y's axes, which also determines the order of K's: "NCHW" ("channels_first"), the
            default, or "NHWC" ("channels_last").
        reproducible: the same bits on every backend, eager or compiled, for the result and its gradients.
        backend: where to compute if Y, K and bias belong to no framework, by default NumPy. For a Dask array, the
            backend that computes its chunks.

    Returns:
        A tensor of Y's framework on Y's device, with gradients, of
        (H - 1) * stride - top - bottom + dilation * (h - 1) + output_padding + 1 rows, and of columns likewise. Its
        dtype follows `convlab.dtypes`, as `corr2d`'s does.

    Raises:
        ShapeError, GeometryError, DTypeError: an argument that makes no sense.
        MixedBackendsError, MixedDevicesError: tensors of two frameworks or on two devices.
        IntegerOverflowError: an exact integer result that doesn't fit into int64.
        UnsupportedError: `reproducible=True` while Y's size isn't known.

    Warns:
        LayoutWarning: Y looks like (H, W, C) beside a rank-2 kernel, and `data_format` isn't given.

    Source: V. Dumoulin, F. Visin, *A guide to convolution arithmetic for deep learning*, arXiv:1603.07285, chapter 4.
    """
    options = stride, padding, padding_mode, dilation, groups, data_format

    def recalled() -> tuple[Hashable | None, Run | None]:
        shared = stride, padding, padding_mode, None, dilation, groups, data_format
        return recall(Y, K, bias, *shared, ("auto", reproducible), backend, output_padding)

    key, run = recalled() if type(reproducible) is bool else (None, None)
    if run is not None:
        return run(Y, K, bias)  # type: ignore[no-any-return]
    checked = _checked(Y, K, bias, options, output_padding, reproducible, backend)
    return run_checked(checked, Y, K, bias, key, lambda: recalled()[0])  # type: ignore[no-any-return]


def _checked(
    Y: Any,
    K: Any,
    bias: Any,
    options: tuple[Any, ...],
    output_padding: Any,
    reproducible: bool,
    backend: str | None,
) -> Checked:
    """The call with its arguments checked, planned for the shapes of its tensors."""
    stride, padding, padding_mode, dilation, groups, data_format = options
    algorithm: RuleAlgorithm = "reproducible" if boolean("reproducible", reproducible) else "auto"
    framework = resolve(backend, Y=Y, K=K, bias=bias)
    ops, wraps = framework.ops, framework.adapter.wraps
    (y, k, b), dtype = unify(framework, {"Y": Y, "K": K, "bias": bias})
    kernel = kernel_shape(ops, k)
    size = kernel_size(kernel, data_format)
    geometry, padding_name = checked_options(size, stride, padding, padding_mode, dilation, groups, data_format)
    _check_zeros(geometry)
    shape = image_shape(ops, y, kernel, geometry)
    if len(kernel) == 2:
        warn_of_channels(shape, kernel, data_format, "Y")
    channels_last = channels_follow(shape, kernel, geometry)
    if channels_last:
        y, shape = planes_first(ops, y), (*shape[:-3], shape[-1], *shape[-3:-1])
    if len(kernel) == 2:
        geometry = geometry._replace(data_format="NCHW")
    place = lower_transposed(geometry, padding_name, output_padding, check_shapes(shape, kernel, geometry, True))
    channels = _result_channels(kernel, geometry)
    if b is not None:
        check_bias(ops.shape(b), channels)
    if wraps:
        # Each chunk is checked by itself, but each gets all phases of the kernel.
        phases = math.prod(place.geometry.stride)
        check_held("K, stride", "a kernel", (phases, *[n or 1 for n in kernel]), itemsize(dtype))
    else:
        most = memory() if ops.mode(y, k) in ("eager", *TRACED) else MOST_BYTES
        _check_size(place, shape, channels, itemsize(dtype), most)
    if place.zeros != (0, 0):
        y = _with_zeros(ops, y, place, dtype, len(kernel))
        shape = ops.shape(y) or shape
    inner = inner_backend(backend) if wraps else ""
    call = Call(
        place.geometry, shape, kernel, dtype, False, algorithm, Variant.NATIVE, inner, "x", place.output_padding
    )
    return Checked(framework, decide(ops, call, y, k), [y, k, b], channels_last)


def _check_zeros(geometry: Geometry) -> None:
    if geometry.padding_mode != "zeros":
        raise GeometryError(
            f"padding_mode: got {geometry.padding_mode!r}, expected 'zeros': the padding is taken off the result.",
            hint="to repeat pixels of Y, pad it before, and take their share off the result by padding.",
        )


def _result_channels(kernel: Shape, geometry: Geometry) -> int | None:
    """The channels of the result; None for a kernel of rank 2."""
    if len(kernel) == 2:
        return None
    return (kernel[1 if geometry.data_format == "NCHW" else 2] or 1) * geometry.groups


def _check_size(place: TransposedGeometry, shape: Shape, channels: int | None, item_bytes: int, most: int) -> None:
    """Raise `GeometryError` for a result that is too large (`convlab.geometry.limits`)."""
    (rows, columns), pads = place.result, place.geometry.padding
    if type(rows) is not int or type(columns) is not int:
        return
    leading = shape[:-2] if channels is None else (*shape[:-3], channels)
    planes = math.prod([n if type(n) is int else 1 for n in leading])
    check_held("Y, K", "a result", (planes, rows + sum(pads[0]), columns + sum(pads[1])), item_bytes, most)


def _with_zeros(ops: Operations, y: Any, place: TransposedGeometry, dtype: str | None, rank: int) -> Any:
    """Y with the rows and columns of zeros at its end that stand for output padding."""
    shape = ops.known_rank(y)
    rows_axis = len(shape) - (3 if rank == 4 and place.geometry.data_format == "NHWC" else 2)
    widths = [(0, 0)] * len(shape)
    widths[rows_axis : rows_axis + 2] = [(0, n) for n in place.zeros]
    with ops.scope(dtype):
        return ops.pad(y, widths)
