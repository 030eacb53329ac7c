"""Calls in a traced graph that are one layer together, such as channels that are shuffled."""

from __future__ import annotations

import operator
from functools import partial
from typing import Any

import torch
import torch.fx
from torch import nn

from convlab.errors import UnsupportedError
from convlab.models.layers.spatial import to_first, to_last

from .attention import attend
from .functions import (
    average,
    broadcast_like,
    channel_average,
    channel_maximum,
    channel_total,
    greatest,
    least,
    maximum,
    multiply,
    native_of,
    resize_like,
    total,
)
from .indexing import native_of_index
from .rewriting import PARTS, VIEWS, arguments_of, is_size_of

_JOINED: dict[Any, Any] = {
    **dict.fromkeys((torch.maximum, torch.max, "maximum", "max"), greatest),
    **dict.fromkeys((torch.minimum, torch.min, "minimum", "min"), least),
}
_SQUARES = (operator.pow, torch.pow, "pow", torch.square, "square")
_SWAPS = ("transpose", torch.transpose)
_SQUEEZES = ("squeeze", torch.squeeze)
_MEANS = ("mean", torch.mean)
_GREATEST = ("amax", torch.amax)
_SUMS = ("sum", torch.sum)


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
    halves = rank == 2 and _one_of_pixels(node, 4)
    if halves and node.users and all(_same_over_the_other(each, node) for each in node.users):
        return True
    if _is_of_channels(node):
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
    if rank == 2 and isinstance(source, torch.fx.Node):
        native = _over_pixels(node, source)
        if native is not None:
            return native
    if (native := _pooled_channels(node)) is not None:
        return native
    if node.target is operator.getitem and isinstance(source, torch.fx.Node):
        return native_of_index(source, node.args[1], rank)
    if (native := _elementwise(node)) is not None:
        return native
    if (_axes_of_view(node, rank + 2) is not None or _of_shape(node)) and isinstance(source, torch.fx.Node):
        while source.target == "contiguous":
            source = source.args[0]
        groups = _swapped(source, rank)
        if groups is not None:
            view: Any = source.args[0]
            return nn.ChannelShuffle(groups), [view.args[0]]
    return None


def _elementwise(node: torch.fx.Node) -> tuple[Any, list[torch.fx.Node]] | None:
    """The square of a tensor, the greatest or the least of two, attention of three, or what does nothing."""
    tensors = [each for each in node.args if isinstance(each, torch.fx.Node)]
    if node.target == "expand_as":  # What is added or multiplied is broadcast without it.
        return nn.Identity(), tensors[:1]
    if node.target in (attend, broadcast_like, resize_like):
        options: dict[str, Any] = {**node.kwargs}
        return native_of(node.target, **options), tensors
    if node.target in _JOINED and len(tensors) == len(node.args) == 2 and not node.kwargs:
        return _JOINED[node.target], tensors
    squares = node.target in _SQUARES and node.args[1:] in ((), (2,), (2.0,)) and not node.kwargs
    return (multiply, tensors * 2) if squares else None


def _over_pixels(node: torch.fx.Node, source: torch.fx.Node) -> tuple[Any, list[torch.fx.Node]] | None:
    """What takes the rows and columns of images away, in whichever way, and the images."""
    if _one_of_pixels(source, 4) and _same_over_the_other(node, source):
        return _of_both(node), [source.args[0]]  # type: ignore[list-item]
    if node.target in _SQUEEZES and _axes(node) in ((2, 3), (-1, -2), (-2, -1)):
        return nn.Flatten(), [source]
    return None


def _pooled_channels(node: torch.fx.Node) -> tuple[Any, list[torch.fx.Node]] | None:
    """The greatest channel of each pixel or the mean of all, kept as an axis or put back, and the images."""
    reduced = _over_channels(node)
    if reduced is None and _adds_channel(node):
        reduced = _over_channels(node.args[0])
        return None if reduced is None or reduced[2] else (reduced[0], [reduced[1]])
    return (reduced[0], [reduced[1]]) if reduced is not None and reduced[2] else None


def _over_channels(node: Any) -> tuple[Any, torch.fx.Node, bool] | None:
    """What a node computes over the channels of each pixel, of which images, and whether it keeps their axis."""
    if not isinstance(node, torch.fx.Node):
        return None
    function = next((each for kinds, each in _OF_CHANNELS if node.target in kinds), channel_maximum)
    if _takes_values(node):
        node = node.args[0]
    elif node.target not in (*_MEANS, *_GREATEST, *_SUMS):
        return None
    given = arguments_of(node, "input", "dim", "keepdim")
    return (function, given["input"], bool(given.get("keepdim"))) if given.get("dim") == 1 else None


_OF_CHANNELS = (_MEANS, channel_average), (_SUMS, channel_total)


def _is_of_channels(node: torch.fx.Node) -> bool:
    """Whether a node is read with the one that takes the greatest channels, or puts the axis of channels back."""
    if _is_greatest(node):
        return bool(node.users) and all(_takes_values(each) or not each.users for each in node.users)
    if not node.users:  # which channel is the greatest
        return bool(node.args) and _is_greatest(node.args[0])
    reduced = _over_channels(node)
    return reduced is not None and not reduced[2] and all(map(_adds_channel, node.users))


