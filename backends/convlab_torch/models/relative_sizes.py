"""Calls that take sizes of images, and do the same to images of all sizes: pools of whole images, cuts at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.fx
import torch.nn.functional as F

from convlab.models.layers.spatial import per_axis

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
    if any(per_axis(_in(window, seen), 2) != tuple(seen[given["input"]][2:]) for seen in runs):
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
        sizes = [shape[axis] for shape in shapes]  # type: ignore[index]
        start = _number([_in(each.start, seen) for seen in runs], sizes)
        stop = _number([_in(each.stop, seen) for seen in runs], sizes, from_end=True)
        if start is None or stop is None:
            return None
        known.append(slice(None if start == () else start, None if stop == () else stop, each.step))
    return (..., *known) if first else tuple(known)


def _number(values: Sequence[Any], sizes: Sequence[int], from_end: bool = False) -> Any:
    """The number that values are, or that they are less than sizes; () for none, and for the end; None for neither.

    Of both it is the one that counts from the end if that is asked for.
    """
    if values[0] is None or all(isinstance(n, int) and n >= size for n, size in zip(values, sizes, strict=True)):
        return ()
    if not all(isinstance(value, int) for value in values):
        return None
    differences = {value - size for value, size in zip(values, sizes, strict=True)}
    less = differences.pop() if len(differences) == 1 and min(values) >= 0 else 0
    same = values[0] if len({*values}) == 1 else None
    return less if less < 0 and (from_end or same is None) else same


def _in(value: Any, seen: Seen) -> Any:
    """A value with the numbers of a run in the place of nodes."""
    return torch.fx.map_arg(value, lambda node: seen.get(node))
