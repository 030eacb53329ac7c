"""Calls in a traced graph that are one layer together: parts of the channels, and channels that are shuffled."""

from __future__ import annotations

import operator
from functools import partial
from typing import Any

import torch
import torch.fx
from torch import nn

from .attention import first_pixel
from .functions import chunk, subsample
from .rewriting import slices_of

_CHUNKS = (torch.chunk, "chunk")
_VIEWS = ("view", "reshape", torch.reshape)
# An index that makes rows of numbers images of one pixel.
_ONE_PIXEL = (slice(None), slice(None), None, None)
_SWAPS = ("transpose", torch.transpose)


def permutation(node: torch.fx.Node) -> tuple[int, ...] | None:
    """The axes of an image in the order that a node gives them; None for another node."""
    if node.target in (torch.movedim, "movedim"):
        moved: Any = {(1, -1): (0, 2, 3, 1), (-1, 1): (0, 3, 1, 2)}
        return moved.get(node.args[1:])  # type: ignore[no-any-return]
    if node.target not in (torch.permute, "permute"):
        return None
    order = node.args[1:] or tuple(node.kwargs.values())
    axes: Any = order[0] if len(order) == 1 else order
    return tuple(axis % len(axes) for axis in axes)


def is_part_of_pattern(node: torch.fx.Node) -> bool:
    """Whether a node is read with the ones that take its result."""
    if _adds_axis(node) and node.users and all(map(_adds_axis, node.users)):
        return True
    return node.target in _CHUNKS or _axes_of_view(node, 5) is not None or _swapped(node) is not None


def native_of_pattern(node: torch.fx.Node) -> tuple[Any, list[torch.fx.Node]] | None:
    """What computes a node and those before it that belong to it, and the nodes whose values these take."""
    source: Any = node.args[0]
    image: Any
    if _adds_axis(node) and isinstance(source, torch.fx.Node) and _adds_axis(source):
        image = source.args[0]
        return nn.Unflatten(1, (-1, 1, 1)), [image]
    if node.target is operator.getitem and node.args[1] == _ONE_PIXEL:
        return nn.Unflatten(1, (-1, 1, 1)), [source]
    if node.target is operator.getitem and node.args[1] == (*_ONE_PIXEL[:2], 0, 0):
        return first_pixel, [source]
    if node.target is operator.getitem and (margins := _margins(node.args[1])) is not None:
        return nn.ZeroPad2d(margins), [source]
    if node.target is operator.getitem and (places := _subsampling(node.args[1])) is not None:
        return partial(subsample, start=places[0], step=places[1]), [source]
    if node.target == "expand_as":  # What is added or multiplied is broadcast without it.
        return nn.Identity(), [source]
    if node.target is operator.getitem and isinstance(source, torch.fx.Node) and source.target in _CHUNKS:
        count, axis = _chunk_arguments(source)
        index, image = node.args[1], source.args[0]
        if axis in (1, -3) and isinstance(index, int):
            return partial(chunk, index=index % count, count=count), [image]
    if _axes_of_view(node, 4) is not None and isinstance(source, torch.fx.Node):
        while source.target == "contiguous":
            source = source.args[0]
        groups = _swapped(source)
        if groups is not None:
            view: Any = source.args[0]
            return nn.ChannelShuffle(groups), [view.args[0]]
    return None


def _margins(index: Any) -> tuple[int, int, int, int] | None:
    """What an index of slices takes off an image, as the negative padding (left, right, top, bottom); None for others.

    >>> _margins((slice(None), slice(None), slice(1, None), slice(2, -3)))
    (-2, -3, -1, 0)
    >>> _margins((..., slice(0, 8), slice(None)))  # What is left depends on the image's size.
    """
    axes = slices_of(index)
    if axes is None or axes[:2] != (slice(None), slice(None)):
        return None
    ends = [(each.start or 0, each.stop or 0) for each in axes[2:]]
    whole = all(each.step in (None, 1) and each.stop != 0 for each in axes[2:])
    numbers = all(isinstance(start, int) and isinstance(stop, int) and start >= 0 >= stop for start, stop in ends)
    (top, bottom), (left, right) = ends
    return (-left, right, -top, bottom) if whole and numbers and any((top, bottom, left, right)) else None


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


def _adds_axis(node: torch.fx.Node) -> bool:
    """Whether a node puts an axis behind those of rows of numbers."""
    return node.target in ("unsqueeze", torch.unsqueeze) and node.args[1:] in ((-1,), (2,), (3,))


def _chunk_arguments(node: torch.fx.Node) -> tuple[int, int]:
    given: dict[str, Any] = {**dict(zip(("input", "chunks", "dim"), node.args, strict=False)), **node.kwargs}
    return int(given["chunks"]), int(given.get("dim", 0))


def _axes_of_view(node: torch.fx.Node, rank: int) -> tuple[Any, ...] | None:
    """The axes that a node gives a tensor, if there are so many."""
    if node.target not in _VIEWS:
        return None
    axes: Any = node.args[1] if len(node.args) == 2 else node.args[1:]
    return tuple(axes) if isinstance(axes, (tuple, list)) and len(axes) == rank else None


def _swapped(node: Any) -> int | None:
    """The groups of channels whose axis a node swaps with that of the channels in a group."""
    if not isinstance(node, torch.fx.Node) or node.target not in _SWAPS or sorted(node.args[1:]) != [1, 2]:  # type: ignore[type-var]
        return None
    source = node.args[0]
    axes = _axes_of_view(source, 5) if isinstance(source, torch.fx.Node) else None
    return axes[1] if axes is not None and isinstance(axes[1], int) else None
