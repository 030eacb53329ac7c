"""What MXNet's own convolution takes, and what is better kept from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from convlab.algorithms.border import channels_first
from convlab.contract.operations import Operations
from convlab.geometry.geometry import Geometry, Pair

from .facade import import_mxnet

mx: Any = import_mxnet()

LONG_ROW = 2**16  # oneDNN may take 2.6 kB of memory for each pixel of a row, however many rows there are


def convolution_options(geometry: Geometry, outputs: int) -> dict[str, Any]:
    """The arguments of MXNet's convolution with the same border at both ends."""
    return {
        "kernel": geometry.kernel_size,
        "stride": geometry.stride,
        "pad": tuple(before for before, _ in geometry.padding),
        "dilate": geometry.dilation,
        "num_filter": outputs,
        "num_group": geometry.groups,
        "no_bias": True,
    }


def plain_convolution(
    dtype: str | None, geometry: Geometry, images: Sequence[int], weights: Sequence[int]
) -> Callable[..., Any] | None:
    """What `MXNetOperations.conv` does with arrays of these shapes, where that is MXNet's convolution and no more."""
    uneven = any(before != after for before, after in geometry.padding)
    long = images[3] > max(images[2], LONG_ROW)
    if dtype == "float16" or geometry.data_format == "NHWC" or uneven or long or spare_channels(weights[0], geometry):
        return None
    # MXNet would write each of them out at each call.
    options = {name: str(value) for name, value in convolution_options(geometry, weights[0]).items()}
    return partial(mx.npx.convolution, **options)


def convolve_transposed(ops: Operations, y: Any, kernel: Any, geometry: Geometry, output_padding: Pair) -> Any:
    """MXNet's transposed convolution of arrays or symbols in either layout."""
    if geometry.data_format == "NHWC":
        y, kernel = channels_first(ops, y, kernel)
        x = convolve_transposed(ops, y, kernel, geometry._replace(data_format="NCHW"), output_padding)
        return ops.transpose(x, (0, 2, 3, 1))
    # MXNet has float16 on GPUs only.
    if ops.dtype(y) == "float16" and y.ctx.device_type != "gpu":
        x = convolve_transposed(ops, y.astype("float32"), kernel.astype("float32"), geometry, output_padding)
        return x.astype("float16")
    # Only oneDNN, which computes float32, gets dilations right.
    if geometry.dilation != (1, 1) and ops.dtype(y) != "float32":
        kernel = _spread(ops, kernel, geometry)
        geometry = geometry._replace(kernel_size=geometry.extent, dilation=(1, 1))
    # MXNet takes as much off both ends; the rest is cut off after it.
    (top, bottom), (left, right) = geometry.padding
    rows, columns = min(top, bottom), min(left, right)
    channels = (ops.shape(kernel) or ())[1]
    assert channels is not None
    options = convolution_options(
        geometry._replace(padding=((rows, rows), (columns, columns))), channels * geometry.groups
    )
    functions = mx.sym.npx if isinstance(y, mx.sym.Symbol) else mx.npx
    x = functions.deconvolution(y, kernel, adj=output_padding, **options)
    for axis, before, after in ((2, top - rows, bottom - rows), (3, left - columns, right - columns)):
        if before or after:
            x = sliced(x, axis, before, -after or None)
    return x


def _spread(ops: Operations, kernel: Any, geometry: Geometry) -> Any:
    """The kernel OIHW with the zeros of its dilation written out."""
    outputs, inputs, h, w = ops.shape(kernel) or ()
    (dh, dw), (rows, columns) = geometry.dilation, geometry.extent
    lines = ops.pad(ops.reshape(kernel, (outputs, inputs, h, 1, w)), ((0, 0), (0, 0), (0, 0), (0, dh - 1), (0, 0)))
    kernel = ops.reshape(
        sliced(ops.reshape(lines, (outputs, inputs, h * dh, w)), 2, 0, rows), (outputs, inputs, rows, w, 1)
    )
    spread = ops.pad(kernel, ((0, 0), (0, 0), (0, 0), (0, 0), (0, dw - 1)))
    return sliced(ops.reshape(spread, (outputs, inputs, rows, w * dw)), 3, 0, columns)


def sliced(x: Any, axis: int, start: int, stop: int | None) -> Any:
    """x[start:stop] along an axis; basic slicing would crash, since it misreads oneDNN's blocked layout."""
    functions = mx.sym if isinstance(x, mx.sym.Symbol) else mx.nd
    return functions.slice_axis(x.as_nd_ndarray(), axis=axis, begin=start, end=stop).as_np_ndarray()


def spare_channels(outputs: int, geometry: Geometry) -> int:
    """Zero output channels to add: with fewer than four, MXNet's convolution is 20 times slower from 7x7 on."""
    h, w = geometry.kernel_size
    return 8 - outputs if outputs < 4 and geometry.groups == 1 and h * w >= 49 else 0
