"""Calls that take sizes of images, and do the same to images of all sizes: pools of whole images, cuts at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.fx
import torch.nn.functional as F

from .rewriting import arguments_of

_POOLS: dict[Any, Any] = {F.avg_pool2d: torch.mean, F.max_pool2d: torch.amax, torch.max_pool2d: torch.amax}
Seen = Mapping[torch.fx.Node, Any]


def of_whole_images(node: torch.fx.Node, runs: Sequence[Seen]) -> tuple[Any, tuple[Any, ...]] | None:
    """The function, and its arguments, that a pooling is whose window is the size of its image; None for another call.

    Args:
        node: a call.
        runs: the shapes of tensors, and numbers from them, for images of several sizes.
    """
    given = arguments_of(node, "input", "kernel_size", "stride")
    window = given.get("kernel_size")
    plain = len(node.args) <= 3 and all(given[name] in (0, 1, False, True) for name in given.keys() - _SIZES)
    if node.target not in _POOLS or window is None or not plain or given.get("divisor_override") is not None:
        return None
    if any(_pair(_in(window, seen)) != tuple(seen[given["input"]][2:]) for seen in runs):
        return None
    return _POOLS[node.target], (given["input"], (2, 3), True)


_SIZES = {"input", "kernel_size", "stride", "divisor_override"}


def cut_at_the_end(node: torch.fx.Node, runs: Sequence[Seen]) -> tuple[Any, ...] | None:
    """An index that counts from the end where that is the same for images of all sizes; None where it isn't.

    `x[:, :, : x.shape[2] // 2 * 2]` is `x[:, :, :]` for multiples of 2, and `x[:, :, : y.shape[2]]` cuts off as many
    rows as y has fewer than x.
    """
    source, index = node.args
    items = index if isinstance(index, tuple) else (index,)
    shapes = [seen.get(source) for seen in runs]  # type: ignore[arg-type]
    if not runs or ... in items[1:] or not all(isinstance(shape, torch.Size) for shape in shapes):
        return None
    first = len(shapes[0]) - len(items) + 1 if items[:1] == (...,) else 0  # type: ignore[arg-type]
    known: list[Any] = []
    for axis, each in enumerate(items[1:] if first else items, first):
        if not isinstance(each, slice):
            known.append(each)
            continue
        ends = [(_number([_in(end, seen) for seen in runs], [shape[axis] for shape in shapes])) for end in _ends(each)]  # type: ignore[index]
        if None in ends:
            return None
        start, stop = (None if end == () else end for end in ends)
        known.append(slice(start, stop, each.step))
    return (..., *known) if first else tuple(known)


def _ends(part: slice) -> tuple[Any, Any]:
    return part.start, part.stop


def _number(values: Sequence[Any], sizes: Sequence[int]) -> Any:
    """The number that values are, or that they are less than sizes; () for none, and for the end; None for neither."""
    if values[0] is None or all(value == size for value, size in zip(values, sizes, strict=True)):
        return ()
    if not all(isinstance(value, int) for value in values):
        return None
    differences = {value - size for value, size in zip(values, sizes, strict=True)}
    if len({*values}) == 1:
        return values[0]
    return differences.pop() if len(differences) == 1 and max(differences) < 0 else None


def _in(value: Any, seen: Seen) -> Any:
    """A value with the numbers of a run in the place of nodes."""
    return torch.fx.map_arg(value, lambda node: seen.get(node))


def _pair(sizes: Any) -> Any:
    return tuple(sizes) if isinstance(sizes, (tuple, list)) else (sizes, sizes)
