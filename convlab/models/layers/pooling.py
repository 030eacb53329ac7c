"""Pooling: the greatest element or the mean of windows, or of whole channels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np

from ...dtypes import SIGNIFICAND
from ...errors import UnsupportedError
from .layer import LOWEST, Layer, OfAnyRank, Pad
from .spatial import Ends, Size, fixed_padding, is_padded, padding_in, times, window


@dataclass(frozen=True, eq=False)
class Pool(Layer):
    """The greatest element, or the mean, of each window.

    Attributes:
        function: "max" or "average".
        size, stride: the windows' size and stride, for each axis.
        padding: as in corr2d, "same" or integers. The border doesn't count for a maximum.
        count_padding: whether the border counts for a mean.
        ceil: whether the last window may reach over the edge, beyond the padding.
    """

    kind = "pool"

    function: str
    size: Size
    stride: Size
    padding: Ends | str = "valid"
    count_padding: bool = False
    ceil: bool = False

    def __post_init__(self) -> None:
        spec = window(self.size, stride=self.stride, padding=self.padding)
        object.__setattr__(self, "padding", fixed_padding(spec))

    @property
    def whole_padding(self) -> Ends | None:
        """A border with which the windows are these without `ceil`; None where there is none for all images."""
        if isinstance(self.padding, str):
            return None
        if not self.ceil:
            return self.padding
        # So many more rows and columns give each window that begins in the image, if none can begin beyond it.
        axes = [*zip(self.padding, self.stride, self.size, strict=True)]
        if any(after + step > size for (_, after), step, size in axes):
            return None
        return tuple((before, after + step - 1) for (before, after), step, _ in axes)

    def output_size(self, size: Size) -> Size:
        """See `Layer.output_size`."""
        both = zip(size, *self.pads(size), self.size, self.stride, strict=True)
        return tuple((n + sum(pads) + sum(more) - k) // s + 1 for n, pads, more, k, s in both)

    def pads(self, size: Size) -> tuple[Ends, Ends]:
        """The border of an image of a size: what counts as padding, and what `ceil` adds."""
        spec = window(self.size, stride=self.stride, padding=self.padding)
        pads, more = padding_in(spec, size), []
        for n, k, s, (before, after) in zip(size, self.size, self.stride, pads, strict=True):
            over = (n + before + after - k) % s
            windows = (n + before + after - k) // s + 1
            # The last window must begin in the image or in the padding before it, as in PyTorch.
            more.append((0, s - over) if self.ceil and over and windows * s < n + before else (0, 0))
        return pads, tuple(more)

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        pads, more = self.pads(x.shape[2:])
        if self.function == "max":
            lowest = self._padded(self._padded(x, pads, -np.inf), more, -np.inf)
            return np.asarray(self._windows(lowest).max(self._last))
        counted = self._padded(np.ones(x.shape[2:]), pads, float(self.count_padding))
        count = self._windows(self._padded(counted, more, 0)).sum(self._last)
        return np.asarray(self._windows(self._padded(self._padded(x, pads, 0), more, 0)).sum(self._last) / count)

    @property
    def _last(self) -> Size:
        return tuple(range(-len(self.size), 0))

    def _padded(self, x: np.ndarray, pads: Ends, value: float) -> np.ndarray:
        return np.pad(x, ((0, 0),) * (x.ndim - len(pads)) + pads, constant_values=value)

    def _windows(self, x: np.ndarray) -> np.ndarray:
        windows = np.lib.stride_tricks.sliding_window_view(x, self.size, axis=self._last)
        places: Any = (..., *(slice(None, None, step) for step in self.stride), *(slice(None),) * len(self.size))
        return np.asarray(windows[places])

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`."""
        if self.function == "max":
            return np.asarray(self.reference(off))
        terms = math.prod(self.size) + 1
        return self.reference(off) + terms * 2.0 ** -SIGNIFICAND[dtype] * self.reference(np.abs(x) + off)


def average_of_inside(size: Size, stride: Size, padding: Ends | str) -> Pool:
    """The mean of each window whose border doesn't count.

    Where the border is so much larger at the end as PyTorch's `ceil_mode` has it, the layer has `ceil` in its place.

    >>> average_of_inside((3,), (2,), ((1, 2),))
    Pool(function='average', size=(3,), stride=(2,), padding=((1, 1),), count_padding=False, ceil=True)
    """
    return _with_ceil(Pool("average", size, stride, padding))


def join_pool(border: Pad, pool: Pool) -> Pool | None:
    """The pool that has the border as its padding; None where it already has another.

    A maximum's border is taken for one that doesn't count: zeros are none if there are negative numbers.

    >>> join_pool(Pad(((1, 2),)), Pool("max", (3,), (2,)))
    Pool(function='max', size=(3,), stride=(2,), padding=((1, 1),), count_padding=False, ceil=True)
    """
    zeros = border.mode == "zeros" and not border.value
    if is_padded(pool.padding) or pool.ceil or not (zeros or border.mode == LOWEST):
        return None
    if pool.function == "max":
        return _with_ceil(replace(pool, padding=border.pads))
    return replace(pool, padding=border.pads, count_padding=True)


