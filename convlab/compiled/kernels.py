"""Correlation of NumPy arrays at the processor's speed, by numba kernels (`convlab.compiled.tiling.numba_installed`).

All arrays are NCHW and OIHW, float32 or float64; float16 is computed in float32 and rounded once. numba is imported,
and kernels are compiled or fetched from its cache on disk, when they are first used.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Literal, NamedTuple

import numpy as np

from ..dtypes import itemsize
from ..geometry.geometry import NO_PADDING, Geometry
from . import threads
from .instructions import instruction_set
from .tiling import border_indices, phase_by_phase, phase_offsets

# A thread computes about so many products of 64-byte vectors in a microsecond, and reads or writes so many elements.
_PRODUCTS_PER_MICROSECOND, _ELEMENTS_PER_MICROSECOND = 3000, 20_000
# A second thread is used for work of at least `_PAYS` microseconds; a chunk of work takes at least `_CHUNK`.
_PAYS, _CHUNK = 150, 20
# The bytes of gathered rows that stay in a thread's cache.
_SCRATCH = 2**18


KernelAlgorithm = Literal["direct", "fft"]
Task = Literal["correlate", "gradient", "separable"]


def correlate(
    x: np.ndarray,
    k: np.ndarray,
    geometry: Geometry,
    algorithm: KernelAlgorithm = "direct",
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Cross-correlation: y[n,o,i,j] is the sum of padded x[n, c, i*sh + p*dh, j*sw + q*dw] * k[o,c,p,q] over c, p, q.

    Args:
        x: (N, C, H, W), float16, float32 or float64.
        k: (O, C/groups, h, w), of x's dtype.
        geometry: NCHW, with padding in integers.
        algorithm: "direct" for sums of products in the order (channel, kernel row, kernel column), or "fft", where
            `fits_fft(geometry)`. If the latter's result isn't finite, "direct" computes it again.
        out: where to put the result, C-contiguous and of x's dtype.

    Returns:
        (N, O, H', W') of x's dtype.
    """
    if x.dtype == np.float16:
        return _rounded(correlate(_wide(x), _wide(k), geometry, algorithm), out)
    x, k = ready(x), ready(k)
    layout = band_layout(x.shape, k.shape, geometry, x.itemsize)
    y = np.empty(layout.shape, x.dtype) if out is None else out
    if not y.size:
        return y
    if algorithm == "fft" and compiled_module("fft").correlate_tiles(x, k, y, geometry):
        return y
    work, arguments = compiled_module("direct").correlate_bands, layout.arguments
    if layout.chunk >= layout.items:
        work(x, k, y, *arguments, 0, layout.items)
    else:
        threads.spread(lambda start, stop: work(x, k, y, *arguments, start, stop), layout.items, layout.chunk)
    return y


