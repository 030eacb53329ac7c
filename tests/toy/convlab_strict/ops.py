"""The contract's operations; the convolution is convlab's own algorithm, since the standard has none."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import array_api_strict as xp
import numpy as np

from convlab.algorithms.border import with_border
from convlab.algorithms.taps import taps
from convlab.contract.operations import Operations
from convlab.errors import UnsupportedError
from convlab.geometry.geometry import Geometry


class StrictOperations(Operations):
    @property
    def version(self) -> str:
        return xp.__version__

    def devices(self) -> list[str]:
        return ["cpu"]

    def scope(self, dtype: str | None) -> AbstractContextManager[Any]:
        return np.errstate(over="ignore", invalid="ignore")  # NumPy, with which it computes, warns of infinities

    def shape(self, x: Any) -> tuple[int, ...]:
        return x.shape

    def dtype(self, x: Any) -> str:
        return str(x.dtype).rpartition(".")[2]

    def asarray(self, array: np.ndarray, dtype: str, like: Any = None) -> Any:
        return xp.asarray(np.array(array, dtype))

    def to_numpy(self, x: Any) -> np.ndarray:
        return np.asarray(x)

    def cast(self, x: Any, dtype: str) -> Any:
        return xp.astype(x, getattr(xp, dtype), copy=False)

    def reshape(self, x: Any, shape: Sequence[int]) -> Any:
        return xp.reshape(x, tuple(shape))

    def transpose(self, x: Any, axes: Sequence[int]) -> Any:
        return xp.permute_dims(x, tuple(axes))

    def pad(self, x: Any, widths: Sequence[tuple[int, int]], value: float = 0.0) -> Any:
        padded = self.zeros([n + before + after for n, (before, after) in zip(x.shape, widths, strict=True)], x)
        padded[...] = value
        padded[tuple(slice(before, before + n) for n, (before, _) in zip(x.shape, widths, strict=True))] = x
        return padded

    def flip(self, x: Any, axes: Sequence[int]) -> Any:
        return xp.flip(x, axis=tuple(axes))

    def take(self, x: Any, index: Sequence[int] | np.ndarray, axis: int) -> Any:
        return xp.take(x, xp.asarray(np.asarray(index, np.int64)), axis=axis)

    def stack(self, tensors: Sequence[Any], axis: int) -> Any:
        return xp.stack(list(tensors), axis=axis)

    def where(self, condition: Any, x: Any, y: Any) -> Any:
        return xp.where(condition, x, y)

    def zeros(self, shape: Sequence[int], like: Any) -> Any:
        return xp.zeros(tuple(shape), dtype=like.dtype)

    def part(self, x: Any, start: int, size: int, axis: int) -> Any:
        return x[(slice(None),) * axis + (slice(start, start + size), ...)]  # the standard wants every axis named

    def conv(self, x: Any, kernel: Any, geometry: Geometry) -> Any:
        if geometry.data_format == "NHWC":
            geometry = geometry._replace(data_format="NCHW")
            y = self.conv(self.transpose(x, (0, 3, 1, 2)), self.transpose(kernel, (3, 2, 0, 1)), geometry)
            return self.transpose(y, (0, 2, 3, 1))
        return taps(self, with_border(self, x, geometry), kernel, geometry)

    def vjp(self, function: Callable[..., Any], inputs: Sequence[Any], dy: Any) -> tuple[Any, ...]:
        raise UnsupportedError("backend 'strict': the standard has no autograd.", hint="use another backend.")


ops = StrictOperations()
