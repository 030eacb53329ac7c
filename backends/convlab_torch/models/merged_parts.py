"""Images with an axis of parts behind that of images, as images whose channels are those of all parts, in order.

So the code of selective kernels (arXiv:1903.06586) and of split attention (arXiv:2004.08955) becomes layers of images.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.fx
import torch.nn.functional as F
from torch import nn

from .across_channels import parts_softmax, space_to_depth
from .constants import operation
from .patterns import permutation
from .rewriting import JOINS, VIEWS, Call, arguments_of, caller

_FLATTENS = (torch.flatten, "flatten")
_SOFTMAX = (F.softmax, torch.softmax, "softmax")
_SUMS = (torch.sum, "sum")
_MEANS = (torch.mean, "mean")
_SWAPS = (torch.transpose, "transpose")
# What is without a use where nothing takes it, such as a check of a shape.
_OF_SHAPES = ("_assert", "eq", "getitem", "getattr", "size", "unsqueeze")
# The orders of the axes that squares of pixels are put in, and what computes that.
_SQUARES: dict[tuple[int, ...], Any] = {(0, 3, 5, 1, 2, 4): space_to_depth, (0, 1, 3, 5, 2, 4): F.pixel_unshuffle}


class _Merged(NamedTuple):
    """What holds the numbers of a node that has an axis of parts.

    Attributes:
        image: the node of the image (N, parts * C, H, W).
        parts: how many there are.
        axis: that of the parts, 1, or 0 before that of images; 2 before it has been put in front of another one, of one
            number.
    """

    image: torch.fx.Node
    parts: int
    axis: int = 1


def has_parts(graph: torch.fx.Graph) -> bool:
    """Whether a graph may have values with an axis of parts."""
    return any(_stacked(node) or _axes(node) in (4, 5, 6) for node in graph.nodes)


def _stacked(node: torch.fx.Node) -> tuple[list[torch.fx.Node], int] | None:
    """The tensors that a node joins along an axis that each of them gets, and the axis; None for another node."""
    given = arguments_of(node, "tensors", "dim")
    tensors: Any = given.get("tensors")
    axis = given.get("dim", 0)
    if node.target is torch.stack:
        return [*tensors], axis
    joins = node.target in JOINS and isinstance(tensors, (list, tuple)) and all(_gets(each, axis) for each in tensors)
    return ([each.args[0] for each in tensors], axis) if joins else None


def _gets(node: Any, axis: Any) -> bool:
    unsqueezes = isinstance(node, torch.fx.Node) and node.target in (torch.unsqueeze, "unsqueeze")
    return unsqueezes and arguments_of(node, "input", "dim").get("dim") == axis


def _axes(node: torch.fx.Node) -> int:
    """How many axes a change of the shape gives; 0 for another call."""
    axes: Any = node.args[1:] if node.target in VIEWS else ()
    return len(axes[0]) if len(axes) == 1 and isinstance(axes[0], (tuple, list)) else len(axes)


def _axes_of(node: torch.fx.Node, seen: Mapping[torch.fx.Node, Any]) -> int:
    """How many axes a node's result has; 0 where it is no tensor."""
    return len(seen[node]) if isinstance(seen.get(node), torch.Size) else 0


def merge_parts(model: nn.Module, graph: torch.fx.Graph, seen: Mapping[torch.fx.Node, Any]) -> None:
    """Put calls on images in the place of those on values with an axis of parts, where all of these are known.

    Args:
        model: the model.
        graph: a traced graph, which is changed.
        seen: the shapes of its tensors for images of one size.
    """
    merged: dict[torch.fx.Node, _Merged] = {}
    for node in [*graph.nodes]:
        if node.op == "call_module" and merged.keys() & {*node.all_input_nodes}:
            node = _as_function(model, node)
        if node.op not in ("call_function", "call_method") or not isinstance(seen.get(node), torch.Size):
            continue
        with graph.inserting_before(node):
            result = _merged(node, merged, seen, caller(graph, node))
        if isinstance(result, _Merged):
            merged[node] = result
        elif result is not None:
            node.replace_all_uses_with(result)
            merged[node] = _Merged(result, 1)
    for node in reversed([*graph.nodes]):
        named = getattr(node.target, "__name__", node.target) in _OF_SHAPES
        if not node.users and (named or node in merged or _axes_of(node, seen) == 6):
            graph.erase_node(node)


def _merged(
    node: torch.fx.Node,
    merged: Mapping[torch.fx.Node, _Merged],
    seen: Mapping[torch.fx.Node, Any],
    made: Call,
) -> _Merged | torch.fx.Node | None:
    """What a node is of images: with an axis of parts, or itself an image; None for what stays as it is."""
    shape = seen[node]
    if (stacked := _stacked(node)) is not None and len(shape) in (3, 5):
        images, axis = stacked
        if axis not in (0, 1) or len(images) < 2:
            return None
        if len(shape) == 3:  # of rows, which are images of one pixel
            images = [made(torch.unflatten, each, 1, (-1, 1, 1)) for each in images]
        return _Merged(made(torch.cat, [*images], 1), len(images), axis)
    source: Any = node.args[0] if node.args else None
    if node.target in VIEWS and (squares := _of_squares(source, seen, shape, made)) is not None:
        return squares
    if node.target in VIEWS and isinstance(source, torch.fx.Node) and source not in merged:
        return _split(source, seen.get(source), shape)
    if name := operation(node.target):
        return _of_two(node, name, merged, made)
    if source not in merged or merged[source].parts == 1:
        return None
    image, parts, axis = merged[source]
    if axis == 2:
        swaps = node.target in _SWAPS and sorted(node.args[1:]) == [1, 2]  # type: ignore[type-var]
        return _Merged(image, parts) if swaps else None
    if axis == 0 and node.target in (*VIEWS, *_FLATTENS):
        return None
    return _of_one(node, merged[source], seen, made)


