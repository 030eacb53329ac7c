"""What a traced model's code takes of images by an index: pixels, rows and columns, channels, parts of a split."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.fx
from torch import nn

from .attention import first_pixel
from .functions import channel_slice, chunk, of_rank, subsample
from .rewriting import CHUNKS, SPLITS, arguments_of, slices_of

_SECTIONS = ("split_size_or_sections", "split_size", "split_sizes")
_ALL = slice(None)
Found = tuple[Any, list[torch.fx.Node]] | None


def native_of_index(source: torch.fx.Node, index: Any, rank: int) -> Found:
    """What computes an index of a node, and the nodes whose values it takes; None where that isn't known."""
    if source.target in CHUNKS:
        return _of_chunks(source, index, rank)
    if source.target in SPLITS:
        return _of_split(source, index, rank)
    if index == (_ALL, _ALL, *(None,) * rank):  # rows of numbers as images of one pixel
        return nn.Unflatten(1, (-1, *(1,) * rank)), [source]
    if index in ((_ALL, _ALL, 0, 0), (..., 0, 0)):
        return first_pixel, [source]
    if slices_of(index, rank) == (_ALL,) * (rank + 2):
        return nn.Identity(), [source]
    if (margins := _margins(index, rank)) is not None:
        return of_rank("ZeroPad", rank)(margins), [source]
    if (channels := _channels(index, rank)) is not None:
        return partial(channel_slice, start=channels[0], stop=channels[1]), [source]
    if rank == 2 and (places := _subsampling(index)) is not None:
        return partial(subsample, start=places[0], step=places[1]), [source]
    return None


def _of_chunks(node: torch.fx.Node, index: Any, rank: int) -> Found:
    """One of equal parts of the channels."""
    given = arguments_of(node, "input", "chunks", "dim")
    count = int(given["chunks"])
    if int(given.get("dim", 0)) not in (1, -1 - rank) or not isinstance(index, int):
        return None
    return partial(chunk, index=index % count, count=count), [given["input"]]


def _of_split(node: torch.fx.Node, index: Any, rank: int) -> Found:
    """One of the parts that the channels are split into."""
    given = arguments_of(node, "tensor", "split_size_or_sections", "dim")
    sizes, dim = next((given[name] for name in _SECTIONS if name in given), None), given.get("dim", 0)
    if dim not in (1, -1 - rank) or not isinstance(index, int):
        return None
    if isinstance(sizes, int):
        stop = (index + 1) * sizes  # 0 for the last one, counted from the end
        return partial(channel_slice, start=stop - sizes, stop=stop), [given["tensor"]]
    if not sizes or not all(isinstance(size, int) for size in sizes):
        return None
    index %= len(sizes)
    start = sum(sizes[:index])
    return partial(channel_slice, start=start, stop=start + sizes[index]), [given["tensor"]]


def _margins(index: Any, rank: int = 2) -> tuple[int, ...] | None:
    """What an index of slices takes off an image, as the negative padding (left, right, top, bottom); None for others.

    >>> _margins((slice(None), slice(None), slice(1, None), slice(2, -3)))
    (-2, -3, -1, 0)
    >>> _margins((..., slice(0, 8), slice(None)))  # What is left depends on the image's size.
    """
    axes = slices_of(index, rank)
    if axes is None or axes[:2] != (slice(None), slice(None)):
        return None
    ends = [(each.start or 0, each.stop or 0) for each in axes[2:]]
    whole = all(each.step in (None, 1) and each.stop != 0 for each in axes[2:])
    numbers = all(isinstance(start, int) and isinstance(stop, int) and start >= 0 >= stop for start, stop in ends)
    if not whole or not numbers or not any(map(any, ends)):
        return None
    return tuple(n for start, stop in reversed(ends) for n in (-start, stop))


def _channels(index: Any, rank: int = 2) -> tuple[int, int] | None:
    """The first channel that an index takes, and the one behind the last, 0 for all of them; None for another index.

    >>> _channels((slice(None), slice(3, None))), _channels((slice(None), slice(None), 0))
    ((3, 0), None)
    """
    axes = slices_of(index, rank)
    if axes is None or any(each != slice(None) for each in (axes[0], *axes[2:])) or axes[1].step not in (None, 1):
        return None
    start, stop = axes[1].start or 0, axes[1].stop
    numbers = isinstance(start, int) and (stop is None or (isinstance(stop, int) and stop != 0))
    if numbers and stop is not None and (start < 0) == (stop < 0) and stop <= start:
        return None
    return (start, stop or 0) if numbers and (start or stop) else None


def _subsampling(index: Any) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """The first row and column that an index takes, and its steps; None for another index.

    >>> _subsampling((..., slice(1, None, 2), slice(0, None, 2)))
    ((1, 0), (2, 2))
    """
    axes = slices_of(index)
    if axes is None or axes[:2] != (slice(None), slice(None)) or any(each.stop is not None for each in axes[2:]):
        return None
    (i, down), (j, across) = ((each.start or 0, each.step or 1) for each in axes[2:])
    numbers = all(isinstance(each, int) and each >= 0 for each in (i, j, down, across))
    return ((i, j), (down, across)) if numbers and max(down, across) > 1 else None
