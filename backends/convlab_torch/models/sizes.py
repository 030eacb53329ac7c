"""What a model's code computes from the sizes of its images, found by running it on images of two sizes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn

# Pairs of images, (N, H, W). Their numbers differ, too, so that nothing that depends on it is taken for a constant.
_TRIED = (((2, 64, 64), (3, 96, 128)), ((2, 224, 224), (3, 256, 288)), ((2, 32, 32), (3, 48, 64)))
_VIEWS = ("view", "reshape", torch.reshape)
Seen = dict[torch.fx.Node, Any]


def is_size(node: torch.fx.Node, sizes: set[torch.fx.Node]) -> bool:
    """Whether a node tells a tensor's shape, or computes with numbers from one, which `sizes` holds: it is no layer."""
    taken = node.all_input_nodes
    return node.target == "size" or node.args[1:] == ("shape",) or (bool(taken) and sizes.issuperset(taken))


def fold_sizes(model: nn.Module, graph: torch.fx.Graph, channels: int) -> None:
    """Write the numbers that are the same for images of all sizes into the calls that take them.

    A resize to another tensor's size becomes one by a factor, where that is always the same. What depends on the size
    in another way stays as it is, and is refused when it is read.

    Args:
        model: the model.
        graph: its traced graph, which is changed.
        channels: of its images.
    """
    sizes: set[torch.fx.Node] = set()
    takers: list[torch.fx.Node] = []
    for node in graph.nodes:
        if is_size(node, sizes):
            sizes.add(node)
        elif sizes.intersection(node.all_input_nodes) and node.op in ("call_function", "call_method"):
            takers.append(node)
    runs = _runs(model, graph, channels) if takers else []
    if not runs:
        return
    for node in takers:
        shapes: list[Any] = [(seen.get(node.args[0]), seen.get(node)) for seen in runs]  # type: ignore[arg-type]
        if not all(isinstance(shape, torch.Size) for both in shapes for shape in both):
            continue
        if node.target in (F.interpolate, F.upsample):
            _fold_resize(node, shapes)
        elif node.target in _VIEWS and all(_flattens(*both) for both in shapes):
            node.target, node.args, node.kwargs = "flatten", (node.args[0], 1), {}
            node.op = "call_method"
        elif node.target not in _VIEWS:
            _fold_numbers(node, sizes, runs)


def _runs(model: nn.Module, graph: torch.fx.Graph, channels: int) -> list[Seen]:
    """The shapes of all tensors, and the numbers from them, for images of two sizes that the model takes."""
    for pair in _TRIED:
        try:
            return [_run(model, graph, torch.zeros(n, channels, *size)) for n, *size in pair]
        except Exception:  # The model's own code may fail in any way on images of a size.
            continue
    return []


def _run(model: nn.Module, graph: torch.fx.Graph, image: Tensor) -> Seen:
    seen: Seen = {}

    class Watching(torch.fx.Interpreter):
        def run_node(self, node: torch.fx.Node) -> Any:
            result = super().run_node(node)
            seen[node] = result.shape if isinstance(result, Tensor) else result
            return result

    with torch.no_grad():
        Watching(torch.fx.GraphModule(model, graph)).run(image)
    return seen


def _fold_resize(node: torch.fx.Node, shapes: Sequence[tuple[Any, Any]]) -> None:
    factors = {tuple(new / old for old, new in zip(x[2:], y[2:], strict=True)) for x, y in shapes}
    if len(factors) != 1 or any(number != int(number) for number in next(iter(factors))):
        return
    names = ("input", "size", "scale_factor", "mode", "align_corners")
    given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    given |= {"size": None, "scale_factor": factors.pop()}
    node.args = (given.pop("input"),)
    node.kwargs = {name: value for name, value in given.items() if value is not None}


def _flattens(x: torch.Size, y: torch.Size) -> bool:
    return len(x) == 4 and tuple(y) == (x[0], math.prod(x[1:]))


def _fold_numbers(node: torch.fx.Node, sizes: set[torch.fx.Node], runs: Sequence[Seen]) -> None:
    def folded(each: torch.fx.Node) -> Any:
        values = [seen[each] for seen in runs]
        number = each in sizes and isinstance(values[0], int) and len(set(values)) == 1
        return values[0] if number else each

    node.args = torch.fx.map_arg(node.args, folded)
    node.kwargs = torch.fx.map_arg(node.kwargs, folded)


def image_channels(model: nn.Module) -> Iterator[int]:
    """The channels that the convolutions of a model take, in order."""
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            yield module.in_channels
