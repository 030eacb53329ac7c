"""NumPy as a backend: its adapter, and the operations that the rest of convlab is tested against.

`conv` and `conv_vjp` follow the definition of cross-correlation, one kernel element at a time, in float64 (complex128
for complex, int64 or Python objects exactly). They share no code with the algorithms of the core.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from .compiled import threads
from .contract.adapter import Adapter, is_instance
from .contract.operations import Operations
from .contract.rule import Part
from .errors import UnsupportedError
from .geometry.geometry import Geometry, Pair
from .registry import default_backend

# Without ml_dtypes there are no arrays of bfloat16.
_HALF = ("float16", "bfloat16") if importlib.util.find_spec("ml_dtypes") else ("float16",)

adapter = Adapter(
    name="numpy",
    aliases=("np",),
    package="convlab_numpy",
    frameworks=("numpy",),
    is_native=lambda x: isinstance(x, (np.ndarray, np.generic)),
    minimum="1.23",
    dtypes=(*_HALF, "float32", "float64", "complex64", "complex128"),
    algorithms=("native", "taps", "fft", "separable"),
    models=True,
    is_model=lambda model: is_instance(model, "convlab_numpy.layers", "Conv2D"),
    autograd=False,
    second_derivatives=False,
    install=("numpy",),
)


class NumpyOperations(Operations[np.ndarray]):
    adapter = adapter

    @property
    def version(self) -> str:
        return np.__version__

    def devices(self) -> list[str]:
        return ["cpu"]

    def scope(self, dtype: str | None) -> AbstractContextManager[Any]:
        # Infinities and NaN cause no warnings, as in other frameworks.
        return np.errstate(over="ignore", invalid="ignore")

    def shape(self, x: np.ndarray) -> tuple[int, ...]:
        return np.shape(x)

    def dtype(self, x: np.ndarray) -> str:
        return str(x.dtype.name)

    def asarray(self, array: np.ndarray, dtype: str, like: np.ndarray | None = None) -> np.ndarray:
        return array.astype(_dtype(dtype), copy=False)

    def to_numpy(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(x, dtype=np.float32 if x.dtype.name == "bfloat16" else None)

    def cast(self, x: np.ndarray, dtype: str | None) -> Any:
        return np.asarray(x).astype(x.dtype if dtype is None else _dtype(dtype), copy=False)

    def reshape(self, x: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        return np.reshape(x, shape)

    def transpose(self, x: np.ndarray, axes: Sequence[int]) -> np.ndarray:
        return np.transpose(x, axes)

    def pad(self, x: np.ndarray, widths: Sequence[tuple[int, int]], value: float = 0.0) -> np.ndarray:
        return np.pad(x, widths, constant_values=value)

    def flip(self, x: np.ndarray, axes: Sequence[int]) -> Any:
        return np.flip(x, tuple(axes))

    def take(self, x: np.ndarray, index: Sequence[int] | np.ndarray, axis: int) -> np.ndarray:
        return np.take(x, index, axis)

    def stack(self, tensors: Sequence[Any], axis: int) -> np.ndarray:
        return np.stack(tensors, axis)

    def where(self, condition: np.ndarray, x: np.ndarray, y: np.ndarray) -> Any:
        return np.where(condition, x, y)

    def zeros(self, shape: Sequence[int], like: np.ndarray) -> np.ndarray:
        return np.zeros(shape, like.dtype)

    def sum(self, x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
        return np.sum(x, axes)  # type: ignore[no-any-return]

    def rfft2(self, x: np.ndarray, size: Pair) -> np.ndarray:
        from scipy import fft  # deferred: importing it takes a while

        return fft.rfft2(x, size, workers=threads.count())  # type: ignore[no-any-return]

    def irfft2(self, spectrum: np.ndarray, size: Pair) -> np.ndarray:
        from scipy import fft

        return fft.irfft2(spectrum, size, workers=threads.count())  # type: ignore[no-any-return]

    def conj(self, x: np.ndarray) -> Any:
        return np.conj(x)

    def tiles(self, x: np.ndarray, size: Pair, step: Pair) -> np.ndarray:
        return sliding_window_view(x, size, (2, 3))[:, :, :: step[0], :: step[1]]

    def floor(self, x: np.ndarray) -> Any:
        return np.floor(x)

    def every(self, condition: np.ndarray) -> bool:
        return bool(condition.all())

    def as_host(self, x: np.ndarray) -> np.ndarray:
        return x

    def from_host(self, array: np.ndarray, like: np.ndarray) -> np.ndarray:
        return array

    def signature(self, x: np.ndarray, k: np.ndarray, b: np.ndarray | None) -> Hashable | None:
        if type(k) is not np.ndarray or type(x) is not np.ndarray or default_backend() != "numpy":
            return None
        if b is None:
            return x.shape, x.dtype, k.shape, k.dtype
        return (x.shape, x.dtype, k.shape, k.dtype, b.shape, b.dtype) if type(b) is np.ndarray else None

    def number(self, value: float, like: np.ndarray) -> Any:
        # For a Python number, NumPy 1 would choose a dtype by the value.
        return like.dtype.type(value)

    def vjp(self, function: Callable[..., Any], inputs: Sequence[Any], dy: np.ndarray) -> tuple[Any, ...]:
        raise UnsupportedError(
            "backend 'numpy': NumPy has no autograd.", hint="conv_vjp computes the gradients of the convolution."
        )

    def conv(self, x: np.ndarray, kernel: np.ndarray, geometry: Geometry) -> np.ndarray:
        if geometry.data_format == "NHWC":
            y = self.conv(np.moveaxis(x, -1, 1), kernel.transpose(3, 2, 0, 1), geometry._replace(data_format="NCHW"))
            return np.moveaxis(y, 1, -1)
        windows = _Windows(_wide(x), kernel.shape, geometry)
        y = sum(k @ window for k, window in zip(windows.split_kernel(_wide(kernel)), windows, strict=True))
        with self.scope(None):
            return windows.join(y).astype(x.dtype, copy=False)

    def conv_transpose(self, y: np.ndarray, kernel: np.ndarray, geometry: Geometry, output_padding: Pair) -> np.ndarray:
        if geometry.data_format == "NHWC":
            y, kernel, geometry = (
                np.moveaxis(y, -1, 1),
                kernel.transpose(3, 2, 0, 1),
                geometry._replace(data_format="NCHW"),
            )
            return np.moveaxis(self.conv_transpose(y, kernel, geometry, output_padding), 1, -1)
        size = geometry.transposed_size((y.shape[2], y.shape[3]), output_padding)
        return self.conv_gradient("x", y, kernel, geometry, size)

    def conv_gradient(self, part: Part, a: np.ndarray, b: np.ndarray, geometry: Geometry, size: Pair) -> np.ndarray:
        if part == "x":
            x = np.zeros((len(a), b.shape[1] * geometry.groups, *size), a.dtype)
            return self.conv_vjp(x, b, a, geometry)[0].astype(a.dtype)
        kernel = np.zeros((b.shape[1], a.shape[1] // geometry.groups, *geometry.kernel_size), a.dtype)
        return self.conv_vjp(a, kernel, b, geometry)[1].astype(a.dtype)

    def conv_vjp(
        self, x: np.ndarray, kernel: np.ndarray, dy: np.ndarray, geometry: Geometry
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The gradients of sum(dy * conv(x, kernel)) with respect to x, the kernel and a bias; NCHW, zero padding."""
        windows = _Windows(_wide(x), kernel.shape, geometry)
        seed = windows.split(_wide(dy))
        dx = np.zeros_like(windows.padded)
        dk = np.zeros_like(windows.split_kernel(_wide(kernel)))
        slots = zip(windows.slots(), windows, windows.split_kernel(_wide(kernel)), strict=True)
        for index, (slot, window, k) in enumerate(slots):
            shape = dx[slot].shape
            dx[slot] += (np.swapaxes(k, -1, -2) @ seed).reshape(shape)
            dk[index] = (seed @ np.swapaxes(window, -1, -2)).sum(0)
        (top, _), (left, _) = geometry.padding
        height, width = x.shape[2:]
        dk = np.moveaxis(dk.reshape(*geometry.kernel_size, *kernel.shape[:2]), (0, 1), (2, 3))
        return dx[:, :, top : top + height, left : left + width], dk, _wide(dy).sum((0, 2, 3))


