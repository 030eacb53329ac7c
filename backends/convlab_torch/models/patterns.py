"""Calls in a traced graph that are one layer together, such as channels that are shuffled."""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.fx
from torch import nn

from convlab.models.layers.spatial import to_first, to_last

from .functions import multiply
from .indexing import PARTS, native_of_index
from .rewriting import VIEWS

_SQUARES = (operator.pow, torch.pow, "pow", torch.square, "square")
_SWAPS = ("transpose", torch.transpose)


def permutation(node: torch.fx.Node, rank: int = 2) -> tuple[int, ...] | None:
    """The axes of an image in the order that a node gives them; None for another node."""
    if node.target in (torch.movedim, "movedim"):
        moved: Any = {(1, -1): to_last(rank), (-1, 1): to_first(rank)}
        return moved.get(node.args[1:])  # type: ignore[no-any-return]
    if node.target in _SWAPS and rank == 1 and sorted(axis % 3 for axis in node.args[1:]) == [1, 2]:  # type: ignore[operator]
        return 0, 2, 1
    if node.target not in (torch.permute, "permute"):
        return None
    order = node.args[1:] or tuple(node.kwargs.values())
    axes: Any = order[0] if len(order) == 1 else order
    return tuple(axis % len(axes) for axis in axes)


def is_part_of_pattern(node: torch.fx.Node, rank: int) -> bool:
    """Whether a node is read with the ones that take its result."""
    if _adds_axis(node) and node.users and all(map(_adds_axis, node.users)):
        return True
    return node.target in PARTS or _axes_of_view(node, rank + 3) is not None or _swapped(node, rank) is not None


def native_of_pattern(node: torch.fx.Node, rank: int) -> tuple[Any, list[torch.fx.Node]] | None:
    """What computes a node and those before it that belong to it, and the nodes whose values these take."""
    source: Any = node.args[0]
    added = 0
    image: Any = node
    while isinstance(image, torch.fx.Node) and _adds_axis(image):
        image, added = image.args[0], added + 1
    if added == rank:
        return nn.Unflatten(1, (-1, *(1,) * rank)), [image]
    if node.target is operator.getitem and isinstance(source, torch.fx.Node):
        return native_of_index(source, node.args[1], rank)
    if node.target in _SQUARES and node.args[1:] in ((), (2,), (2.0,)) and not node.kwargs:
        return multiply, [source, source]
    if node.target == "expand_as":  # What is added or multiplied is broadcast without it.
        return nn.Identity(), [source]
    if _axes_of_view(node, rank + 2) is not None and isinstance(source, torch.fx.Node):
        while source.target == "contiguous":
            source = source.args[0]
        groups = _swapped(source, rank)
        if groups is not None:
            view: Any = source.args[0]
            return nn.ChannelShuffle(groups), [view.args[0]]
    return None


def _adds_axis(node: torch.fx.Node) -> bool:
    """Whether a node puts an axis behind those of rows of numbers."""
    return node.target in ("unsqueeze", torch.unsqueeze) and node.args[1:] in ((-1,), (2,), (3,), (4,))


def _axes_of_view(node: torch.fx.Node, rank: int) -> tuple[Any, ...] | None:
    """The axes that a node gives a tensor, if there are so many."""
    if node.target not in VIEWS:
        return None
    axes: Any = node.args[1] if len(node.args) == 2 else node.args[1:]
    return tuple(axes) if isinstance(axes, (tuple, list)) and len(axes) == rank else None


def _swapped(node: Any, rank: int) -> int | None:
    """The groups of channels whose axis a node swaps with that of the channels in a group."""
    if not isinstance(node, torch.fx.Node) or node.target not in _SWAPS or sorted(node.args[1:]) != [1, 2]:  # type: ignore[type-var]
        return None
    source = node.args[0]
    axes = _axes_of_view(source, rank + 3) if isinstance(source, torch.fx.Node) else None
    return axes[1] if axes is not None and isinstance(axes[1], int) else None
