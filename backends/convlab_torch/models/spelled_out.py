"""Calls in a traced graph that are several simpler ones: norms of axes, sums of a stack, `alpha=`, compositions."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
import torch.fx
import torch.nn.functional as F

from .compositions import COMPOSITIONS
from .patterns import permutation
from .rewriting import VIEWS, Call, arguments_of, caller, is_size_of
from .sizes import is_size

_SUMS = (torch.sum, "sum")
_MEANS = (torch.mean, "mean")
_GREATEST, _LEAST = (torch.amax, "amax"), (torch.amin, "amin")
_REDUCED = (*_SUMS, *_MEANS, *_GREATEST, *_LEAST)
# What gives the greatest or the least numbers, and their places.
_WITH_PLACES = (torch.max, "max", torch.min, "min")
# What a reduction of a stack is of its tensors.
_JOINED = (
    ((*_SUMS, *_MEANS), operator.add),
    ((*_GREATEST, *_WITH_PLACES[:2]), torch.maximum),
    ((*_LEAST, *_WITH_PLACES[2:]), torch.minimum),
)
_FLATTENS = (torch.flatten, "flatten")
_ADDITIONS = {
    **dict.fromkeys((torch.add, "add", "add_"), operator.add),
    **dict.fromkeys((torch.sub, torch.subtract, "sub", "sub_"), operator.sub),
}


# What may be left without a call that takes it.
_TAKEN = (torch.stack, torch.permute, "permute", *VIEWS)


def spell_out(graph: torch.fx.Graph) -> None:
    """Put simpler calls in the place of those that are several of them."""
    replaced: list[torch.fx.Node] = []
    sizes: set[torch.fx.Node] = set()
    for node in [*graph.nodes]:
        if is_size(node, sizes):
            sizes.add(node)
        if node in sizes or node.op not in ("call_function", "call_method"):
            continue
        with graph.inserting_before(node):
            result = _spelled_out(node, caller(graph, node))
        if result is None:
            continue
        for each in [*node.users] if isinstance(result, tuple) else ():
            if each.target is operator.getitem:
                each.replace_all_uses_with(result[each.args[1]])
        if not isinstance(result, tuple):
            node.replace_all_uses_with(result)
        replaced.append(node)
    _erase(graph, replaced)


def _erase(graph: torch.fx.Graph, replaced: Sequence[torch.fx.Node]) -> None:
    """Erase nodes that are no longer taken, what takes only a part of them, and what only they took."""
    left = {*replaced, *(user for node in replaced for user in node.users)}
    for node in reversed([*graph.nodes]):
        if node in left and not node.users and node.op in ("call_function", "call_method"):
            left.update(node.all_input_nodes)
            graph.erase_node(node)


def _spelled_out(node: torch.fx.Node, call: Call) -> Any:
    """The last of the calls that compute the same as a node, or those for each of its results; None if it stays."""
    if node.target in _ADDITIONS and "alpha" in node.kwargs:
        given = arguments_of(node, "input", "other")
        return call(_ADDITIONS[node.target], given["input"], call(operator.mul, given["other"], given["alpha"]))
    if node.target is operator.add and 0 in node.args[:2]:  # where `sum` begins
        return next((each for each in node.args if isinstance(each, torch.fx.Node)), None)
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
    if node.target is operator.getitem and (index := _one_channel(node)) is not None:
        return call(operator.getitem, node.args[0], index)
    if node.target in (*_REDUCED, operator.getitem):
        result = _of_stack(node, call) or _over_merged(node, call) or _over_both(node, call)
        if result is not None:
            return result
    if node.target in (torch.unsqueeze, "unsqueeze"):
        return _put_back(node, call)
    return COMPOSITIONS[node.target](node, call) if node.target in COMPOSITIONS else None


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
    """The sum, the mean, the greatest or the least of tensors that were stacked along the axis that it takes away."""
    of_both = node.target is operator.getitem  # what torch.max and torch.min give
    if of_both and (node.args[1] != 0 or getattr(node.args[0], "target", None) not in _WITH_PLACES):
        return None
    node = node.args[0] if of_both else node  # type: ignore[assignment]
    given = arguments_of(node, "input", "dim", "keepdim")
    stack: Any = given["input"]
    if not isinstance(stack, torch.fx.Node) or stack.target is not torch.stack or given.get("keepdim"):
        return None
    stacked = arguments_of(stack, "tensors", "dim")
    tensors, dim = stacked["tensors"], given.get("dim")
    dim = dim[0] if isinstance(dim, (tuple, list)) and len(dim) == 1 else dim
    joined = next((each for functions, each in _JOINED if node.target in functions), None)
    known = given.keys() <= {"input", "dim", "keepdim"} and joined is not None
    if not known or not isinstance(dim, int) or dim != stacked.get("dim", 0) or not isinstance(tensors, (tuple, list)):
        return None
    total = tensors[0]
    for each in tensors[1:]:
        total = call(joined, total, each)
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


def _over_both(node: torch.fx.Node, call: Call) -> torch.fx.Node | None:
    """What is reduced over the columns and then over the rows, where both axes stay."""
    before: Any = node.args[0]
    if not isinstance(before, torch.fx.Node) or before.target != node.target or node.target not in _REDUCED:
        return None
    given, first = (arguments_of(each, "input", "dim", "keepdim") for each in (node, before))
    dims: Any = sorted(each["dim"] for each in (given, first) if isinstance(each.get("dim"), int))
    if dims not in ([2, 3], [-2, -1]) or not (given.get("keepdim") and first.get("keepdim")):
        return None
    function = getattr(torch, node.target) if isinstance(node.target, str) else node.target
    return call(function, first["input"], (2, 3), True)


def _one_channel(node: torch.fx.Node) -> Any:
    """The slice that an index of one channel and a new axis for it is; None for another index."""
    index: Any = node.args[1]
    if not isinstance(index, tuple) or len(index) < 3 or index[0] != slice(None) or None not in index[1:3]:
        return None
    number = next((each for each in index[1:3] if isinstance(each, int)), None)
    if number is None or any(each not in (slice(None), ...) for each in index[3:]):
        return None
    return slice(None), slice(number, number + 1 or None)


def _put_back(node: torch.fx.Node, call: Call) -> torch.fx.Node | None:
    """The axis of channels that was taken away just before, also by an index of one channel."""
    before: Any = node.args[0]
    if not isinstance(before, torch.fx.Node) or node.args[1:] != (1,):
        return None
    if before.target in (torch.squeeze, "squeeze") and before.args[1:] == (1,):
        return before.args[0]  # type: ignore[return-value]
    index = before.args[1] if before.target is operator.getitem else None
    if not isinstance(index, tuple) or index[:1] != (slice(None),) or not isinstance(index[1], int):
        return None
    if any(each not in (slice(None), ...) for each in index[2:]):
        return None
    return call(operator.getitem, before.args[0], (slice(None), slice(index[1], index[1] + 1 or None)))
