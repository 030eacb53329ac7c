"""The receptive field of an output pixel, drawn on the image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import GeometryError, ShapeError
from ..geometry.checks import pair
from ..geometry.geometry import Pair
from ..geometry.lower import output_shape
from ..geometry.names import data_format as layout
from ..geometry.receptive import ReceptiveField
from ..geometry.receptive import receptive_field as field_of
from .axes import STYLES, axes_or_current, frame_picture, matplotlib_module, values

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def receptive_field(
    layers: Iterable[Any],
    image: Any,
    *,
    output: Pair | None = None,
    data_format: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw on an image which of its pixels an output pixel of a stack of layers depends on.

    A frame for each layer shows the field of that layer's result, at its pixel in the middle of the last field. The
    grey that a frame takes in beyond the image is padding.

    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> ax = receptive_field([3, {"kernel_size": 3, "stride": 2}], np.zeros((9, 9)), ax=Figure().subplots())
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['layer 1: 3 × 3', 'layer 2: 5 × 5']
    >>> ax.patches[-1].get_xy()
    (1.5, 1.5)

    Args:
        layers: as for `convlab.receptive_field`, first layer first.
        image: a tensor of any backend of real numbers: (H, W), or (C, H, W), with "NHWC" (H, W, C), of 1 or 3
            channels. Its least number is drawn black, its largest white.
        output: row and column of the output pixel; by default the middle one.
        data_format: as in `corr2d`.
        ax: the Axes to draw into; pyplot's current one if not given.

    Returns:
        The Axes.

    Raises:
        GeometryError: a layer without a fixed field (`convlab.receptive_field`), or an output pixel that isn't there.
        ShapeError: an image of another shape, or one that is too small for the layers.
        DTypeError: the image is no tensor, or complex.
        ExtraNotInstalled: matplotlib isn't installed.
    """
    stack = [*layers] if isinstance(layers, Iterable) else layers
    field = field_of(stack)
    pixels = _picture(image, layout(data_format) == "NHWC")
    height, width = pixels.shape[:2]
    place = _output(output, stack, (height, width))
    ax = axes_or_current(ax)
    ax.imshow(pixels, cmap="gray")
    frame_picture(ax)
    frames = [field_of(stack[: n + 1]) for n in range(len(stack))] or [field]
    for number, (frame, style) in enumerate(zip(frames, cycle(STYLES), strict=False)):
        _draw(ax, frame.inputs(*_middle(frame, field, place)), f"layer {number + 1}", style)
    rows, columns = field.inputs(*place)
    ax.set_xlim(min(columns.start, 0) - 0.5, max(columns.stop, width) - 0.5)
    ax.set_ylim(max(rows.stop, height) - 0.5, min(rows.start, 0) - 0.5)
    ax.legend(loc="upper right")
    return ax


def _picture(image: Any, channels_last: bool) -> np.ndarray:
    """The image as matplotlib takes it: (H, W), or (H, W, 4) with numbers from 0 to 1, transparent where it is NaN."""
    expected = f"(H, W) or {'(H, W, C)' if channels_last else '(C, H, W)'} with 1 or 3 channels"
    pixels = values("image", image, (2, 3), expected)
    pixels = pixels if channels_last or pixels.ndim == 2 else np.moveaxis(pixels, 0, -1)
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        return pixels.reshape(pixels.shape[:2])
    if pixels.shape[2] != 3:
        raise ShapeError(
            f"image: got {pixels.shape[2]} channels, expected {expected}.",
            hint="data_format='NHWC' is for images whose channels come last.",
        )
    whole = np.isfinite(pixels).all(2, keepdims=True)
    least, most = np.min(pixels, initial=np.inf, where=whole), np.max(pixels, initial=-np.inf, where=whole)
    scaled = np.where(whole, pixels - least, 0.0) / (most - least if most > least else 1.0)
    return np.concatenate([scaled, whole], 2)


def _output(output: object, stack: list[Any], size: Pair) -> Pair:
    """Row and column of an output pixel, which must be there, of an image of a size; None is the middle one."""
    for layer in stack:
        options = dict(layer) if isinstance(layer, Mapping) else {"kernel_size": layer}
        rows, columns = output_shape(size, pair("kernel_size", options.pop("kernel_size"), 1), **options)
        size = rows, columns
    if output is None:
        return size[0] // 2, size[1] // 2
    place = pair("output", output, 0)
    if place[0] >= size[0] or place[1] >= size[1]:
        raise GeometryError(
            f"output: got {place}, expected a row below {size[0]} and a column below {size[1]}.",
            hint="the layers' result has that size.",
        )
    return place


def _middle(frame: ReceptiveField, field: ReceptiveField, place: Pair) -> Pair:
    """The pixel of an earlier layer's result whose field is nearest the middle of the last one's."""
    row, column = (
        round((offset + index * stride + (size - 1) / 2 - own_offset - (own_size - 1) / 2) / own_stride)
        for offset, index, stride, size, own_offset, own_size, own_stride in zip(
            field.offset, place, field.stride, field.size, frame.offset, frame.size, frame.stride, strict=True
        )
    )
    return row, column


def _draw(ax: Axes, pixels: tuple[range, range], name: str, style: dict[str, str]) -> None:
    """A frame around pixels, with a white edge to be seen on any image."""
    rows, columns = pixels
    edge = matplotlib_module("patheffects").withStroke(linewidth=4, foreground="white")
    ax.add_patch(
        matplotlib_module("patches").Rectangle(
            (columns.start - 0.5, rows.start - 0.5),
            len(columns),
            len(rows),
            fill=False,
            linewidth=2,
            edgecolor=style["color"],
            linestyle=style["linestyle"],
            path_effects=[edge],
            label=f"{name}: {len(rows)} × {len(columns)}",
        )
    )