def _is_greatest(node: Any) -> bool:
    """Whether a node gives the greatest channel of each pixel, and which one it is."""
    if not isinstance(node, torch.fx.Node) or node.target not in ("max", torch.max):
        return False
    return arguments_of(node, "input", "dim", "keepdim").get("dim") == 1


def _takes_values(node: torch.fx.Node) -> bool:
    """Whether a node takes the greatest channels, and not which ones they are."""
    first = (node.target, *node.args[1:]) in ((operator.getitem, 0), (getattr, "values"))
    return first and _is_greatest(node.args[0])


def _adds_channel(node: torch.fx.Node) -> bool:
    """Whether a node puts an axis of one channel behind that of images."""
    return node.target in ("unsqueeze", torch.unsqueeze) and node.args[1:] == (1,)


def _adds_axis(node: torch.fx.Node) -> bool:
    """Whether a node puts an axis behind those of rows of numbers."""
    return node.target in ("unsqueeze", torch.unsqueeze) and node.args[1:] in ((-1,), (2,), (3,), (4,))


def _axes(node: torch.fx.Node) -> Any:
    """The axes that a node is told to take away, in whichever way."""
    given: Any = arguments_of(node, "input", "dim")
    return given.get("dim") if not given.get("keepdim") else None


def _one_of_pixels(node: torch.fx.Node, rank: int) -> bool:
    """Whether a node takes the rows or the columns away from an array of so many axes, of which it has the last."""
    axis = _axes(node) if node.target in (*_SQUEEZES, *_MEANS, *_GREATEST, *_SUMS) else None
    return isinstance(axis, int) and axis % rank in (2, 3)


def _same_over_the_other(node: torch.fx.Node, before: torch.fx.Node) -> bool:
    """Whether a node does to the last of three axes what one before it did to one of four."""
    kinds = [each for each in (_SQUEEZES, _MEANS, _GREATEST, _SUMS) if node.target in each and before.target in each]
    return bool(kinds) and _one_of_pixels(node, 3)


def _of_both(node: torch.fx.Node) -> Any:
    """What computes what a node does to the rows and the columns, one after the other."""
    if node.target in _SQUEEZES:
        return nn.Flatten()
    reduced = average if node.target in _MEANS else total if node.target in _SUMS else maximum
    return partial(reduced, keepdim=False)


def axes_of_size(size: Any, image: torch.fx.Node) -> list[int]:
    """The axes of an image whose sizes a node gives; none for another node."""
    if not isinstance(size, torch.fx.Node):
        return []
    if size.target == "size" and size.args[0] is image and len(size.args) == 2:
        return [size.args[1] % 4] if isinstance(size.args[1], int) else []
    shape = size.args[0] if size.target is operator.getitem else None
    if not isinstance(shape, torch.fx.Node) or shape.args != ((image,) if shape.target == "size" else (image, "shape")):
        return []
    axes = [*range(4)][size.args[1]]  # type: ignore[index]
    return [axes] if isinstance(axes, int) else axes


def _axes_of_view(node: torch.fx.Node, rank: int) -> tuple[Any, ...] | None:
    """The axes that a node gives a tensor, if there are so many."""
    if node.target not in VIEWS:
        return None
    axes: Any = node.args[1] if len(node.args) == 2 else node.args[1:]
    return tuple(axes) if isinstance(axes, (tuple, list)) and len(axes) == rank else None


def _of_shape(node: torch.fx.Node) -> bool:
    """Whether a node gives a tensor the shape of another one."""
    shape: Any = node.args[1] if node.target in VIEWS and len(node.args) == 2 else None
    if not isinstance(shape, torch.fx.Node):
        return False
    return (shape.target is getattr and shape.args[1:] == ("shape",)) or (
        shape.target == "size" and len(shape.args) == 1
    )


def _swapped(node: Any, rank: int) -> int | None:
    """The groups of channels whose axis a node swaps with that of the channels in a group."""
    if not isinstance(node, torch.fx.Node):
        return None
    order = (0, 2, 1, *range(3, rank + 3))
    swaps = node.target in _SWAPS and sorted(node.args[1:]) == [1, 2]  # type: ignore[type-var]
    if not swaps and permutation(node, rank) != order:
        return None
    source = node.args[0]
    axes = _axes_of_view(source, rank + 3) if isinstance(source, torch.fx.Node) else None
    return axes[1] if axes is not None and isinstance(axes[1], int) else None


def reshaped(shape: Any, rank: int) -> nn.Module:
    """The flattening that a reshape to (N, -1) or (-1, numbers) is, or its inverse, to (N, C, H, W)."""
    axes = [*shape] if isinstance(shape, (list, tuple)) else []
    if len(axes) == 2 and ((is_size_of(axes[0], 0) and (axes[1] == -1 or is_size_of(axes[1], 1))) or axes[0] == -1):
        return nn.Flatten()
    if len(axes) == rank + 2 and axes[2:] == [1] * rank and is_size_of(axes[0], 0):
        return nn.Unflatten(1, (-1, *(1,) * rank))
    if (
        len(axes) == rank + 2
        and all(isinstance(size, int) for size in axes[1:])
        and (axes[0] == -1 or is_size_of(axes[0], 0))
    ):
        return nn.Unflatten(1, axes[1:])
    raise UnsupportedError(
        "it gives other axes than (N, -1) or, of rows, (N, C, H, W), or those of the image that tokens came from"
    )
