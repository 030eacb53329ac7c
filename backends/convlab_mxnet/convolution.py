"""What MXNet's own convolution takes, and what is better kept from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from convlab.geometry.geometry import Geometry

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


def spare_channels(outputs: int, geometry: Geometry) -> int:
    """Zero output channels to add: with fewer than four, MXNet's convolution is 20 times slower from 7x7 on."""
    h, w = geometry.kernel_size
    return 8 - outputs if outputs < 4 and geometry.groups == 1 and h * w >= 49 else 0