def kernel_gradient(
    x: np.ndarray, dy: np.ndarray, geometry: Geometry, algorithm: KernelAlgorithm = "direct"
) -> np.ndarray:
    """The gradient of sum(dy * correlate(x, k)) with respect to k.

    Args:
        x: (N, C, H, W), float16, float32 or float64.
        dy: (N, O, H', W'), of x's dtype.
        geometry: NCHW, with padding in integers.
        algorithm: "direct" or, where `fits_fft(geometry)`, "fft"; both add up the sums of bands in float64.

    Returns:
        (O, C/groups, h, w) of x's dtype.
    """
    if x.dtype == np.float16:
        return _rounded(kernel_gradient(_wide(x), _wide(dy), geometry, algorithm))
    x, dy = ready(x), ready(dy)
    shape = (dy.shape[1], x.shape[1] // geometry.groups, *geometry.kernel_size)
    if not dy.size:
        return np.zeros(shape, x.dtype)
    if algorithm == "fft":
        total, finite = compiled_module("fft").gradient_of_tiles(x, dy, geometry)
        if finite:
            return _narrowed(total, x.dtype)
    layout = band_layout(x.shape, shape, geometry, x.itemsize, "gradient")
    work = compiled_module("direct").gradient_bands
    totals = np.zeros((layout.parts, *shape))
    items = layout.parts * x.shape[1]
    chunk = items if layout.chunk >= layout.items else max(1, items // 32)
    threads.spread(lambda start, stop: work(x, dy, totals, layout.arguments[0], start, stop), items, chunk)
    return _narrowed(totals.sum(axis=0), x.dtype)


def aligned(shape: Sequence[int], dtype: Any) -> np.ndarray:
    """An array that starts at a multiple of 64 bytes, as JAX and TensorFlow want the memory they share."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    array: np.ndarray = memory[start : start + size].view(dtype).reshape(shape)
    return array


def separable(
    x: np.ndarray, u: np.ndarray, v: np.ndarray, geometry: Geometry, out: np.ndarray | None = None
) -> np.ndarray:
    """`correlate` of each image with the kernel outer(u, v): with its row v, then with its column u.

    Args:
        x: (N, C, H, W), float16, float32 or float64.
        u: (h,), of x's dtype.
        v: (w,), of x's dtype.
        geometry: NCHW, with padding in integers and a group for each channel.
        out: where to put the result, C-contiguous and of x's dtype.

    Returns:
        (N, C, H', W') of x's dtype.
    """
    if x.dtype == np.float16:
        return _rounded(separable(_wide(x), _wide(u), _wide(v), geometry), out)
    x, u, v = ready(x), ready(u), ready(v)
    layout = band_layout(x.shape, (x.shape[1], 1, len(u), len(v)), geometry, x.itemsize, "separable")
    y = np.empty(layout.shape, x.dtype) if out is None else out
    if y.size:
        work = compiled_module("direct").separable_bands
        threads.spread(lambda start, stop: work(x, u, v, y, *layout.arguments, start, stop), layout.items, layout.chunk)
    return y


def separate(k: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Two vectors u (h,) and v (w,) of k's dtype for which outer(u, v) is k (h, w) but for two roundings.

    For a kernel of integers they are integers, so that an exact correlation stays exact. None if there are no such
    vectors, or if k has one row or one column.
    """
    if 1 in k.shape:
        return None
    flat = int(np.abs(k).argmax())
    pivot = k.item(flat)
    # If there is a NaN, argmax finds it.
    if not math.isfinite(pivot) or not pivot:
        return None
    p, q = divmod(flat, k.shape[1])
    column, row = k[:, q].astype(np.float64), k[p].astype(np.float64)
    u, v = column, row / pivot
    if all(map(float.is_integer, row.tolist())):
        v = row / float(math.gcd(*map(int, row.tolist())))
        u = column / v[q]
    u, v = u.astype(k.dtype), v.astype(k.dtype)
    error = np.abs(np.multiply.outer(u, v).astype(np.float64) - k)
    return (u, v) if bool((error <= 2 * np.finfo(k.dtype).eps * np.abs(k)).all()) else None


def compile_ahead() -> None:
    """Compile the kernels for float32, or fetch what is compiled: half a minute once on a machine, then a second."""
    x, rows = np.ones((1, 1, 48, 48), np.float32), np.ones(3, np.float32)
    for size in (3, 5, 7, 9):
        k = np.ones((1, 1, size, size), np.float32)
        kernel_gradient(x, correlate(x, k, Geometry((size, size))), Geometry((size, size)))
    geometry = Geometry((9, 9))
    kernel_gradient(x, correlate(x, k, geometry, "fft"), geometry, "fft")
    separable(x, rows, rows, Geometry((3, 3)))


class _Layout(NamedTuple):
    """How a kernel computes inputs of some shapes.

    Attributes:
        shape: the result's shape.
        arguments: the plan, which `direct` describes, and the extents that the kernels are compiled for.
        items: how many pieces of work there are.
        chunk: how many of them a thread takes at a time.
        parts: how many sums a gradient is split into.
    """

    shape: tuple[int, int, int, int]
    arguments: tuple[np.ndarray, tuple[int, ...], tuple[int, ...]]
    items: int
    chunk: int
    parts: int


@functools.lru_cache(512)
def band_layout(
    x: tuple[int, ...], k: tuple[int, ...], geometry: Geometry, itemsize: int, task: Task = "correlate"
) -> _Layout:
    """How a task cuts its work into bands, for images of shape x and kernels of shape k."""
    (images, channels, height, width), (outputs, per_group, h, w) = x, k
    (stride, step), (dilation, spread) = geometry.stride, geometry.dilation
    rows, columns = geometry.output_size((height, width))
    if h == 1:
        # The dilation of one row makes no difference; rows share the most if it equals the stride.
        dilation = stride
    gathered = geometry.padding != NO_PADDING or step > 1
    down = border_indices(height, geometry.padding[0], geometry.padding_mode)
    right = border_indices(width, geometry.padding[1], geometry.padding_mode)
    phase = -(-len(right) // step)
    right, offsets = phase_by_phase(right, step, phase), phase_offsets(np.arange(w) * spread, step, phase)
    left = geometry.padding[1][0]
    copied = (left, left + width, -left) if step == 1 else (0, 0, 0)

    lanes = 64 // itemsize
    products = (h + w if task == "separable" else h * w) * per_group * outputs // geometry.groups
    row_cost = (
        products * -(-columns // lanes) / _PRODUCTS_PER_MICROSECOND + columns * per_group / _ELEMENTS_PER_MICROSECOND
    )
    # A gradient's sums are set up and added up for each band, and what two bands share is gathered twice. Bands are
    # even, and each has the rows of a block.
    least = 32 if task == "gradient" else max(8 * dilation // math.gcd(dilation, stride), geometry.extent[0] // 4)
    scratches = per_group if task == "correlate" else 1
    band = max(least, int(_CHUNK / max(row_cost, 1e-9)))
    if gathered or task == "separable":
        band = min(band, max(least, _SCRATCH // (max(len(right), 1) * itemsize * stride * scratches)))
    per_image = -(-rows // min(band, max(rows, 1)))
    bands = images * per_image
    items = bands * geometry.groups
    cost = row_cost * rows * images * geometry.groups
    pieces = min(32, int(cost / _CHUNK)) if cost > _PAYS else 1
    header = stride, dilation, len(right) if gathered else 0, *copied, -(-rows // per_image), per_image, w, len(down)
    plan = np.concatenate([header, offsets, down, right]).astype(np.int64)
    arguments = plan, *compiled_module("direct").extents(h, w, dilation % stride == 0)
    parts = max(1, min(bands, -(-pieces // max(channels, 1))))
    return _Layout((images, outputs, rows, columns), arguments, items, max(1, -(-items // max(pieces, 1))), parts)


def is_shared(x: Sequence[int], k: Sequence[int], geometry: Geometry, dtype: str) -> bool:
    """Whether `correlate` by "direct", for inputs of two shapes and of a dtype, shares its work among threads."""
    layout = band_layout(tuple(x), tuple(k), geometry, max(4, itemsize(dtype)))
    return layout.chunk < layout.items


@functools.cache
def compiled_module(name: str) -> ModuleType:
    """A module of this package that needs numba; it is imported when it is first asked for."""
    return importlib.import_module(f".{name}", __package__)


def ready(a: np.ndarray) -> np.ndarray:
    """The array, C-contiguous and of a type that numba has compiled for: a read-only array has another type."""
    a = np.ascontiguousarray(a)
    if a.flags.writeable or not a.size:
        return a
    memory: Any = (ctypes.c_byte * a.nbytes).from_address(a.ctypes.data)
    memory.owner = a  # keeps the array alive as long as the new one
    return np.frombuffer(memory, a.dtype).reshape(a.shape)


def _wide(a: np.ndarray) -> np.ndarray:
    """The float16 array in float32."""
    return np.asarray(a, np.float32) if instruction_set() == "other" else compiled_module("halves").widened(ready(a))


def _rounded(y: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """The C-contiguous float32 array in float16, in `out` if there is one."""
    out = np.empty(y.shape, np.float16) if out is None else out
    if instruction_set() == "other":
        with np.errstate(over="ignore"):
            out[...] = y
    else:
        compiled_module("halves").narrow_into(y, out)
    return out


def _narrowed(y: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    with np.errstate(over="ignore"):
        return y.astype(dtype)
