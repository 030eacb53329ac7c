"""Filtering pixels: each colour by itself, premultiplied with its opacity, a strip of rows at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

import numpy as np

from ..correlation.corr2d import corr2d
from ..errors import DataError, GeometryError
from ..geometry import names
from ..geometry.checks import shown
from ..geometry.geometry import PaddingMode, Pads
from ..lab import Backend, backend

# About how many numbers a strip of rows has: they stay in a processor's cache.
_STRIP = 2**20

DTYPES = ("uint8", "uint16", "int16", "int32", "float32", "float64")


class FilterOptions(TypedDict, total=False):
    """The keyword arguments of `filter_image` and their types."""

    signed: bool
    border: str
    border_value: float
    dtype: str | None
    scale: float | None
    offset: float | None


@dataclass(frozen=True)
class Filter:
    """What is done to each image.

    Attributes:
        kernel: (h, w), finite.
        backend: the name of the backend that computes.
        border: what lies beyond the image, a `padding_mode` of `corr2d`.
        border_value: the value beyond the image for the border "constant".
        signed: show the response of a kernel that sums to 0 around mid-grey.
        dtype: of the result; the image's own if None.
        scale, offset: the result is response * scale + offset.
    """

    kernel: np.ndarray
    backend: str
    border: str = "reflect"
    border_value: float = 0.0
    signed: bool = False
    dtype: str | None = None
    scale: float | None = None
    offset: float | None = None

    def __post_init__(self) -> None:
        # An unknown name raises an error.
        if self.padding_mode != "zeros" and self.border_value != 0:
            raise GeometryError(
                f"border_value: got {self.border_value} with border={self.border!r}, expected border='constant'.",
                hint="leave it out, or choose the border 'constant'.",
            )
        if self.dtype is not None and self.dtype not in DTYPES:
            raise GeometryError(
                f"dtype: got {shown(self.dtype)}, expected one of {', '.join(DTYPES)}.",
                hint="float32 holds every response.",
            )
        for name in ("border_value", "scale", "offset"):
            value = getattr(self, name)
            if value is not None and not np.isfinite(value):
                raise GeometryError(f"{name}: got {value}, expected a finite number.", hint=f"{name}=1 is an example.")

    @property
    def choices(self) -> FilterOptions:
        """All but the kernel and the backend."""
        return FilterOptions(
            signed=self.signed,
            border=self.border,
            border_value=self.border_value,
            dtype=self.dtype,
            scale=self.scale,
            offset=self.offset,
        )

    @property
    def padding_mode(self) -> PaddingMode:
        """The border by corr2d's own name."""
        border: str | int = int(self.border) if str(self.border).isdecimal() else self.border
        try:
            return names.padding_mode(border)
        except GeometryError as error:
            raise GeometryError(str(error).replace("padding_mode", "border")) from None

    @property
    def sum(self) -> float:
        """The sum of the kernel; 0 if it is nothing but rounding."""
        total = float(self.kernel.sum())
        return 0.0 if abs(total) <= 1e-9 * float(np.abs(self.kernel).sum()) else total

    def shown(self, response: Any, dtype: np.dtype[Any]) -> Any:
        """The response as it is shown: scaled, or by its magnitude."""
        unsigned = dtype.kind == "u"
        if self.scale is not None or self.offset is not None:
            scale, offset = 1.0 if self.scale is None else self.scale, self.offset or 0.0
        elif self.sum or (self.dtype is not None and not unsigned):
            return response
        elif not self.signed:
            return np.abs(response, out=_into(response))
        else:
            scale, offset = (0.5, np.iinfo(dtype).max / 2) if unsigned else (1.0, 0.0)
        return np.add(np.multiply(response, scale, out=_into(response)), offset, out=_into(response))


def filter_image(
    pixels: Any,
    kernel: np.ndarray,
    name: str,
    **choices: Unpack[FilterOptions],
) -> Any:
    """Correlate each colour with a kernel on the backend of that name; the size stays, and by default the dtype.

    The kernel's element size // 2 lies on the pixel, as in OpenCV and SciPy.

    Pixels beyond the border are the image's reflection, or what `border` names (corr2d's `padding_mode`, and with
    "constant" its `padding_value` is `border_value`). The response
    of a kernel that sums to 0, an edge or a derivative, is shown by its magnitude. With `signed` it is shown by half of
    it around mid-grey (signed integers and floats: by itself); with `scale` or `offset` by response * scale + offset;
    with a `dtype` that holds negative numbers by itself. Integers are rounded to the nearest and clipped to the dtype's
    range. A Dask array gives a lazy one.

    The fourth of four channels is opacity. Colours are filtered premultiplied with it, so that a hidden one has no
    weight, and so is the opacity; a kernel that sums to 0 leaves the opacity as it is.

    >>> ramp = np.tile(np.arange(0, 250, 10, dtype=np.uint8), (5, 1))
    >>> filter_image(ramp, np.array([[-0.5, 0.0, 0.5]]), "numpy")[2, 1:-1].tolist() == [10] * 23
    True
    >>> filter_image(ramp[:, ::-1], np.array([[-0.5, 0.0, 0.5]]), "numpy", dtype="float32")[2, 1:4].tolist()
    [-10.0, -10.0, -10.0]
    """
    work = Filter(np.asarray(kernel), name, **choices)
    alpha = pixels.ndim == 3 and pixels.shape[2] == 4
    if isinstance(pixels, np.ndarray):
        return filter_pixels(pixels, work, alpha)[0]
    compute = _computed_in(pixels.dtype, work)
    dask_kernel = backend("dask").asarray(work.kernel, compute)

    def correlate(planes: Any, beyond: float) -> Any:
        image, mode = planes.astype(compute), work.padding_mode
        return corr2d(
            image, dask_kernel, backend=name, padding="same", origin=0, padding_mode=mode, padding_value=beyond
        )

    planes = _filtered(pixels, work, alpha, correlate)[0]
    return planes[0] if pixels.ndim == 2 else np.moveaxis(planes, 0, -1)