class _Windows:
    """The part of the padded image that each kernel element meets, in order: (N, groups, C/groups, H' * W')."""

    def __init__(self, x: np.ndarray, kernel_shape: Sequence[int], geometry: Geometry) -> None:
        self.padded = np.pad(x, ((0, 0), (0, 0), *geometry.padding))
        self.geometry = geometry
        self.outputs = kernel_shape[0]
        self.size = geometry.output_size((x.shape[2], x.shape[3]))

    def slots(self) -> Iterator[tuple[slice, ...]]:
        (sh, sw), (dh, dw) = self.geometry.stride, self.geometry.dilation
        rows, columns = self.size
        for p in range(self.geometry.kernel_size[0]):
            for q in range(self.geometry.kernel_size[1]):
                down = slice(p * dh, p * dh + (rows - 1) * sh + 1, sh)
                right = slice(q * dw, q * dw + (columns - 1) * sw + 1, sw)
                yield slice(None), slice(None), down, right

    def __iter__(self) -> Iterator[np.ndarray]:
        for slot in self.slots():
            yield self.split(self.padded[slot])

    def split(self, x: np.ndarray) -> np.ndarray:
        """An array (N, channels, H', W') as (N, groups, channels per group, H' * W')."""
        n, channels, rows, columns = x.shape
        groups = self.geometry.groups
        return x.reshape(n, groups, channels // groups, rows * columns)

    def split_kernel(self, kernel: np.ndarray) -> np.ndarray:
        """A kernel (OIHW) as (h * w, groups, O/groups, C/groups)."""
        outputs, per_group, h, w = kernel.shape
        groups = self.geometry.groups
        return np.moveaxis(kernel, (2, 3), (0, 1)).reshape(h * w, groups, outputs // groups, per_group)

    def join(self, y: np.ndarray) -> np.ndarray:
        return y.reshape(y.shape[0], self.outputs, *self.size)


def _wide(x: np.ndarray) -> np.ndarray:
    """The array in the dtype that sums are computed in."""
    if x.dtype.kind in "Oiub":
        return x
    return x.astype(np.complex128 if x.dtype.kind == "c" else np.float64, copy=False)


def _dtype(name: str) -> Any:
    """NumPy's dtype of a name."""
    if name == "bfloat16":
        # Only an array of that dtype leads here, so that ml_dtypes is installed.
        from ml_dtypes import bfloat16

        return np.dtype(bfloat16)
    return np.dtype(name)


ops = NumpyOperations()
