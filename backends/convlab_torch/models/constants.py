"""What a model's code computes with its own parameters and buffers, as modules."""

from __future__ import annotations

import operator
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn

from convlab.errors import UnsupportedError
from convlab.models.layers.reading import computed_anew

from .functional import layer_of
from .functions import with_number
from .modules import ChannelAffine, LayerNorm2d, RMSNorm2d
from .rewriting import arguments_of
from .tokens import position_embedding, with_token

_OPERATIONS: dict[str, tuple[Any, ...]] = {
    "add": (operator.add, operator.iadd, torch.add, "add", "add_"),
    "mul": (operator.mul, operator.imul, torch.mul, torch.multiply, "mul", "mul_"),
    "sub": (operator.sub, operator.isub, torch.sub, torch.subtract, "sub", "sub_"),
    "div": (operator.truediv, operator.itruediv, torch.div, torch.divide, "div", "div_"),
}


def operation(target: Any) -> str:
    """Which of "add", "sub", "mul" and "div" a function or a method is; "" for another one.

    >>> operation(torch.multiply), operation("sub_"), operation(torch.relu)
    ('mul', 'sub', '')
    """
    return next((name for name, functions in _OPERATIONS.items() if target in functions), "")


def computed_from(node: torch.fx.Node, arrays: Mapping[torch.fx.Node, Tensor]) -> Tensor | None:
    """What a node computes from arrays of the model's own alone, such as a standardised kernel; None for another call.

    It counts as an array of the model's own: what is ported has its numbers, and trains these.
    """
    taken = node.all_input_nodes
    if node.op not in ("call_function", "call_method") or not taken or not all(each in arrays for each in taken):
        return None
    args, kwargs = torch.fx.map_arg((node.args, node.kwargs), lambda each: _copied(arrays[each]))
    try:
        call = operator.methodcaller(node.target, *args[1:], **kwargs) if isinstance(node.target, str) else None
        array = node.target(*args, **kwargs) if call is None else call(args[0])  # type: ignore[operator]
    except Exception:  # The model's own code may fail in any way.
        return None
    if isinstance(array, tuple) and all(isinstance(each, Tensor) for each in array):  # of which an index takes one
        return array  # type: ignore[return-value]
    if not isinstance(array, Tensor) or not array.is_floating_point():
        return None
    trained = any(isinstance(arrays[each], nn.Parameter) for each in taken)
    return nn.Parameter(array) if trained else array


def _copied(arrays: Any) -> Any:
    return tuple(map(_copied, arrays)) if isinstance(arrays, tuple) else arrays.detach().clone()


def fetched(node: torch.fx.Node) -> list[str]:
    """The paths of the arrays that a node fetches, or computes something from."""
    if node.op == "get_attr":
        return [str(node.target)]
    return [*dict.fromkeys(path for each in node.all_input_nodes for path in fetched(each))]


def place_in_array(node: torch.fx.Node) -> str:
    """Which number of an array a node takes, as the end of a path, ".1" for `weights[1]`; "" for no single one."""
    if node.target is operator.getitem and isinstance(node.args[1], int):
        return f".{node.args[1]}"
    return place_in_array(node.all_input_nodes[0]) if node.all_input_nodes else ""


def notes_of_computed(arrays: Iterable[torch.fx.Node], computed: Container[torch.fx.Node]) -> dict[str, str]:
    """How some of the arrays of a layer are computed, by the paths of those that they are computed from."""
    notes: dict[str, str] = {}
    for each in arrays:
        notes |= computed_anew(fetched(each)) if each in computed else {}
    return notes


