"""Pooling: the greatest element or the mean of windows, or of whole channels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from ...contract.layer import LayerSpec
from ...dtypes import SIGNIFICAND
from ...errors import UnsupportedError
from ...geometry.geometry import NO_PADDING, Pads, Pair
from .layer import Layer, fixed_padding, padding_in


@dataclass(frozen=True, eq=False)
class Pool(Layer):
    """The greatest element, or the mean, of each window.

    Attributes:
        function: "max" or "average".
        size, stride: the windows' size and stride.
        padding: as in corr2d, "same" or integers. The border doesn't count for a maximum.
        count_padding: whether the border counts for a mean.
        ceil: whether the last window may reach over the edge, beyond the padding.
    """

    kind = "pool"

    function: str
    size: Pair
    stride: Pair
    padding: Pads | str = NO_PADDING
    count_padding: bool = False
    ceil: bool = False

    def __post_init__(self) -> None:
        spec = LayerSpec(self.size, stride=self.stride, padding=self.padding)
        object.__setattr__(self, "padding", fixed_padding(spec))

    def output_size(self, size: Pair) -> Pair:
        """See `Layer.output_size`."""
        both = zip(size, *self.pads(size), self.size, self.stride, strict=True)
        rows, columns = ((n + sum(pads) + sum(more) - k) // s + 1 for n, pads, more, k, s in both)
        return rows, columns

    def pads(self, size: Pair) -> tuple[Pads, Pads]:
        """The border of an image of a size: what counts as padding, and what `ceil` adds."""
        spec = LayerSpec(self.size, stride=self.stride, padding=self.padding)
        pads, more = padding_in(spec, size), []
        for n, k, s, (before, after) in zip(size, self.size, self.stride, pads, strict=True):
            over = (n + before + after - k) % s
            windows = (n + before + after - k) // s + 1
            # The last window must begin in the image or in the padding before it, as in PyTorch.
            more.append((0, s - over) if self.ceil and over and windows * s < n + before else (0, 0))
        return pads, (more[0], more[1])

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        size = x.shape[2], x.shape[3]
        pads, more = self.pads(size)
        if self.function == "max":
            return np.asarray(self._windows(self._padded(self._padded(x, pads, -np.inf), more, -np.inf)).max((-2, -1)))
        counted = self._padded(np.ones(x.shape[2:]), pads, float(self.count_padding))
        count = self._windows(self._padded(counted, more, 0)).sum((-2, -1))
        return np.asarray(self._windows(self._padded(self._padded(x, pads, 0), more, 0)).sum((-2, -1)) / count)

    def _padded(self, x: np.ndarray, pads: Pads, value: float) -> np.ndarray:
        return np.pad(x, ((0, 0),) * (x.ndim - 2) + pads, constant_values=value)

    def _windows(self, x: np.ndarray) -> np.ndarray:
        windows = np.lib.stride_tricks.sliding_window_view(x, self.size, axis=(-2, -1))
        return np.asarray(windows[..., :: self.stride[0], :: self.stride[1], :, :])

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`."""
        if self.function == "max":
            return np.asarray(self.reference(off))
        terms = math.prod(self.size) + 1
        return self.reference(off) + terms * 2.0 ** -SIGNIFICAND[dtype] * self.reference(np.abs(x) + off)


@dataclass(frozen=True, eq=False)
class GlobalPool(Layer):
    """The greatest element, or the mean, of each channel.

    Attributes:
        function: "max" or "average".
        keepdims: whether the result is (N, C, 1, 1) or (N, C).
    """

    kind = "global_pool"

    function: str
    keepdims: bool = True

    def output_size(self, size: Pair) -> Pair:
        """See `Layer.output_size`."""
        return 1, 1

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        reduce = np.max if self.function == "max" else np.mean
        return np.asarray(reduce(x, axis=(2, 3), keepdims=self.keepdims))

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`."""
        if self.function == "max":
            return np.asarray(self.reference(off))
        terms = x.shape[2] * x.shape[3] + 1
        rounding = terms * 2.0 ** -SIGNIFICAND[dtype] * self.reference(np.abs(x) + off)
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
    size: Pair

    def at(self, size: Pair) -> Pool | None:
        """The pooling with a stride that it is for images of a size; None if its windows differ there."""
        if any(n % k for n, k in zip(size, self.size, strict=True)):
            return None
        window = size[0] // self.size[0], size[1] // self.size[1]
        return Pool(self.function, window, window)

    def output_size(self, size: Pair) -> Pair:
        """See `Layer.output_size`."""
        return self.size

    def _over_windows(self, x: np.ndarray, function: str) -> np.ndarray:
        reduce = np.max if function == "max" else np.mean
        rows, columns = (
            [slice(i * n // k, -(-(i + 1) * n // k)) for i in range(k)]
            for n, k in zip(x.shape[2:], self.size, strict=True)
        )
        lines = [np.stack([reduce(x[:, :, down, across], axis=(2, 3)) for across in columns], -1) for down in rows]
        return np.stack(lines, -2)

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
    """Refuse an adaptive pooling for a framework that has none."""
    rows, columns = layer.size
    raise UnsupportedError(f"only PyTorch has an adaptive pooling to {rows}x{columns} pixels for images of any size.")
