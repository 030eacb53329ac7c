"""Code that changes a tensor in its place, as code that takes the changed one from there on."""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.fx
import torch.nn.functional as F
from torch import nn

from convlab.errors import UnsupportedError

from .sizes import is_size

# Python's operators that change a tensor in its place, and those that compute the same.
OPERATORS: dict[Any, Any] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
    operator.ipow: operator.pow,
}
_VIEWS = {
    *(
        "view",
        "view_as",
        "reshape",
        "reshape_as",
        "flatten",
        "unflatten",
        "permute",
        "transpose",
        "swapaxes",
        "movedim",
    ),
    *("squeeze", "unsqueeze", "expand", "expand_as", "chunk", "split", "unbind", "narrow", "getitem", "contiguous"),
    *("detach", "dropout"),
}
_SAME = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.Flatten, nn.Unflatten)
# The node of a tensor, and the indices by which it is a part of that.
Place = tuple[Any, ...]


def take_changed(graph: torch.fx.Graph, model: nn.Module) -> None:
    """Let what comes behind a change in place take its result, which is the tensor that was changed.

    Args:
        graph: a traced graph, which is changed.
        model: what was traced.

    Raises:
        UnsupportedError: what is taken behind a change is a view of the changed tensor, or has one that is changed.
    """
    places: dict[torch.fx.Node, Place] = {}
    sizes: set[torch.fx.Node] = set()
    for node in graph.nodes:
        source: Any = node.args[0] if node.args else None
        if is_size(node, sizes):
            sizes.add(node)
        elif isinstance(source, torch.fx.Node) and source not in sizes and _is_in_place(node, model):
            source.replace_all_uses_with(node, lambda user, node=node: node < user)  # type: ignore[misc]
            places[node] = places.get(source, (source,))
            _check(node, places, sizes)
        elif isinstance(source, torch.fx.Node) and _is_view(node, model):
            places[node] = _place(node, places.get(source, (source,)))
        node.target = OPERATORS.get(node.target, node.target)


def _check(changing: torch.fx.Node, places: dict[torch.fx.Node, Place], sizes: set[torch.fx.Node]) -> None:
    place = places[changing]
    for node in (place[0], *places):
        later = any(changing < user and user not in sizes and not is_size(user, sizes) for user in node.users)
        if node is not changing and later and _meet(place, places.get(node, (node,))):
            raise UnsupportedError(
                f"{_name(changing)} in place: {_name(node)}, which is taken later, shares its numbers"
            )


def _place(view: torch.fx.Node, place: Place) -> Place:
    return (*place, view.args[1]) if view.target is operator.getitem else place


def _meet(place: Place, other: Place) -> bool:
    """Whether two tensors may share numbers."""
    return place[0] is other[0] and not any(map(_apart, place[1:], other[1:]))


def _apart(index: Any, other: Any) -> bool:
    """Whether two indices surely take different parts of a tensor."""
    if isinstance(index, int) and isinstance(other, int):
        return index != other and min(index, other) >= 0
    if isinstance(index, slice) and isinstance(other, slice):
        return _ends_before(index, other) or _ends_before(other, index)
    both = isinstance(index, tuple) and isinstance(other, tuple) and ... not in (*index, *other)
    return both and any(map(_apart, index, other))


def _ends_before(index: slice, other: slice) -> bool:
    numbers = index.stop, other.start
    return all(isinstance(number, int) and number >= 0 for number in numbers) and bool(index.stop <= other.start)


def _is_in_place(node: torch.fx.Node, model: nn.Module) -> bool:
    if node.op == "call_module":
        return bool(getattr(model.get_submodule(str(node.target)), "inplace", False))
    name = _name(node)
    method = node.op == "call_method" or any(getattr(each, name, None) is node.target for each in (torch, F))
    in_name = method and name.endswith("_") and not name.endswith("__")
    return in_name or node.target in OPERATORS or node.kwargs.get("inplace") is True


def _is_view(node: torch.fx.Node, model: nn.Module) -> bool:
    if node.op == "call_module":
        return isinstance(model.get_submodule(str(node.target)), _SAME)
    return _name(node) in _VIEWS


def _name(node: torch.fx.Node) -> str:
    return node.target if isinstance(node.target, str) else str(getattr(node.target, "__name__", node.target))
