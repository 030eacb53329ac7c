"""What MXNet's own convolution takes, and what is better kept from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from convlab.algorithms.adjoint import transposed_correlation
from convlab.contract.operations import Operations
from convlab.errors import UnsupportedError
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
    """A transposed convolution: MXNet's own where it is right, or else a convolution of rearranged kernels.

    MXNet's own has wrong results for dilations in float64, and its gradient of a kernel that was computed, be it by a
    reshape, ends with oneDNN's "could not execute a primitive".
    """
    plain = geometry.data_format == "NCHW" and geometry.dilation == (1, 1)
    if isinstance(y, mx.sym.Symbol):
        if not plain or kernel.get_children() is not None:
            raise UnsupportedError(
                f"conv_transpose2d: got {geometry.data_format}, dilation {geometry.dilation} and K {kernel.name!r} in "
                "a hybridized block, expected NCHW, no dilation, and as K a parameter (O, C/groups, h, w): MXNet's own "
                "transposed convolution fails for others.",
                hint="don't hybridize the block.",
            )
    elif not plain or mx.autograd.is_recording() or ops.dtype(y) == "float16" or y.shape[3] > LONG_ROW:
        return transposed_correlation(ops, y, kernel, geometry, output_padding, ops.conv)
    # MXNet takes as much off both ends; the rest is cut off after it.
    (top, bottom), (left, right) = geometry.padding
    rows, columns = min(top, bottom), min(left, right)
    channels = ops.sizes(kernel)[1] * geometry.groups
    options = convolution_options(geometry._replace(padding=((rows, rows), (columns, columns))), channels)
    functions = mx.sym.npx if isinstance(y, mx.sym.Symbol) else mx.npx
    x = functions.deconvolution(y, kernel, adj=output_padding, **options)
    for axis, before, after in ((2, top - rows, bottom - rows), (3, left - columns, right - columns)):
        if before or after:
            x = sliced(x, axis, before, -after or None)
    return x


def sliced(x: Any, axis: int, start: int, stop: int | None) -> Any:
    """x[start:stop] along an axis; basic slicing would crash, since it misreads oneDNN's blocked layout."""
    functions = mx.sym if isinstance(x, mx.sym.Symbol) else mx.nd
    return functions.slice_axis(x.as_nd_ndarray(), axis=axis, begin=start, end=stop).as_np_ndarray()


def spare_channels(outputs: int, geometry: Geometry) -> int:
    """Zero output channels to add: with fewer than four, MXNet's convolution is 20 times slower from 7x7 on."""
    h, w = geometry.kernel_size
    return 8 - outputs if outputs < 4 and geometry.groups == 1 and h * w >= 49 else 0