def _adds_axes(node: torch.fx.Node) -> bool:
    """Whether an index only adds axes."""
    index: Any = node.args[1] if node.target is operator.getitem else 0
    return isinstance(index, tuple) and all(each in (slice(None), ..., None) for each in index)


def _as_function(model: nn.Module, node: torch.fx.Node) -> torch.fx.Node:
    """The call of a function in the place of that of a module, where it is a softmax."""
    module = model.get_submodule(str(node.target))
    if type(module) is nn.Softmax:
        node.op, node.target, node.kwargs = "call_function", F.softmax, {"dim": module.dim}
    return node


def _split(source: torch.fx.Node, before: Any, after: torch.Size) -> _Merged | None:
    """The parts that a view makes of the channels of an image."""
    if not isinstance(before, torch.Size) or len(before) != 4:
        return None
    n, channels, *size = before
    if len(after) == 5 and after[1] > 1 and tuple(after) == (n, after[1], channels // after[1], *size):
        return _Merged(source, after[1])
    of_rows = size == [1, 1] and len(after) == 4 and after[1] == 1 < after[2]
    if of_rows and tuple(after) == (n, 1, after[2], channels // after[2]) and after[3] > 1:
        return _Merged(source, after[2], axis=2)
    return None


def _of_squares(node: Any, seen: Mapping[torch.fx.Node, Any], after: torch.Size, made: Call) -> torch.fx.Node | None:
    """The image whose channels are squares of pixels, of what a view takes; None for another view."""
    while isinstance(node, torch.fx.Node) and node.target == "contiguous":
        node = node.args[0]
    order = permutation(node) if isinstance(node, torch.fx.Node) else None
    split: Any = node.args[0] if order in _SQUARES else None
    image: Any = split.args[0] if isinstance(split, torch.fx.Node) and split.target in VIEWS else None
    before = seen.get(image) if isinstance(image, torch.fx.Node) else None
    if not isinstance(before, torch.Size) or len(before) != 4 or len(seen[split]) != 6 or order is None:
        return None
    (n, c, h, w), r = before, seen[split][3]
    fits = tuple(seen[split]) == (n, c, h // r, r, w // r, r) and tuple(after) == (n, c * r**2, h // r, w // r)
    return made(_SQUARES[order], image, r) if fits else None


def _of_two(node: torch.fx.Node, name: str, merged: Mapping[torch.fx.Node, _Merged], made: Call) -> _Merged | None:
    """An operation on two values with the same parts, or on one and a number."""
    if len(node.args) != 2 or node.kwargs:
        return None
    function = {"add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv}[name]
    known = [merged[each] for each in node.args if each in merged]  # type: ignore[index]
    numbers = [each for each in node.args if isinstance(each, (int, float))]
    alike = {(each.parts, each.axis) for each in known}
    if len(known) + len(numbers) < 2 or len(alike) != 1 or alike == {(1, 1)} or known[0].axis == 2:
        return None
    taken = [merged[each].image if each in merged else each for each in node.args]  # type: ignore[index]
    return _Merged(made(function, *taken), known[0].parts, known[0].axis)


def _of_one(
    node: torch.fx.Node, merged: _Merged, seen: Mapping[torch.fx.Node, Any], made: Call
) -> _Merged | torch.fx.Node | None:
    """A softmax over the parts, their sum or mean, or the parts put back among the channels."""
    image, parts, axis = merged
    given, after = arguments_of(node, "input", "dim", "keepdim"), seen[node]
    before: torch.Size = seen[given["input"]]
    if node.target in _SOFTMAX and given.get("dim") == axis and given.get("dtype") is None:
        return _Merged(made(parts_softmax, image, parts), parts, axis)
    if node.target in (*_SUMS, *_MEANS) and given.get("dim") in (axis, (axis,), [axis]) and not given.get("keepdim"):
        chunks = made(torch.chunk, image, parts, 1)
        total = made(operator.getitem, chunks, 0)
        for index in range(1, parts):
            total = made(operator.add, total, made(operator.getitem, chunks, index))
        return made(operator.mul, total, 1 / parts) if node.target in _MEANS else total
    of_pixel = len(before) > 2 and len(after) > 3 and tuple(after) == (*before[:3], *(1,) * (len(after) - 3))
    if of_pixel and (node.target in (*VIEWS, "unsqueeze", torch.unsqueeze) or _adds_axes(node)):
        return merged
    if node.target in (*VIEWS, *_FLATTENS):
        n, *others = before
        if tuple(after) == (n, parts * others[1], *others[2:]) and len(before) == 5:
            return image
        if tuple(after) == (n, before.numel() // n):
            return made(torch.flatten, image, 1)
    return None
