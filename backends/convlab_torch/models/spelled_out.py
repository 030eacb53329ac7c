"""Calls in a traced graph that are several simpler ones: norms of axes, sums of a stack, `alpha=`."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
import torch.fx
import torch.nn.functional as F

from .patterns import permutation
from .rewriting import VIEWS, Call, arguments_of, caller, is_size_of

_SUMS = (torch.sum, "sum")
_MEANS = (torch.mean, "mean")
_FLATTENS = (torch.flatten, "flatten")
_ADDITIONS = {
    **dict.fromkeys((torch.add, "add", "add_"), operator.add),
    **dict.fromkeys((torch.sub, torch.subtract, "sub", "sub_"), operator.sub),
}


# What may be left without a call that takes it.
_TAKEN = (torch.stack, torch.permute, "permute", *VIEWS)


def spell_out(graph: torch.fx.Graph) -> None:
    """Put simpler calls in the place of those that are several of them."""
    for node in [*graph.nodes]:
        if node.op not in ("call_function", "call_method"):
            continue
        with graph.inserting_before(node):
            result = _spelled_out(node, caller(graph, node))
        if result is not None:
            node.replace_all_uses_with(result)
            graph.erase_node(node)
    for node in reversed([*graph.nodes]):
        if node.target in _TAKEN and not node.users:
            graph.erase_node(node)


def _spelled_out(node: torch.fx.Node, call: Call) -> torch.fx.Node | None:
    """The last of the calls that compute the same as a node; None for one that stays."""
    if node.target in _ADDITIONS and "alpha" in node.kwargs:
        given = arguments_of(node, "input", "other")
        return call(_ADDITIONS[node.target], given["input"], call(operator.mul, given["other"], given["alpha"]))
    if node.target in (torch.addcmul, "addcmul"):
        given = arguments_of(node, "input", "tensor1", "tensor2")
        product = call(operator.mul, given["tensor2"], given["tensor1"])
        value = given.get("value", 1)
        return call(operator.add, product if value == 1 else call(operator.mul, product, value), given["input"])
    if node.target is F.normalize:
        return _normalized(node, call)
    if node.target in _NORMS:
        return _norm(node, call)
    if node.target in VIEWS:
        return _boxes(node, call)
    if node.target in (*_SUMS, *_MEANS, torch.amax, "amax"):
        return _of_stack(node, call) or _over_merged(node, call)
    return None


def _normalized(node: torch.fx.Node, call: Call) -> torch.fx.Node | None:
    """`F.normalize`, a quotient by the norm, or by eps where that is greater."""
    given = arguments_of(node, "input", "p", "dim", "eps", "out")
    if given.get("p", 2) != 2 or given.get("out") is not None:
        return None
    norm = _root_of_squares(given["input"], given.get("dim", 1), True, call)
    return call(operator.truediv, given["input"], call(torch.clamp_min, norm, given.get("eps", 1e-12)))


def _boxes(node: torch.fx.Node, call: Call) -> torch.fx.Node | None:
    """The boxes (N, -1, K) of images (N, A * K, H, W), by way of (N, A, K, H, W) and (N, H, W, A, K)."""
    moved = node.args[0]
    if not isinstance(moved, torch.fx.Node) or permutation(moved) != (0, 3, 4, 1, 2):
        return None
    view: Any = moved.args[0]
    axes, whole = (_axes_of(each) if each.target in VIEWS else [] for each in (node, view))
    sizes = len(whole) == 5 and len(axes) == 3 and all(is_size_of(whole[axis], axis - 1) for axis in (3, 4))
    if not sizes or whole[2] != axes[2] or not isinstance(axes[2], int) or not is_size_of(whole[0], 0):
        return None
    return call(torch.reshape, call(torch.permute, view.args[0], (0, 2, 3, 1)), (axes[0], axes[1], axes[2]))


def _axes_of(view: torch.fx.Node) -> list[Any]:
    axes: Any = view.args[1] if len(view.args) == 2 else view.args[1:]
    return [*axes] if isinstance(axes, (tuple, list)) else []


# The names of the arguments of each.
_NORMS: dict[Any, Sequence[str]] = {
    "norm": ("input", "p", "dim", "keepdim"),
    torch.norm: ("input", "p", "dim", "keepdim"),
    torch.linalg.norm: ("input", "ord", "dim", "keepdim"),
    torch.linalg.vector_norm: ("input", "ord", "dim", "keepdim"),
}


def _norm(node: torch.fx.Node, call: Call) -> torch.fx.Node | None:
    """The root of a sum of squares."""
    given = {name: value for name, value in arguments_of(node, *_NORMS[node.target]).items() if value is not None}
    order, dim = given.get("p", given.get("ord")), given.get("dim")
    several = isinstance(dim, (tuple, list)) and len(dim) > 1
    # Of two axes, torch.linalg.norm takes the largest singular value where the order is 2.
    vectors = order in (None, 2, "fro") and not (several and order == 2 and node.target is torch.linalg.norm)
    if not vectors or dim is None or given.keys() - {"input", "p", "ord", "dim", "keepdim"}:
        return None
    return _root_of_squares(given["input"], dim, bool(given.get("keepdim", False)), call)


def _root_of_squares(x: torch.fx.Node, dim: Any, keepdim: bool, call: Call) -> torch.fx.Node:
    return call(torch.sqrt, call(torch.sum, call(operator.mul, x, x), dim, keepdim))


def _of_stack(node: torch.fx.Node, call: Call) -> torch.fx.Node | None:
    """The sum or the mean of tensors that were stacked along the axis that it takes away."""
    given = arguments_of(node, "input", "dim", "keepdim")
    stack: Any = given["input"]
    if not isinstance(stack, torch.fx.Node) or stack.target is not torch.stack or given.get("keepdim"):
        return None
    stacked = arguments_of(stack, "tensors", "dim")
    tensors, dim = stacked["tensors"], given.get("dim")
    dim = dim[0] if isinstance(dim, (tuple, list)) and len(dim) == 1 else dim
    known = given.keys() <= {"input", "dim", "keepdim"} and node.target in (*_SUMS, *_MEANS)
    if not known or not isinstance(dim, int) or dim != stacked.get("dim", 0) or not isinstance(tensors, (tuple, list)):
        return None
    total = tensors[0]
    for each in tensors[1:]:
        total = call(operator.add, total, each)
    return call(operator.mul, total, 1 / len(tensors)) if node.target in _MEANS else total


def _over_merged(node: torch.fx.Node, call: Call) -> torch.fx.Node | None:
    """The sum, the mean or the greatest number of pixels that were merged into one axis."""
    given = arguments_of(node, "input", "dim", "keepdim")
    merged: Any = given["input"]
    flat = isinstance(merged, torch.fx.Node) and merged.target in _FLATTENS and merged.args[1:] in ((2,), (2, -1))
    if not flat or merged.kwargs or given.get("keepdim") or given.get("dim") not in (-1, 2, (-1,), (2,), [-1], [2]):
        return None
    function = {"sum": torch.sum, "mean": torch.mean, "amax": torch.amax}.get(str(node.target), node.target)
    return call(function, merged.args[0], (2, 3), False)