def _with_ceil(pool: Pool) -> Pool:
    """The same pool with `ceil` in the place of a border that is larger at the end, if it has so large a one."""
    if isinstance(pool.padding, str):
        return pool
    around = tuple((before, before) for before, _ in pool.padding)
    with_ceil = replace(pool, padding=around, ceil=True)
    return with_ceil if with_ceil.whole_padding == pool.padding != around else pool


_REDUCTIONS: dict[str, Callable[..., Any]] = {"max": np.max, "average": np.mean, "sum": np.sum}


@dataclass(frozen=True, eq=False)
class GlobalPool(OfAnyRank):
    """The greatest element, the mean or the sum, of each channel.

    Attributes:
        function: "max", "average" or "sum".
        keepdims: whether the result is an image of one pixel, (N, C, 1, 1), or (N, C).
    """

    kind = "global_pool"

    function: str
    keepdims: bool = True

    def output_size(self, size: Size) -> Size:
        """See `Layer.output_size`."""
        return (1,) * len(size)

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        return np.asarray(_REDUCTIONS[self.function](x, axis=tuple(range(2, x.ndim)), keepdims=self.keepdims))

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`."""
        if self.function == "max":
            return np.asarray(self.reference(off))
        terms = math.prod(x.shape[2:]) + 1
        rounding = terms * 2.0 ** -SIGNIFICAND[dtype] * self.reference(np.abs(x) + off)
        return np.asarray(self.reference(off) + rounding)


@dataclass(frozen=True, eq=False)
class ChannelPool(Layer):
    """The greatest channel, or the mean or the sum of all, of each pixel, as an image of one channel.

    CBAM has it, arXiv:1807.06521.

    Attributes:
        function: "max", "average" or "sum".
    """

    kind = "channel_pool"

    function: str

    def output_channels(self, channels: int) -> int:
        """See `Layer.output_channels`."""
        return 1

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        return np.asarray(_REDUCTIONS[self.function](x, axis=1, keepdims=True))

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`."""
        if self.function == "max":
            return self.reference(off)
        rounding = (x.shape[1] + 1) * 2.0 ** -SIGNIFICAND[dtype] * self.reference(np.abs(x) + off)
        return np.asarray(self.reference(off) + rounding)


@dataclass(frozen=True, eq=False)
class AdaptivePool(Layer):
    """The greatest element, or the mean, of each of as many windows as the result has pixels, in PyTorch alone.

    Window i of k begins at pixel floor(i * n / k) of n and ends before ceil((i + 1) * n / k), on each axis.

    Attributes:
        function: "max" or "average".
        size: the rows and columns of the result.
    """

    kind = "adaptive_pool"

    function: str
    size: Size

    def at(self, size: Size) -> Pool | None:
        """The pooling with a stride that it is for images of a size; None if its windows differ there."""
        if any(n % k for n, k in zip(size, self.size, strict=True)):
            return None
        windows = tuple(n // k for n, k in zip(size, self.size, strict=True))
        return Pool(self.function, windows, windows)

    def output_size(self, size: Size) -> Size:
        """See `Layer.output_size`."""
        return self.size

    def _over_windows(self, x: np.ndarray, function: str) -> np.ndarray:
        reduce = np.max if function == "max" else np.mean
        inner = tuple(range(2, x.ndim))
        slices: list[list[Any]] = [
            [slice(i * n // k, -(-(i + 1) * n // k)) for i in range(k)]
            for n, k in zip(x.shape[2:], self.size, strict=True)
        ]
        windows = [reduce(x[(..., *ends)], axis=inner) for ends in itertools.product(*slices)]
        return np.stack(windows, -1).reshape(*x.shape[:2], *self.size)

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        return self._over_windows(x, self.function)

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`."""
        carried = self._over_windows(off, self.function)
        if self.function == "max":
            return carried
        terms = math.prod(n // k + 2 for n, k in zip(x.shape[2:], self.size, strict=True)) + 1
        rounding = terms * 2.0 ** -SIGNIFICAND[dtype] * self._over_windows(np.abs(x) + off, "average")
        return np.asarray(carried + rounding)


def lacks_adaptive(layer: AdaptivePool, style: str = "") -> NoReturn:
    """Refuse an adaptive pooling for MXNet, which has that of images by means alone."""
    raise UnsupportedError(
        f"MXNet has no adaptive pooling to {times(layer.size)} pixels by {layer.function}, for images of any size."
    )
