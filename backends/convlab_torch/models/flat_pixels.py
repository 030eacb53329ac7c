"""Images whose rows and columns were merged into one axis, (N, C, H * W), as images again, where they become such.

So are the softmax over all pixels and the context that it weighs (GCNet, arXiv:1904.11492), the log of sums of pixels
(CBAM, arXiv:1807.06521) and statistics of flattened pixels read.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.fx
import torch.nn.functional as F
from torch import nn

from .constants import operation
from .rewriting import VIEWS, Call, arguments_of, caller

_FLATTENS = (*VIEWS, torch.flatten, "flatten")
_SOFTMAX = (F.softmax, torch.softmax, "softmax")
_UNARY = ("exp", "log", "sqrt", "abs", "sigmoid", "tanh", "relu", "neg", "reciprocal")
_REDUCED = {"mean": torch.mean, "sum": torch.sum, "amax": torch.amax}
_PRODUCTS = (torch.matmul, torch.bmm, "matmul", "bmm", operator.matmul)
_WITH_PLACES = (torch.max, "max")
Seen = Mapping[torch.fx.Node, Any]


class _Flat(NamedTuple):
    """The image whose numbers a node has, in their order.

    Attributes:
        image: its node.
        shape: its channels, rows and columns.
        column: whether its pixels stand in the last axis but one, and its one channel in the last.
    """

    image: torch.fx.Node
    shape: tuple[int, ...]
    column: bool = False


def has_flat_pixels(graph: torch.fx.Graph) -> bool:
    """Whether a graph may have merged pixels with more done to them than that they are taken as tokens."""
    swaps = ("transpose", torch.transpose, "permute", torch.permute)
    takers = (user for node in graph.nodes if node.target in _FLATTENS for user in node.users)
    return any(user.op != "output" and user.target not in swaps for user in takers)


def merge_back(model: nn.Module, graph: torch.fx.Graph, seen: Seen) -> None:
    """Put calls on images in the place of those on merged pixels that lead to images, or to a number for each channel.

    Args:
        model: the model.
        graph: its traced graph, which is changed.
        seen: the shapes of its tensors for images of one size.
    """
    flat: dict[torch.fx.Node, _Flat] = {}
    before = {*graph.nodes}
    replaced: set[torch.fx.Node] = set()
    for node in [*graph.nodes]:
        if not isinstance(seen.get(node), torch.Size) or node.op not in ("call_function", "call_method", "call_module"):
            continue
        with graph.inserting_before(node):
            image = _Reading(model, seen, flat, caller(graph, node)).of(node)
        if isinstance(image, _Flat):
            flat[node] = image
        elif image is not None:
            node.replace_all_uses_with(image)
            replaced.add(node)
    for node in reversed([*graph.nodes]):
        places = any(each.target in _WITH_PLACES for each in (node, *node.all_input_nodes))
        needless = node in flat or node in replaced or node not in before or places or node.target in ("size", getattr)
        if not node.users and needless and node.op != "output":
            graph.erase_node(node)


class _Reading:
    def __init__(self, model: nn.Module, seen: Seen, flat: Mapping[torch.fx.Node, _Flat], call: Call) -> None:
        self.model, self.seen, self.flat, self.call = model, seen, flat, call

    def of(self, node: torch.fx.Node) -> _Flat | torch.fx.Node | None:
        """What a node is of images: merged pixels, or what they lead to; None for what stays as it is."""
        source: Any = node.args[0] if node.args else None
        after = tuple(self.seen[node])
        if not isinstance(source, torch.fx.Node):
            return None
        if node.target is operator.getitem and node.args[1] == 0 and source.target in _WITH_PLACES:
            return self._reduced(source, torch.amax) if source.args[0] in self.flat else None
        before = self.seen.get(source)
        if source not in self.flat:
            merges = node.target in _FLATTENS and isinstance(before, torch.Size) and len(before) == 4
            pixels = before[2] * before[3] if merges else 0  # type: ignore[index]
            whole = pixels > 1 and after == (*before[:2], pixels)  # type: ignore[index]
            return _Flat(source, tuple(before[1:])) if whole else None  # type: ignore[index]
        if (name := operation(node.target)) and len(node.args) == 2:
            return self._arithmetic(node, name)
        if node.target in _PRODUCTS:
            return self._weighed(node)
        if self._is_softmax(node):
            return self._softmax(node)
        return None if node.op == "call_module" else self._view(node, after) or self._function(node)

    def _axis(self, node: torch.fx.Node) -> int | None:
        """The one axis that a call names."""
        given: Any = arguments_of(node, "input", "dim").get("dim")
        if node.op == "call_module":
            given = getattr(self.model.get_submodule(str(node.target)), "dim", None)
        given = given[0] if isinstance(given, (tuple, list)) and len(given) == 1 else given
        return given % len(self.seen[node.args[0]]) if isinstance(given, int) else None  # type: ignore[index]

    def _is_softmax(self, node: torch.fx.Node) -> bool:
        if node.op == "call_module":
            return type(self.model.get_submodule(str(node.target))) is nn.Softmax
        return node.target in _SOFTMAX and node.kwargs.get("dtype") is None

    def _softmax(self, node: torch.fx.Node) -> _Flat | None:
        image, shape, column = self.flat[node.args[0]]  # type: ignore[index]
        if column or self._axis(node) != len(self.seen[node]) - 1:
            return None
        call = self.call
        powers = call(torch.exp, call(operator.sub, image, call(torch.amax, image, (2, 3), True)))
        return _Flat(call(operator.truediv, powers, call(torch.sum, powers, (2, 3), True)), shape)

    def _arithmetic(self, node: torch.fx.Node, name: str) -> _Flat | None:
        function = {"add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv}[name]
        taken: list[Any] = [self.flat.get(each, each) for each in node.args]  # type: ignore[arg-type]
        images = [each for each in taken if isinstance(each, _Flat)]
        others = [each for each in taken if not isinstance(each, (_Flat, int, float))]
        if others or any(each.column for each in images) or node.kwargs:
            return None
        shape = tuple(map(max, zip(*(each.shape for each in images), strict=True)))
        return _Flat(self.call(function, *(each.image if isinstance(each, _Flat) else each for each in taken)), shape)

    def _weighed(self, node: torch.fx.Node) -> _Flat | None:
        """The sums of the pixels, each times the number that a column has for it."""
        pixels, weights = (self.flat.get(each) for each in node.args[:2])  # type: ignore[arg-type]
        if pixels is None or weights is None or pixels.column or not weights.column:
            return None
        product = self.call(operator.mul, pixels.image, weights.image)
        return _Flat(self.call(torch.sum, product, (2, 3), True), (pixels.shape[0], 1, 1))

    def _view(self, node: torch.fx.Node, after: tuple[int, ...]) -> _Flat | torch.fx.Node | None:
        """Merged pixels, or sums of them, with other axes."""
        flat: _Flat = self.flat[node.args[0]]  # type: ignore[index]
        channels, *size = flat.shape
        others, pixels = [*after[1:]], size[0] * size[1]
        if node.target in _FLATTENS and pixels == 1 and others == [channels]:
            return self.call(torch.flatten, flat.image, 1)
        if node.target not in (*VIEWS, torch.unsqueeze, "unsqueeze") or flat.column:
            return None
        if others == [channels, *size] and node.target in VIEWS:
            return flat.image
        if channels == 1 and others in ([pixels, 1], [1, pixels, 1]):
            return flat._replace(column=True)
        return flat if others == [1, channels, pixels] else None

    def _function(self, node: torch.fx.Node) -> _Flat | torch.fx.Node | None:
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
        image, shape, column = self.flat[node.args[0]]  # type: ignore[index]
        if name in _UNARY and len(node.args) == 1 and not node.kwargs:
            return _Flat(self.call(getattr(torch, name), image), shape, column)
        return self._reduced(node, _REDUCED[name]) if name in _REDUCED else None

    def _reduced(self, node: torch.fx.Node, function: Any) -> _Flat | torch.fx.Node | None:
        image, shape, column = self.flat[node.args[0]]  # type: ignore[index]
        if column or self._axis(node) != 2 or len(self.seen[node.args[0]]) != 3:  # type: ignore[index]
            return None
        keepdim = bool(arguments_of(node, "input", "dim", "keepdim").get("keepdim"))
        reduced = self.call(function, image, (2, 3), keepdim)
        return _Flat(reduced, (shape[0], 1, 1)) if keepdim else reduced
