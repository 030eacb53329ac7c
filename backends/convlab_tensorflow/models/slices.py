"""What Keras's code takes of images by an index or a split: pixels, rows and columns, channels, equal parts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from keras import layers as kl

from convlab.errors import UnsupportedError

from ..attention_layers import FirstPixel
from ..image_layers import ChannelSlice, Chunk, Subsample
from .readers import each_rank

_ALL = slice(None)


def index_layers(x: Any, key: Any) -> list[kl.Layer]:
    """Layers that compute `x[key]` of images (N, H, W, C), of tokens (N, L, C) or of rows (N, C), one after another.

    Raises:
        UnsupportedError: none are known.
    """
    axes, count = list(key) if isinstance(key, tuple) else [key], len(x.shape)
    if ... in axes:
        place = axes.index(...)
        axes[place : place + 1] = [_ALL] * (count + 1 - sum(each is not None for each in axes))
    axes += [_ALL] * (count - sum(each is not None for each in axes))
    first = count > 2 and axes in ([_ALL, *(0,) * (count - 2)], [_ALL, *(0,) * (count - 2), _ALL])
    if first:
        return [FirstPixel()]
    if count == 2 and axes[0] == axes[-1] == _ALL and axes[1:-1] in ([None] * n for n in (1, 2, 3)):
        return [kl.Reshape((*(1,) * (len(axes) - 2), x.shape[-1]))]
    if not all(isinstance(each, slice) for each in axes) or axes[0] != _ALL:
        raise UnsupportedError("it takes another part than the first pixel, or rows, columns and channels in a row")
    return [*_of_pixels(axes[1:-1], x.shape[1:-1]), *_of_channels(axes[-1], x.shape[-1])]


def _of_pixels(axes: Sequence[slice], sizes: Sequence[int | None]) -> list[kl.Layer]:
    steps = [each.step or 1 for each in axes]
    if all(each == _ALL for each in axes):
        return []
    if max(steps) > 1:
        starts = [each.start or 0 for each in axes]
        if len(axes) != 2 or min(*starts, *steps) < 0 or any(each.stop is not None for each in axes):
            raise UnsupportedError("it takes each so many pixels up to a place")
        return [Subsample((starts[0], starts[1]), (steps[0], steps[1]), autocast=False)]
    ends = []
    for each, size in zip(axes, sizes, strict=True):
        start, stop = each.start or 0, each.stop
        if size is not None:
            start, stop, _ = each.indices(size)
        elif start < 0 or (stop is not None and stop >= 0):
            raise UnsupportedError("what it takes of the rows and columns depends on how many there are")
        ends.append((start, 0 if stop is None else -stop if size is None else size - stop))
    pads: Any = ends[0] if len(ends) == 1 else tuple(ends)
    return [each_rank("Cropping")[len(ends) - 1](pads)] if any(map(any, ends)) else []


def _of_channels(part: slice, channels: int) -> list[kl.Layer]:
    start, stop, step = part.indices(channels)
    if step != 1:
        raise UnsupportedError("it takes each so many channels")
    whole = (start, stop) == (0, channels)
    return [] if whole else [ChannelSlice(start, 0 if stop == channels else stop, autocast=False)]


def split_layers(x: Any, indices_or_sections: Any, axis: int) -> list[kl.Layer]:
    """A layer for each of the parts that `keras.ops.split` gives.

    Raises:
        UnsupportedError: they aren't parts of the channels.
    """
    if axis % len(x.shape) != len(x.shape) - 1:
        raise UnsupportedError(f"it splits axis {axis}, expected -1, the channels")
    if isinstance(indices_or_sections, int):
        count = indices_or_sections
        return [Chunk(index, count, autocast=False) for index in range(count)]
    ends = [0, *map(int, indices_or_sections), x.shape[-1]]
    return [ChannelSlice(start, 0 if stop == ends[-1] else stop, autocast=False) for start, stop in pairwise(ends)]
