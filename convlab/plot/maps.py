"""Feature maps and kernels: many small images in one Axes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..geometry.checks import boolean, integer
from ..geometry.names import data_format as layout
from .axes import DIVERGING, axes_or_current, frame_picture, largest, values

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The most numbers that are written into kernels unless they are asked for, and their least and largest size in points.
_MOST_NUMBERS, _LEAST_SIZE, _LARGEST_SIZE = 200, 5.5, 14.0


def feature_maps(
    Y: Any,
    *,
    data_format: str | None = None,
    columns: int | None = None,
    scale_each: bool = False,
    cmap: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the channels of an image or of a batch side by side, in one Axes.

    Maps with negative numbers get a diverging colour map with zero in its middle, others one that begins at zero. NaN
    and infinities are gaps. `ax.images[0]` is what `figure.colorbar` takes.

    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> Y = np.arange(8.0).reshape(2, 2, 2)
    >>> ax = feature_maps(Y, ax=Figure().subplots())
    >>> ax.images[0].get_array()
    masked_array(
      data=[[0.0, 1.0, --, 4.0, 5.0],
            [2.0, 3.0, --, 6.0, 7.0]], ...

    Args:
        Y: a tensor of any backend of real numbers: (H, W), (C, H, W) or (N, C, H, W); with "NHWC" (H, W, C) or
            (N, H, W, C).
        data_format: as in `corr2d`.
        columns: how many maps a row has; by default a batch has a row for each image, and one image's channels nearly
            fill a square.
        scale_each: divide each map by its largest magnitude.
        cmap: the name of another colour map of matplotlib's.
        ax: the Axes to draw into; pyplot's current one if not given.

    Returns:
        The Axes.

    Raises:
        ShapeError: Y has another rank, or no elements.
        DTypeError: Y is no tensor, or complex.
        GeometryError: an option that makes no sense.
        ExtraNotInstalled: matplotlib isn't installed.
    """
    last = layout(data_format) == "NHWC"
    expected = "(H, W), (H, W, C) or (N, H, W, C)" if last else "(H, W), (C, H, W) or (N, C, H, W)"
    maps = values("Y", Y, (2, 3, 4), expected)
    maps = np.moveaxis(maps, -1, -3) if last and maps.ndim > 2 else maps
    maps = maps.reshape((1,) * (4 - maps.ndim) + maps.shape)
    images, channels = maps.shape[:2]
    maps = maps.reshape(-1, *maps.shape[2:])
    if boolean("scale_each", scale_each):
        maps = maps / np.array([largest(each) for each in maps], maps.dtype)[:, None, None]
    limit, signed = largest(maps), bool((maps < 0).any())
    sheet = _Sheet.of(maps, columns, channels if images > 1 else None)
    ax = axes_or_current(ax)
    colours = cmap or (DIVERGING if signed else "viridis")
    ax.imshow(sheet.pixels, cmap=colours, vmin=-limit if signed else 0.0, vmax=limit)
    ax.format_coord = sheet.pointer(lambda map_: "image {}, channel {}".format(*divmod(map_, channels)))
    frame_picture(ax)
    return ax


