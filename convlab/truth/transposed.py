"""The true result of `conv_transpose2d`, in float64 by the definition, and how far rounding may take another from it.

The definition scatters: each pixel of Y adds a copy of K, times itself, to the result. convlab's own algorithms gather.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

import numpy as np

from ..geometry.checks import choice
from ..geometry.options import channels_follow, check_shapes, kernel_size, options
from ..geometry.transposed import TransposedOptions, lower_transposed
from .bounds import ALGORITHMS, magnitude, rounded_sum_bound, sum_bound, transform_bound
from .oracle import computed_in, wide

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike


def transposed_oracle(
    Y: ArrayLike, K: ArrayLike, *, bias: ArrayLike | None = None, **geometry: Unpack[TransposedOptions]
) -> np.ndarray:
    """`conv_transpose2d(Y, K)` of any arrays' values in float64; integers in int64.

    >>> transposed_oracle([[1, 2]], [[1, 10, 100]], stride=(1, 2))
    array([[  1,  10, 102,  20, 200]])
    """
    y, k = wide(Y), wide(K)
    dtype = np.result_type(y, k)
    images, weights, layout = _canonical(y.astype(dtype), k.astype(dtype), geometry.get("data_format"))
    x = _scattered(images, weights, geometry)
    if bias is not None:
        x = x + wide(bias).reshape(-1, 1, 1)
    return layout.restored(x)


def transposed_error_bound(
    Y: ArrayLike,
    K: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    dtype: DTypeLike | None = None,
    algorithm: str = "direct",
    **geometry: Unpack[TransposedOptions],
) -> np.ndarray:
    """For each element of `conv_transpose2d(Y, K, bias=bias)`: how far rounding may take it from the true value.

    It is that of a sum of as many products as come together in one element (`convlab.truth.bounds`).

    Args:
        Y: the image, with the values that the computation started from.
        K: the kernel, likewise.
        bias: the bias, likewise.
        dtype: the dtype of the computation; by default the one that conv_transpose2d computes them in.
        algorithm: "direct", "reproducible" or "fft", as in `error_bound`.
        geometry: conv_transpose2d's stride, padding, … .

    Returns:
        float64 array of the result's shape. 0 where integers are computed exactly.
    """
    choice("algorithm", algorithm, ALGORITHMS)
    dtype, factors = computed_in(dtype, Y, K, bias), (magnitude(Y), magnitude(K))
    total = transposed_oracle(*factors, bias=None if bias is None else magnitude(bias), **geometry)
    if dtype == "int64":
        return np.zeros_like(total)
    # The bias is one more term, and rounding a wider sum to dtype counts as another.
    n = int(transposed_oracle(*(np.ones_like(a) for a in factors), **geometry).max(initial=0)) + 2
    if algorithm == "direct":
        return sum_bound(total, n, dtype, *factors)
    if algorithm == "fft":
        images, weights, _ = _canonical(*factors, geometry.get("data_format"))
        return transform_bound(total, *factors, _scattered(images, weights, geometry).shape[2:], dtype)
    return rounded_sum_bound(transposed_oracle(Y, K, bias=bias, **geometry), total, n, dtype, *factors)


class _Layout(NamedTuple):
    """How an image was laid out before it became NCHW.

    Attributes:
        leading: the axes before the rows and the columns, without channels that the kernel takes.
        channels: whether the kernel takes channels.
        last: whether channels come last.
    """

    leading: tuple[int, ...]
    channels: bool
    last: bool

    def restored(self, x: np.ndarray) -> np.ndarray:
        """The array NCHW in that layout."""
        x = x.reshape(*self.leading, *x.shape[1 if self.channels else 2 :])
        return np.moveaxis(x, -3, -1) if self.last else x


def _canonical(y: np.ndarray, k: np.ndarray, data_format: str | None) -> tuple[np.ndarray, np.ndarray, _Layout]:
    """The image and the kernel as NCHW and OIHW, and the way back."""
    checked, _ = options(kernel_size(k.shape, data_format), data_format=data_format)
    channels = k.ndim == 4
    last = channels_follow(y.shape, k.shape, checked) or (channels and checked.data_format == "NHWC")
    y = np.moveaxis(y, -1, -3) if last else y
    layout = _Layout(y.shape[: -3 if channels else -2], channels, last)
    y = y.reshape(math.prod(layout.leading), y.shape[-3] if channels else 1, *y.shape[-2:])
    return y, k.transpose(3, 2, 0, 1) if channels and last else k.reshape((1,) * (4 - k.ndim) + k.shape), layout


def _scattered(y: np.ndarray, k: np.ndarray, given: TransposedOptions) -> np.ndarray:
    """The result for NCHW and OIHW."""
    of_place = {name: value for name, value in given.items() if name not in ("output_padding", "data_format")}
    checked, padding = options(k.shape[2:], **of_place)
    size = check_shapes(y.shape, k.shape, checked, transposed=True)
    geometry, more, zeros, _ = lower_transposed(checked, padding, given.get("output_padding", 0), size)
    added = tuple(m + z * s for m, z, s in zip(more, zeros, geometry.stride, strict=True))
    x = scattered(y, k, geometry.stride, geometry.dilation, geometry.groups, added)
    (top, bottom), (left, right) = geometry.padding
    return x[:, :, top : x.shape[2] - bottom, left : x.shape[3] - right]


def scattered(
    y: np.ndarray,
    k: np.ndarray,
    stride: Sequence[int],
    dilation: Sequence[int],
    groups: int = 1,
    added: Sequence[int] = (),
) -> np.ndarray:
    """The whole transposed convolution, of any number of axes: each pixel adds a copy of the kernel, times itself.

    Args:
        y: (N, O, *size).
        k: (O, C/groups, *kernel_size), of y's dtype.
        stride: of the copies of the kernel, for each axis.
        dilation: steps between the kernel's elements, for each axis.
        groups: of channels.
        added: places of the result behind the last copy, for each axis; none by default.

    Returns:
        (N, C, *whole_size).

    >>> scattered(np.array([[[1, 2]]]), np.array([[[1, 10, 100]]]), (2,), (1,))
    array([[[  1,  10, 102,  20, 200]]])
    """
    (images, outputs, *size), (per_group, *kernel_size) = y.shape, k.shape[1:]
    added = added or (0,) * len(size)
    axes = list(zip(size, kernel_size, stride, dilation, added, strict=True))
    whole = [(n - 1) * s + (length - 1) * d + 1 + more for n, length, s, d, more in axes]
    total = np.zeros((images, groups, per_group, *whole), y.dtype)
    y = y.reshape(images, groups, outputs // groups, *size)
    k = k.reshape(groups, outputs // groups, per_group, *kernel_size)
    for place in np.ndindex(*kernel_size):
        copies: Any = tuple(
            slice(at * d, at * d + (n - 1) * s + 1, s) for at, (n, _, s, d, _) in zip(place, axes, strict=True)
        )
        total[(..., *copies)] += np.einsum("ngo...,goc->ngc...", y, k[(..., *place)])
    return total.reshape(images, groups * per_group, *whole)
