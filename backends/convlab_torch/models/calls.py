"""What computes a call in a traced graph that takes no array of the model's own."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.fx

from convlab.errors import UnsupportedError

from .constants import operation
from .functions import add, affine, divide, is_known_function, multiply, native_of, subtract, with_number
from .patterns import native_of_pattern, reshaped

_NEGATIVES = (operator.neg, torch.neg, torch.negative, "neg", "negative")
# Arguments that aren't looked at: the tensors, given by name, and what only warns.
_UNUSED = ("input", "tensors", "_stacklevel")


def native_of_call(node: torch.fx.Node, rank: int) -> tuple[Any, list[torch.fx.Node]]:
    """What computes a node, and the nodes whose values it takes."""
    first: Any
    first, *others = node.args
    options = {name: value for name, value in node.kwargs.items() if name not in _UNUSED}
    if options.get("dtype", first) is None:
        del options["dtype"]
    if node.target in _NEGATIVES:
        return partial(affine, scale=-1.0), [first]
    if name := operation(node.target):
        if len(others) != 1 or options:
            raise UnsupportedError("its arguments are unknown")
        return _arithmetic(name, first, others[0])
    if isinstance(first, (list, tuple)):
        if not all(isinstance(each, torch.fx.Node) for each in first):
            raise UnsupportedError("it takes a number")
        return native_of(node.target, *others, rank=rank, **options), [*first]
    if not isinstance(first, torch.fx.Node):
        raise UnsupportedError("it takes no tensor")
    if (pattern := native_of_pattern(node, rank)) is not None:
        return pattern
    if node.target in ("view", "reshape", torch.reshape):
        return reshaped(others[0] if len(others) == 1 else others, rank), [first]
    computed = any(isinstance(each, torch.fx.Node) for each in _flat([*others, *options.values()]))
    if computed and is_known_function(node.target):
        raise UnsupportedError("it depends on the tensor's shape or values")
    return native_of(node.target, *others, rank=rank, **options), [first]


def _arithmetic(name: str, a: Any, b: Any) -> tuple[Any, list[torch.fx.Node]]:
    """What an operation on two tensors, or on a tensor and a number, is."""
    a_tensor, b_tensor = isinstance(a, torch.fx.Node), isinstance(b, torch.fx.Node)
    joining = {"add": add, "sub": subtract, "mul": multiply, "div": divide}
    if a_tensor and b_tensor:
        return joining[name], [a, b]
    tensor, number = (a, b) if a_tensor else (b, a)
    if a_tensor == b_tensor or not isinstance(number, (int, float)) or (b_tensor and name == "div"):
        raise UnsupportedError("it takes neither two tensors nor a tensor and a number")
    return with_number(name, number, behind=a_tensor), [tensor]


def _flat(values: Sequence[Any]) -> Iterator[Any]:
    for value in values:
        yield from _flat(value) if isinstance(value, (list, tuple)) else (value,)