def with_arrays(
    node: torch.fx.Node,
    arrays: Mapping[torch.fx.Node, Tensor],
    channels_last: bool,
    rank: int,
    channels: Callable[[Any], int],
    shapes: Mapping[torch.fx.Node, Any],
) -> tuple[Any, torch.fx.Node]:
    """What computes a node of a tensor, of images NCHW, and of arrays that the model holds; and the tensor.

    Args:
        node: the call of a function.
        arrays: the arrays by the nodes that fetch them.
        channels_last: whether the tensor's last axis is that of the channels.
        rank: how many axes it has beside those of images and channels.
        channels: gives the number of a node's channels, 0 for an unknown one.
        shapes: those of the tensors, where they are for images of one size.

    Raises:
        UnsupportedError: none is known.
    """
    if (layer := layer_of(node, arrays, rank, channels)) is not None:
        return layer
    if node.target in _NORMS:
        return _norm(node, arrays, channels_last)
    if (joined := with_token(node, arrays) if channels_last and rank == 2 else None) is not None:
        return joined
    name = operation(node.target)
    if len(node.args) != 2 or not name:
        raise UnsupportedError(f"it takes {_names(node, arrays)}, an array of the model's own")
    first, second = node.args
    tensor, array = (second, first) if first in arrays else (first, second)
    if tensor in arrays or not isinstance(tensor, torch.fx.Node) or (first in arrays and name in ("sub", "div")):
        raise UnsupportedError(f"it computes an array from {_names(node, arrays)}")
    numbers = arrays[array]  # type: ignore[index]
    numbers = numbers if numbers.is_floating_point() else numbers.to(torch.get_default_dtype())
    if numbers.numel() == 1:
        constant = not isinstance(numbers, nn.Parameter)
        return with_number(name, float(numbers)) if constant else _affine(numbers, name), tensor
    own_axis = numbers.ndim - 1 if channels_last else numbers.ndim - 1 - rank
    count = channels(tensor)
    one_each = own_axis >= 0 and numbers.numel() == numbers.shape[own_axis] > 1 and count in (0, numbers.numel())
    if not one_each and name == "add" and rank == 2:
        embedding = position_embedding(_repeated(numbers, shapes.get(tensor)), channels_last, count)
        if embedding is not None:
            return embedding, tensor
    if not one_each:
        raise UnsupportedError(f"it takes {_names(node, arrays)}, which hasn't one number for each channel")
    return _affine(numbers, name), tensor


def _repeated(numbers: Tensor, shape: Any) -> Tensor:
    """A constant with a number for each element of images of a known size, to which it is added."""
    if not isinstance(shape, torch.Size) or isinstance(numbers, nn.Parameter):
        return numbers
    whole = (1, *shape[1:])
    fits = numbers.ndim <= len(whole) and torch.broadcast_shapes(numbers.shape, whole) == whole  # type: ignore[no-untyped-call]
    return numbers.expand(whole).clone() if fits else numbers


def _names(node: torch.fx.Node, arrays: Mapping[torch.fx.Node, Tensor]) -> str:
    return " and ".join(str(each.target) for each in node.all_input_nodes if each in arrays)


def _affine(numbers: Tensor, name: str) -> ChannelAffine:
    trained = isinstance(numbers, nn.Parameter)
    if trained and name in ("sub", "div"):
        raise UnsupportedError("it subtracts or divides by a parameter")
    scales, flat = name in ("mul", "div"), numbers.detach().reshape(-1)
    module = ChannelAffine(flat.numel(), scales, not scales, trained)
    value = {"sub": -flat, "div": 1 / flat}.get(name, flat)
    setattr(module, "weight" if scales else "bias", nn.Parameter(value) if trained else value)
    return module


# The functions of the last axis, the names of their arguments, and the norms that they are: of channels, of that axis.
_NORMS: dict[Any, tuple[tuple[str, ...], Any, Any]] = {
    F.layer_norm: (("weight", "bias", "eps"), LayerNorm2d, nn.LayerNorm),
    F.rms_norm: (("weight", "eps"), RMSNorm2d, nn.RMSNorm),
}


def _norm(
    node: torch.fx.Node, arrays: Mapping[torch.fx.Node, Tensor], channels_last: bool
) -> tuple[nn.Module, torch.fx.Node]:
    names, of_channels, of_axis = _NORMS[node.target]
    kind = of_channels if channels_last else of_axis
    given = arguments_of(node, "input", "normalized_shape", *names)
    shape: Sequence[int] = given["normalized_shape"]
    if len(shape) != 1:
        raise UnsupportedError(f"it normalises {len(shape)} axes, expected the last")
    epsilon = {"eps": given["eps"]} if "eps" in given else {}
    norm = kind(shape[0], elementwise_affine=False, **epsilon)
    for name in {"weight", "bias"}.intersection(names):
        setattr(norm, name, arrays[given[name]] if given.get(name) else None)
    return norm, given["input"]
