"""Convolutions along the channels of rows of numbers, as those of images of one row: ECA, arXiv:1910.03151.

A row (N, C) becomes an image (N, 1, 1, C) of one channel, whose columns are the row's numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.fx
import torch.nn.functional as F
from torch import nn

from convlab.models.layers.folded import convolution
from convlab.models.layers.layer import Layer
from convlab.models.layers.spatial import around

from ..ops import ops
from .norms import array_of, dtype_of
from .patterns import permutation
from .rewriting import VIEWS, Call, caller

# What gives a row other axes, of one number, and keeps the order of its numbers.
_RELABELS: tuple[Any, ...] = (
    *(*VIEWS, "contiguous", "squeeze", torch.squeeze, "unsqueeze", torch.unsqueeze),
    *("transpose", torch.transpose, "flatten", torch.flatten),
)
_ELEMENTWISE = ("sigmoid", torch.sigmoid, F.sigmoid, F.hardsigmoid, "relu", torch.relu, F.relu, F.relu6, F.silu)
_MODULES = (nn.Sigmoid, nn.Hardsigmoid, nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.Tanh, nn.Hardswish, nn.Identity)


class RowConvolution(nn.Conv1d):
    """`nn.Conv1d` of one channel along the columns of images (N, 1, H, W), of each row by itself."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The image, of as many rows."""
        n, _, rows, columns = x.shape
        return super().forward(x.reshape(n * rows, 1, columns)).reshape(n, 1, rows, -1)

    @classmethod
    def sharing(cls, module: Any) -> RowConvolution:
        """The one that computes what another module does, with its parameters."""
        options = module.stride, module.padding, module.dilation, module.groups, False, module.padding_mode
        other = cls(1, 1, module.kernel_size, *options, device="meta")
        other.weight, other.bias = module.weight, module.bias
        return other.train(module.training)


def read_row_convolution(m: RowConvolution) -> Layer:
    """The convolution of images, whose kernel has one row."""
    padding: Any = m.padding
    pads = padding if isinstance(padding, str) else around((0, *padding))
    kernel = ops.to_numpy(m.weight)[:, :, None]
    geometry = {"stride": (1, *m.stride), "dilation": (1, *m.dilation)}
    options: dict[str, Any] = {"padding": pads, "padding_mode": m.padding_mode, **geometry}
    return convolution(kernel, array_of(m.bias), dtype_of(m.weight), **options)


def convolves_rows(module: nn.Module) -> bool:
    """Whether a module may be a convolution along the channels of rows."""
    return type(module) is nn.Conv1d and module.in_channels == module.out_channels == 1


def as_rows(model: nn.Module, graph: torch.fx.Graph, seen: Mapping[torch.fx.Node, Any]) -> None:
    """Put calls on rows (N, C) and on images of one row in the place of those on sequences (N, 1, C) or (N, C, 1).

    Args:
        model: the model.
        graph: its traced graph, which is changed.
        seen: the shapes of its tensors for images of one size.
    """
    rows: dict[torch.fx.Node, torch.fx.Node] = {}
    convolved = _fed(model, graph, seen)
    for node in [*graph.nodes]:
        source: Any = node.args[0] if node.args else None
        if not isinstance(source, torch.fx.Node) or not _is_row(seen.get(node)):
            continue
        with graph.inserting_before(node):
            call = caller(graph, node)
            if source in rows:
                row = _of_row(model, node, rows[source], seen, call)
            elif node in convolved and node.target in _RELABELS and _is_row(seen.get(source)):
                row = call(torch.flatten, source, 1) if len(seen[source]) > 2 else source
            else:
                continue
            if row is None:
                continue
            rows[node] = row
            if len(seen[node]) == 4 and seen[node][2:] == (1, 1):
                node.replace_all_uses_with(call(torch.unflatten, row, 1, (-1, 1, 1)))
            elif len(seen[node]) == 2:
                node.replace_all_uses_with(row)
    for node in reversed([*graph.nodes]):
        if node in rows and not node.users:
            graph.erase_node(node)


def _is_row(shape: Any) -> bool:
    """Whether a shape is (N, C) with perhaps other axes of one number."""
    return isinstance(shape, torch.Size) and len(shape) > 1 and sum(n > 1 for n in shape[1:]) == 1


def _fed(model: nn.Module, graph: torch.fx.Graph, seen: Mapping[torch.fx.Node, Any]) -> set[torch.fx.Node]:
    """The changes of a row's axes that lead to a convolution along its numbers."""
    fed: set[torch.fx.Node] = set()
    for node in graph.nodes:
        if node.op == "call_module" and convolves_rows(model.get_submodule(str(node.target))):
            before: Any = node.args[0]
            while isinstance(before, torch.fx.Node) and before.target in _RELABELS and _is_row(seen.get(before)):
                fed.add(before)
                before = before.args[0]
    return fed


def _of_row(
    model: nn.Module, node: torch.fx.Node, row: torch.fx.Node, seen: Mapping[torch.fx.Node, Any], call: Call
) -> torch.fx.Node | None:
    """The row that a call on one with other axes gives; None for a call that isn't known."""
    shape = seen[node]
    if node.op == "call_module":
        module = model.get_submodule(str(node.target))
        before: torch.Size = seen[node.args[0]]  # type: ignore[index]
        channels = max(before[1:])
        if convolves_rows(module) and tuple(shape) == tuple(before) == (before[0], 1, channels):
            image = call(torch.unflatten, row, 1, (1, 1, channels))
            return call(torch.flatten, _module(node, image), 1)
        return _module(node, row) if type(module) in _MODULES else None
    same = max(shape[1:]) == max(seen[node.args[0]][1:])  # type: ignore[index]
    if (node.target in _RELABELS or permutation(node) is not None) and same:
        return row
    if node.target in _ELEMENTWISE:
        function = getattr(torch, node.target) if isinstance(node.target, str) else node.target
        return call(function, row, *node.args[1:], **node.kwargs)
    return None


def _module(node: torch.fx.Node, image: torch.fx.Node) -> torch.fx.Node:
    """The call of a node's module on another tensor."""
    new = node.graph.call_module(str(node.target), (image,))
    new.meta.update(node.meta)
    return new