def kernels(
    weight: Any,
    *,
    data_format: str | None = None,
    columns: int | None = None,
    numbers: bool | None = None,
    cmap: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw a kernel, several, or the weight of a layer, with zero in the middle of the colours.

    A layer's weight has a row for each output channel and a column for each input channel. NaN and infinities are gaps.

    >>> from matplotlib.figure import Figure
    >>> from convlab import filters
    >>> ax = kernels(filters.laplacian() / 8, ax=Figure().subplots())
    >>> ax.images[0].get_clim()
    (-0.5, 0.5)
    >>> [text.get_text() for text in ax.texts][:3]
    ['0', '0.125', '0']

    Args:
        weight: a tensor of any backend of real numbers: (h, w), a stack (n, h, w), or a layer's OIHW, with
            "NHWC" its HWIO.
        data_format: as in `corr2d`.
        columns: how many kernels a row has; by default one for each input channel, if there are several.
        numbers: whether to write each number into its cell, to three digits of the largest; by default, if they are
            few and can be read.
        cmap: the name of another colour map of matplotlib's.
        ax: the Axes to draw into; pyplot's current one if not given.

    Returns:
        The Axes.

    Raises:
        ShapeError: the weight has another rank, or no elements.
        DTypeError: it is no tensor, or complex.
        GeometryError: an option that makes no sense.
        ExtraNotInstalled: matplotlib isn't installed.
    """
    last = layout(data_format) == "NHWC"
    arrays = values("weight", weight, (2, 3, 4), f"(h, w), (n, h, w) or {'HWIO' if last else 'OIHW'}")
    arrays = arrays.transpose(3, 2, 0, 1) if last and arrays.ndim == 4 else arrays
    inputs = arrays.shape[1] if arrays.ndim == 4 else 1
    arrays = arrays.reshape(-1, *arrays.shape[-2:])
    sheet = _Sheet.of(arrays, columns, inputs if inputs > 1 else None)
    wanted = arrays.size <= _MOST_NUMBERS if numbers is None else boolean("numbers", numbers)
    ax, limit = axes_or_current(ax), largest(arrays)
    ax.imshow(sheet.pixels, cmap=cmap or DIVERGING, vmin=-limit, vmax=limit, interpolation="nearest")
    ax.format_coord = sheet.pointer(
        lambda kernel: "output channel {}, input channel {}".format(*divmod(kernel, inputs))
    )
    frame_picture(ax)
    if inputs > 1 and sheet.columns == inputs:
        ax.set(xlabel="input channel", ylabel="output channel")
        _number_rows_and_columns(ax, sheet)
    if wanted:
        _write_numbers(ax, sheet.pixels, must=numbers is not None)
    return ax


class _Sheet(NamedTuple):
    """Maps of one size side by side, with gaps of NaN between them.

    Attributes:
        pixels: the maps and the gaps.
        number: of maps.
        columns: the maps of a row.
        size: rows and columns of a map.
        gap: the pixels between two maps.
    """

    pixels: np.ndarray
    number: int
    columns: int
    size: tuple[int, int]
    gap: int

    @classmethod
    def of(cls, maps: np.ndarray, columns: int | None, usual: int | None) -> _Sheet:
        """Maps (n, h, w) in so many columns; None: the usual ones, or as many as nearly fill a square."""
        count, h, w = maps.shape
        columns = usual or _columns_of_square(count) if columns is None else integer("columns", columns, 1)
        columns = min(columns, count)
        rows, gap = -(-count // columns), max(1, round(max(h, w) / 24))
        cells = np.full((rows * columns, h + gap, w + gap), np.nan, maps.dtype)
        cells[:count, :h, :w] = maps
        pixels = cells.reshape(rows, columns, h + gap, w + gap).swapaxes(1, 2).reshape(rows * (h + gap), -1)
        return cls(pixels[:-gap, :-gap], count, columns, (h, w), gap)

    def pointer(self, name: Callable[[int], str]) -> Callable[[float, float], str]:
        """What a window shows of the place under the mouse: the name of the map, and its row and column."""

        def describe(x: float, y: float) -> str:
            (i, row), (j, column) = (
                divmod(round(place), n + self.gap) for place, n in zip((y, x), self.size, strict=True)
            )
            index = i * self.columns + j
            inside = row < self.size[0] and column < self.size[1] and 0 <= j < self.columns and 0 <= index < self.number
            return f"{name(index)}: row {row}, column {column}" if inside else ""

        return describe


def _columns_of_square(count: int) -> int:
    """The columns of nearly as many rows; if that leaves no hole, up to twice as many as rows.

    >>> [_columns_of_square(count) for count in (1, 2, 3, 5, 7, 8, 16, 32)]
    [1, 2, 3, 3, 3, 4, 4, 8]
    """
    side = math.ceil(math.sqrt(count))
    return next((n for n in range(side, math.isqrt(4 * count) + 1) if count % n == 0), side)


def _number_rows_and_columns(ax: Axes, sheet: _Sheet) -> None:
    """Ticks at the middle of each row and column of maps, with its number; where there are many, at 16 at most."""
    rows = sheet.number // sheet.columns
    for axis, count, n in ((ax.yaxis, rows, sheet.size[0]), (ax.xaxis, sheet.columns, sheet.size[1])):
        step = max(1, -(-count // 16))
        numbers = range(0, count, step)
        axis.set_ticks([number * (n + sheet.gap) + (n - 1) / 2 for number in numbers], labels=[*map(str, numbers)])
        axis.set_tick_params(length=0)


def _write_numbers(ax: Axes, pixels: np.ndarray, must: bool) -> None:
    """Write each number into its cell, to three digits of the largest one, unless that gets too small to read."""
    image = ax.images[-1]
    digits = 2 - math.floor(math.log10(image.norm.vmax))
    texts = {place: f"{round(float(x), digits) + 0.0:g}" for place, x in np.ndenumerate(pixels) if np.isfinite(x)}
    extent, longest = ax.get_window_extent(), max(map(len, texts.values()), default=1)
    cell = min(extent.width / pixels.shape[1], extent.height / pixels.shape[0]) * 72 / ax.figure.dpi
    size = min(1.3 * cell / max(longest, 2), _LARGEST_SIZE)  # A digit is about 0.64 of the size wide.
    if size < _LEAST_SIZE and not must:
        return
    for (row, column), text in texts.items():
        red, green, blue, _ = image.cmap(image.norm(pixels[row, column]))
        # Relative luminance; from 0.18 on, black has more contrast than white (WCAG 2.2).
        light = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2 > 0.18
        ax.text(column, row, text, color="black" if light else "white", size=size, ha="center", va="center")