def filter_pixels(pixels: np.ndarray, work: Filter, alpha: bool) -> tuple[np.ndarray, int]:
    """An image (H, W) or (H, W, C), filtered, and how many of its numbers were clipped.

    Args:
        pixels: of any real dtype.
        work: what is done.
        alpha: whether the last channel is opacity.

    Raises:
        DataError: a response that isn't a number, for an integer dtype.
    """
    framework, (h, w), height = backend(work.backend), work.kernel.shape, pixels.shape[0]
    compute = _computed_in(pixels.dtype, work)
    kernel = framework.asarray(work.kernel.astype(compute))
    # As corr2d's origin=0.
    above, left = h // 2, w // 2
    below = h - 1 - above
    # The border of a circular image lies at its other end.
    circular = work.padding_mode == "circular"
    rows = height if circular else max(4 * h, 16, _STRIP // max(1, pixels[0].size))
    starts = range(0, max(1, height - rows + 1), rows)
    result = np.empty((height, pixels.shape[1], *pixels.shape[2:]), work.dtype or pixels.dtype)
    channels = np.moveaxis(result.reshape(*result.shape[:2], -1), -1, 0)
    clipped = 0
    for start, stop in zip(starts, [*starts[1:], height], strict=True):
        first, last = max(0, start - above), min(height, stop + below)
        padding = ((above - start + first, below - last + stop), (left, w - 1 - left))
        correlate = _correlation(framework, kernel, compute, padding, work.padding_mode)
        strip, count = _filtered(pixels[first:last], work, alpha, correlate, slice(start - first, stop - first))
        # One channel after another: NumPy copies long rows faster than many pixels of three numbers.
        for channel, plane in zip(channels, strip, strict=True):
            channel[start:stop] = plane
        clipped += count
    return result, clipped


def _correlation(
    framework: Backend, kernel: Any, compute: np.dtype[Any], padding: Pads, mode: PaddingMode
) -> Callable[[np.ndarray, float], np.ndarray]:
    """The function that correlates planes (C, H, W) on a backend, with a value beyond the image."""

    def correlate(planes: np.ndarray, beyond: float) -> np.ndarray:
        image = framework.asarray(np.ascontiguousarray(planes, compute))
        response = framework.corr2d(image, kernel, padding=padding, padding_mode=mode, padding_value=beyond)
        return np.require(framework.to_numpy(response), requirements="W")

    return correlate


def _computed_in(dtype: np.dtype[Any], work: Filter) -> np.dtype[Any]:
    """The dtype of the computation: float32, or float64 where float32 doesn't hold the pixels or the result."""
    return np.result_type(dtype, work.dtype or dtype, np.float32)


def _filtered(
    pixels: Any, work: Filter, alpha: bool, correlate: Callable[[Any, float], Any], rows: slice = slice(None)
) -> tuple[Any, int]:
    """The filtered channels (C, H, W), and how many numbers were clipped; the result has these rows of the pixels."""
    planes = np.moveaxis(pixels[..., None] if pixels.ndim == 2 else pixels, -1, 0)
    target = np.dtype(work.dtype or pixels.dtype)
    if not alpha:
        return _rounded(work.shown(correlate(planes, work.border_value), target), target)
    colours, opacity = planes[:-1], planes[-1:]
    wide = _computed_in(pixels.dtype, work)
    weight = opacity.astype(wide) / _opaque(opacity.dtype)
    response = correlate(colours * weight, work.border_value)
    if work.sum == 0:
        weight = weight[:, rows]
    else:
        # Where all pixels are opaque this is 1 to the bit. A constant beyond the image is opaque.
        weight = np.clip(1 - correlate(1 - weight, 0.0) / work.sum, 0, 1)
        visible = weight >= (0.5 / _opaque(target) if target.kind in "ui" else 1e-6)
        response = np.where(visible, response / np.where(visible, weight, 1), 0)
    # An opacity has the range of an unsigned result, and else the one that it had.
    full = _opaque(target) if target.kind == "u" else _opaque(opacity.dtype)
    result, clipped = _rounded(work.shown(response, target), target)
    return np.concatenate([result, _rounded(weight * full, target)[0]]), clipped


def _opaque(dtype: np.dtype[Any]) -> float:
    """The number for full opacity."""
    return float(np.iinfo(dtype).max) if dtype.kind in "ui" else 1.0


def _rounded(response: Any, dtype: np.dtype[Any]) -> tuple[Any, int]:
    """The response in a dtype, and for NumPy arrays how many numbers were clipped."""
    if dtype.kind == "f":
        return response.astype(dtype), 0
    limits, clipped = np.iinfo(dtype), 0
    response = np.rint(response, out=_into(response))
    if isinstance(response, np.ndarray):
        least, most = response.min(), response.max()
        if np.isnan(least):
            raise DataError(f"pixels: got a response of NaN, expected numbers for {dtype}.", hint="--dtype float32")
        if limits.min <= least and most <= limits.max:
            return response.astype(dtype), 0
        clipped = int(np.count_nonzero(response < limits.min) + np.count_nonzero(response > limits.max))
    return np.clip(response, limits.min, limits.max, out=_into(response)).astype(dtype), clipped


def _into(response: Any) -> np.ndarray | None:
    """Where to write a result: into a NumPy array itself, to save memory."""
    return response if isinstance(response, np.ndarray) else None
