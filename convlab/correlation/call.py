"""Executing a `Call` on tensors, whatever they hold."""

from __future__ import annotations

from ..algorithms.adjoint import transposed_correlation
from ..algorithms.border import with_border
from ..contract.arrays import T
from ..contract.call import Call
from ..contract.operations import Operations
from ..dtypes import COMPLEX
from ..errors import UnsupportedError
from ..geometry.geometry import NO_PADDING, Geometry
from ..planning.execute import native, native_transposed
from .compute import correlate_by_rule
from .integers import exact_correlation


def execute(ops: Operations[T], call: Call, x: T, k: T, b: T | None) -> T:
    """The result of a call for tensors of one dtype."""
    with ops.scope(call.dtype):
        if call.flipped:
            k = flip(ops, k, call.geometry)
        if len(call.kernel) == 2:
            return _single(ops, call, x, k, b)
        if len(call.image) == 3:
            return _batch(ops, call, x[None, ...], k, b, call.geometry)[0, ...]
        return _batch(ops, call, x, k, b, call.geometry)


def _single(ops: Operations[T], call: Call, x: T, k: T, b: T | None) -> T:
    """A rank-2 kernel: each image of the leading axes is a batch element with one channel."""
    h, w = call.geometry.kernel_size
    layout = ops.adapter.image_layout if ops.adapter is not None and call.algorithm == "native" else "NCHW"
    kernel = ops.reshape(k, (1, 1, h, w) if layout == "NCHW" else (h, w, 1, 1))
    y = _batch(ops, call, ops.to_images(x, layout), kernel, b, call.geometry._replace(data_format=layout))
    return ops.from_images(y, x, layout)


def _batch(ops: Operations[T], call: Call, x: T, k: T, b: T | None, geometry: Geometry) -> T:
    """The result for images in rank 4. Integers are computed exactly, which is reproducible too."""
    shape = ops.shape(x) or ()
    if 0 in shape and call.part == "y":
        # Frameworks can pad an image without pixels, but their convolutions can't.
        x, geometry = with_border(ops, x, geometry), geometry._replace(padding=NO_PADDING)
        call = call._replace(geometry=call.geometry._replace(padding=NO_PADDING))
    if shape[:1] == (0,):
        return _nothing(ops, call, x, k, b, geometry)
    if call.inner:
        return _in_pieces(ops, call, x, k, b, geometry)
    if call.algorithm == "reproducible" and call.dtype != "int64":
        return _reproducible(ops, call, x, k, b, geometry)
    if call.part == "x":
        return _add_bias(ops, _transposed(ops, call, x, k, b, geometry), b, geometry)
    if call.dtype == "int64":
        return _add_bias(ops, exact_correlation(ops, x, k, b, geometry), b, geometry)
    if call.algorithm == "native":
        return _add_bias(ops, native(ops, x, k, geometry), b, geometry)
    return _add_bias(ops, correlate_by_rule(ops, call.rule(), x, k, None, geometry.data_format), b, geometry)


def _transposed(ops: Operations[T], call: Call, y: T, k: T, b: T | None, geometry: Geometry) -> T:
    """The result of `conv_transpose2d` for images in rank 4, without its bias b, which integers are checked with."""
    if call.dtype == "int64":
        bias = None if b is None else _phase_bias(ops, b, geometry)

        def exact(y: T, k: T, inner: Geometry) -> T:
            return exact_correlation(ops, y, k, bias, inner)

        return transposed_correlation(ops, y, k, geometry, call.output_padding, exact)
    if call.algorithm == "native":
        return native_transposed(ops, y, k, geometry, call.output_padding)
    return correlate_by_rule(ops, call.rule(), y, k, None, geometry.data_format)


def _in_pieces(ops: Operations[T], call: Call, y: T, k: T, b: T | None, geometry: Geometry) -> T:
    """The result of `conv_transpose2d` on a backend that wraps others, which knows whole calls of `corr2d` only."""
    bias = None if b is None else _phase_bias(ops, b, geometry)

    def correlate(y: T, k: T, inner: Geometry) -> T:
        piece = Call(inner, ops.shape(y) or (), ops.shape(k) or (), call.dtype, False, call.algorithm, inner=call.inner)
        result: T = ops.correlate(piece, y, k, bias)
        return result

    return transposed_correlation(ops, y, k, geometry, call.output_padding, correlate)


def _phase_bias(ops: Operations[T], b: T, geometry: Geometry) -> T:
    """The bias of the correlation that computes `conv_transpose2d`, in which each phase of a channel is a channel."""
    b, phases = ops.reshape(b, (-1,)), geometry.stride[0] * geometry.stride[1]
    return ops.take(b, [channel for channel in range(ops.sizes(b)[0]) for _ in range(phases)], 0)


def flip(ops: Operations[T], k: T, geometry: Geometry) -> T:
    """A kernel with its rows and its columns in reverse order."""
    rows_axis = 2 if geometry.data_format == "NCHW" and len(ops.known_rank(k)) == 4 else 0
    return ops.flip(k, (rows_axis, rows_axis + 1))


def check_reproducible(dtype: str | None) -> None:
    """Raise `UnsupportedError` for a complex dtype."""
    if dtype in COMPLEX:
        raise UnsupportedError(
            f"reproducible: got dtype {dtype}, expected a real one.", hint="correlate real and imaginary parts apart."
        )


def _reproducible(ops: Operations[T], call: Call, x: T, k: T, b: T | None, geometry: Geometry) -> T:
    dtype, shape = ops.dtype(x), ops.shape(x)
    check_reproducible(dtype)
    size = (shape[2:] if geometry.data_format == "NCHW" else shape[1:3]) if shape else (None,)
    # MXNet's symbols, which have no dtype, are computed when they have values; but a transposed one's size is needed.
    if None in size and (dtype is not None or call.part == "x"):
        raise UnsupportedError(
            f"X: got an image of size {size} while tracing with reproducible=True, expected a known one.",
            hint="give the image's height and width to the tracer; the batch may stay unknown.",
        )
    return correlate_by_rule(ops, call.rule(), x, k, b, geometry.data_format)


def _add_bias(ops: Operations[T], y: T, b: T | None, geometry: Geometry) -> T:
    if b is None:
        return y
    b = ops.reshape(b, (-1, 1, 1) if geometry.data_format == "NCHW" else (-1,))
    # torch.autocast may have made y narrower than the bias.
    return y + ops.cast(b, ops.dtype(y))


def _nothing(ops: Operations[T], call: Call, x: T, k: T, b: T | None, geometry: Geometry) -> T:
    """The result for no images, on which some frameworks' convolutions fail; all gradients are zero."""
    channels_last = geometry.data_format == "NHWC"
    height, width = ops.sizes(x)[1:3] if channels_last else ops.sizes(x)[2:]
    if call.part == "x":
        rows, columns = geometry.transposed_size((height, width), call.output_padding)
        outputs = ops.sizes(k)[2 if channels_last else 1] * geometry.groups
    else:
        rows, columns = geometry.output_size((height, width))
        outputs = ops.sizes(k)[3 if channels_last else 0]
    y = ops.reshape(x, (0, rows, columns, outputs) if channels_last else (0, outputs, rows, columns))
    for value in (k, b):
        if value is not None:
            # Adding none of its elements gives it a gradient without a sum over nothing.
            y = y + ops.reshape(ops.reshape(value, (-1,))[:0], ops.sizes(y))
    return y
