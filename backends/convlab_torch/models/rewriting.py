"""A traced graph, rewritten so that it is easier to read: axes NHWC as those NCHW have them, and functions inlined."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.fx
import torch.nn.functional as F

from convlab.models.layers.spatial import to_first

VIEWS = ("view", "reshape", torch.reshape)
# What may split an axis into several, so that tokens become images again.
OPENS = (*VIEWS, torch.unflatten, "unflatten", "view_as", "reshape_as")
JOINS = (torch.cat, torch.concat, torch.concatenate)
CHUNKS = (torch.chunk, "chunk")
SPLITS = (torch.split, "split", "split_with_sizes", torch.split_with_sizes)
# What gives several tensors, of which an index takes one.
PARTS = (*CHUNKS, *SPLITS)
Call = Callable[..., torch.fx.Node]
_MEANS = (torch.mean, torch.amax, torch.sum, "mean", "amax", "sum")


def arguments_of(node: torch.fx.Node, *names: str) -> dict[str, Any]:
    """The arguments of a call, by the names that its function has for them, in order."""
    return {**dict(zip(names, node.args, strict=False)), **node.kwargs}


def is_size_of(size: Any, axis: int) -> bool:
    """Whether it is the size of an axis, of whichever tensor: the first is the number of images."""
    if not isinstance(size, torch.fx.Node):
        return False
    if size.target == "size":
        return bool(size.args[1:] == (axis,))
    of = size.args[0]
    shape = isinstance(of, torch.fx.Node) and (of.target == "size" or (of.target is getattr and of.args[1] == "shape"))
    return bool(size.target is operator.getitem and shape and size.args[1] == axis)


def slices_of(index: Any, rank: int = 2) -> tuple[slice, ...] | None:
    """The slices that an index of images has, one for each axis; None where it has anything else.

    >>> slices_of((..., slice(0, None, 2), slice(None)))
    (slice(None, None, None), slice(None, None, None), slice(0, None, 2), slice(None, None, None))
    """
    axes = list(index) if isinstance(index, tuple) else [index]
    if ... in axes:
        place = axes.index(...)
        axes[place : place + 1] = [slice(None)] * (rank + 3 - len(axes))
    axes += [slice(None)] * (rank + 2 - len(axes))
    return tuple(axes) if len(axes) == rank + 2 and all(isinstance(each, slice) for each in axes) else None


def how_many(node: torch.fx.Node) -> int | None:
    """How many parts of a tensor, or sizes of an image, a call gives, where its arguments tell; None for others."""
    if node.target in CHUNKS:
        given: Any = arguments_of(node, "input", "chunks").get("chunks")
        return given if isinstance(given, int) else None
    if node.target in SPLITS:
        sizes = (*node.args[1:2], *(node.kwargs[name] for name in node.kwargs if name != "dim"))
        return len(sizes[0]) if isinstance(sizes[0], (tuple, list)) else None
    # The rows and columns of an image; a tensor with other axes fails where they are used.
    of_shape = node.target is operator.getitem and isinstance(node.args[0], torch.fx.Node)
    shape: Any = node.args[0] if of_shape else None
    sizes_alone = shape is not None and (shape.target == "size" or shape.args[1:] == ("shape",))
    return 2 if sizes_alone and node.args[1] in (slice(2, None), slice(-2, None)) else None


def to_channels_first(node: torch.fx.Node, rank: int, of_tokens: bool = False) -> bool:
    """Rewrite a call on images NHWC, or on tokens, as the one that does the same to images NCHW.

    It is False where that isn't known, and for tokens where it isn't along the channels.
    """
    args: list[Any] = [*node.args]
    kwargs = dict(node.kwargs)
    order = to_first(1 if of_tokens else rank)
    if node.target is operator.getitem and getattr(args[0], "target", None) in PARTS:
        return True
    if of_tokens and node.target not in (*JOINS, *PARTS):
        return False
    if node.target is operator.getitem and (slices := slices_of(args[1], rank)) is not None:
        args[1] = tuple(slices[axis] for axis in order)
    elif node.target is F.pad and len(args[1]) == 2 * rank + 2 and tuple(args[1][:2]) == (0, 0):
        args[1] = tuple(args[1][2:])
    elif node.target in (*JOINS, *_MEANS, *PARTS):
        place = 2 if node.target in PARTS else 1
        dim = args[place] if len(args) > place else kwargs.get("dim")
        if not isinstance(dim, (int, tuple, list)):
            return False
        axes = [order.index(axis % len(order)) for axis in (dim if isinstance(dim, (tuple, list)) else [dim])]
        if of_tokens and axes != [1]:
            return False
        moved = axes[0] if isinstance(dim, int) else axes
        if len(args) > place:
            args[place] = moved
        else:
            kwargs["dim"] = moved
    else:
        return False
    node.args, node.kwargs = tuple(args), kwargs
    return True


def caller(graph: torch.fx.Graph, node: torch.fx.Node) -> Call:
    """What adds a call to the graph, which is of the code of the same module as a node."""

    def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.fx.Node:
        new = graph.call_function(function, args, kwargs)
        if "nn_module_stack" in node.meta:
            new.meta["nn_module_stack"] = node.meta["nn_module_stack"]
        return new

    return call


def inline(graph: torch.fx.Graph, is_known: Callable[[Any], bool]) -> None:
    """Put the operations of functions that aren't PyTorch's and aren't known in the place of their calls."""
    for node in [*graph.nodes]:
        plain = node.op == "call_function" and inspect.isfunction(node.target) and not node.kwargs
        tensors = all(isinstance(each, torch.fx.Node) for each in node.args)
        if not plain or not tensors or is_known(node.target) or node.target.__module__.startswith("torch."):
            continue
        try:
            inner = torch.fx.Tracer().trace(node.target)
        except Exception:  # The function's code may fail in any way when it is given a proxy.
            continue
        places = [each for each in inner.nodes if each.op == "placeholder"]
        before = set(graph.nodes)
        with graph.inserting_before(node):
            result = graph.graph_copy(inner, dict(zip(places, node.args, strict=True)))
        for each in graph.nodes:
            if each not in before and "nn_module_stack" in node.meta:
                each.meta["nn_module_stack"] = node.meta["nn_module_stack"]
        node.replace_all_uses_with(result)
        graph.erase_node(node)
