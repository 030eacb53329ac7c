"""Attention of pixels that code computes from images of queries, keys and values, known by what it computes.

So the blocks of non-local networks (arXiv:1711.07971), self-attention GANs (arXiv:1805.08318) and diffusion models
(arXiv:2112.10752) are read, whatever views, permutations and products they are spelled with.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn

from convlab.models.layers.dot_product import DotProductAttention

from .attention import attend
from .rewriting import Call, caller

_SOFTMAX = (F.softmax, torch.softmax, "softmax", F.scaled_dot_product_attention)
# What attention may consist of, beside numbers from sizes.
_NAMES = {
    *("view", "reshape", "flatten", "unflatten", "permute", "transpose", "swapaxes", "movedim", "contiguous"),
    *("unsqueeze", "squeeze", "chunk", "split", "getitem", "unbind", "matmul", "bmm", "einsum", "softmax"),
    *("scaled_dot_product_attention", "mul", "div", "truediv"),
}
_MODULES = (nn.Softmax, nn.Dropout, nn.Identity)
# The rows and columns that it is tried on, in the place of those of one image and of another.
_SIZES = (((3, 4), (2, 3), (1, 5)), ((2, 5), (4, 1), (3, 3)))
_TOLERANCE = 1e-9
Seen = Mapping[torch.fx.Node, Any]


class _Slot(NamedTuple):
    """Where queries, keys or values come from.

    Attributes:
        image: the place of the image among those that the attention takes.
        part: which of so many equal `parts` of its channels; those of each head where they stand `by_head`.
    """

    image: int
    part: int = 0
    parts: int = 1
    by_head: bool = False

    def slices(self, channels: int, heads: int) -> list[slice]:
        """The channels that it is, one slice after another."""
        if not self.by_head:
            size = channels // self.parts
            return [slice(self.part * size, (self.part + 1) * size)]
        size = channels // (self.parts * heads)
        starts = ((head * self.parts + self.part) * size for head in range(heads))
        return [slice(start, start + size) for start in starts]


class _Words(NamedTuple):
    """How code has attention."""

    slots: tuple[_Slot, ...]
    heads: int
    scale: float


def attend_pixels(model: nn.Module, graph: torch.fx.Graph, shapes: Callable[[], Seen]) -> None:
    """Put one call in the place of those that are attention of pixels together.

    Args:
        model: the model.
        graph: its traced graph, which is changed.
        shapes: gives the shapes of its tensors for images of one size.
    """
    starts = [node for node in graph.nodes if _is_softmax(model, node)]
    seen = shapes() if starts else {}
    for start in starts:
        end = _end(start, seen)
        region = None if end is None else _Region(model, end, seen)
        words = None if region is None or not region.images else _words_of(region)
        if end is None or region is None or words is None:
            continue
        with graph.inserting_before(end):
            call = caller(graph, end)
            taken = [_taken(slot, region, words.heads, call) for slot in words.slots]
            end.replace_all_uses_with(call(attend, *taken, heads=words.heads, scale=words.scale))
        for node in reversed([*graph.nodes]):
            if node in region.nodes and not node.users:
                graph.erase_node(node)


def _is_softmax(model: nn.Module, node: torch.fx.Node) -> bool:
    if node.op == "call_module":
        return type(model.get_submodule(str(node.target))) is nn.Softmax
    return node.target in _SOFTMAX


def _end(start: torch.fx.Node, seen: Seen) -> torch.fx.Node | None:
    """The first image that is made of a softmax, by a view of its means; None if there is none."""
    reached = {start}
    for node in start.graph.nodes:
        if not reached.intersection(node.all_input_nodes) or _name(node) not in _NAMES:
            continue
        reached.add(node)
        shape = seen.get(node)
        if _name(node) in ("view", "reshape", "unflatten") and isinstance(shape, torch.Size) and len(shape) == 4:
            end: torch.fx.Node = node
            return end
    return None


def _name(node: torch.fx.Node) -> str:
    return node.target if isinstance(node.target, str) else str(getattr(node.target, "__name__", node.target))


class _Region:
    """The calls between images and an image that is computed from them.

    Attributes:
        nodes: the calls.
        images: the nodes of the images whose numbers are taken, in order.
        measured: those of which only the shape is taken.
    """

    def __init__(self, model: nn.Module, end: torch.fx.Node, seen: Seen) -> None:
        self.model, self.end, self.seen = model, end, seen
        self.nodes: set[torch.fx.Node] = set()
        self.images: list[torch.fx.Node] = []
        self.measured: set[torch.fx.Node] = set()
        stack = [end]
        while stack:
            node = stack.pop()
            if node in self.nodes:
                continue
            if self._is_inside(node):
                self.nodes.add(node)
                stack += node.all_input_nodes
            elif _name(node) in ("size", "getattr") and node.args[0] in seen:
                self.nodes.add(node)
                self.measured.add(node.args[0])  # type: ignore[arg-type]
            elif node not in self.images:
                self.images.append(node)
        self.images.sort(key=[*end.graph.nodes].index)
        self.sizes = [*dict.fromkeys(tuple(seen[node][2:]) for node in self.images if self._is_image(node))]
        if not all(map(self._is_image, [*self.images, *self.measured, end])) or len(self.sizes) > len(_SIZES[0]):
            self.images = []

    def _is_image(self, node: torch.fx.Node) -> bool:
        return isinstance(self.seen.get(node), torch.Size) and len(self.seen[node]) == 4

    def _is_inside(self, node: torch.fx.Node) -> bool:
        if node.op == "call_module":
            return type(self.model.get_submodule(str(node.target))) in _MODULES
        if node.op not in ("call_function", "call_method"):
            return False
        of_numbers = not isinstance(self.seen.get(node), (torch.Size, tuple, list)) and _name(node) != "size"
        return _name(node) in _NAMES or (of_numbers and _name(node) != "getattr")

    def channels(self, node: torch.fx.Node) -> int:
        """Of an image."""
        return int(self.seen[node][1])

    def computed(self, images: Sequence[Tensor], sizes: Mapping[tuple[int, ...], tuple[int, ...]]) -> Tensor | None:
        """The image that is computed from others with these numbers; None where that fails.

        `sizes` has the rows and columns that stand for those of the images that were seen.
        """
        values: dict[torch.fx.Node, Any] = dict(zip(self.images, images, strict=True))
        try:
            for node in self.measured - values.keys():
                size = sizes[tuple(self.seen[node][2:])]
                values[node] = torch.empty((len(images[0]), self.channels(node), *size), device="meta")
            for node in self.end.graph.nodes:
                if node in self.nodes:
                    args, kwargs = torch.fx.map_arg((node.args, node.kwargs), values.__getitem__)
                    values[node] = self._called(node, args, kwargs)
        except Exception:  # The model's own code may fail in any way.
            return None
        result: Tensor = values[self.end]
        return result

    def _called(self, node: torch.fx.Node, args: Any, kwargs: Any) -> Any:
        if node.op == "call_module":
            return self.model.get_submodule(str(node.target)).eval()(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        return node.target(*args, **kwargs)  # type: ignore[operator]


def _words_of(region: _Region) -> _Words | None:
    """How a region has attention; None if it computes something else."""
    numbers = torch.Generator().manual_seed(0)
    left = [*_candidates(region)]
    for tried in _SIZES:
        sizes = dict(zip(region.sizes, tried, strict=False))
        shapes = [(2, region.channels(node), *sizes[tuple(region.seen[node][2:])]) for node in region.images]
        images = [torch.randn(shape, generator=numbers, dtype=torch.float64) for shape in shapes]
        y = region.computed(images, sizes)
        if y is None:
            return None
        left = [words for words in left if _is_same(words, images, y)]
    return left[0] if left else None


def _candidates(region: _Region) -> Iterator[_Words]:
    """The ways in which a region may have attention, by the channels of its images."""
    counts = [region.channels(node) for node in region.images]
    outputs = region.channels(region.end)
    factors = {float(each) for node in region.nodes for each in node.args if isinstance(each, (int, float))} - {0.0}
    for slots in _slots(len(counts)):
        queries, keys, values = (counts[slot.image] // slot.parts for slot in slots)
        if queries != keys or values != outputs:
            continue
        for heads in (each for each in range(1, queries + 1) if queries % each == 0 and values % each == 0):
            size = queries // heads
            roots = (1.0, size**-0.5, queries**-0.5, *(each for n in factors for each in (n, 1 / n, n * n)))
            yield from (_Words(slots, heads, scale) for scale in dict.fromkeys(roots))


def _slots(images: int) -> Iterator[tuple[_Slot, ...]]:
    if images == 1:
        for order, by_head in itertools.product(itertools.permutations(range(3)), (False, True)):
            yield tuple(_Slot(0, part, 3, by_head) for part in order)
    if images == 2:
        for first, second in ((0, 1), (1, 0)):
            for a, b, by_head in ((0, 1, False), (1, 0, False), (0, 1, True), (1, 0, True)):
                yield _Slot(first), _Slot(second, a, 2, by_head), _Slot(second, b, 2, by_head)
                yield _Slot(first, a, 2, by_head), _Slot(first, b, 2, by_head), _Slot(second)
    if images <= 3:
        for places in itertools.product(range(images), repeat=3):
            if {*places} == {*range(images)}:
                yield tuple(map(_Slot, places))


def _is_same(words: _Words, images: Sequence[Tensor], y: Tensor) -> bool:
    taken = [_cut(slot, images[slot.image].numpy(), words.heads) for slot in words.slots]
    if taken[1].shape[2:] != taken[2].shape[2:]:
        return False
    result = DotProductAttention(words.heads, words.scale).reference(*taken)
    return result.shape == tuple(y.shape) and bool(np.allclose(result, y.numpy(), _TOLERANCE, _TOLERANCE))


def _cut(slot: _Slot, image: np.ndarray, heads: int) -> np.ndarray:
    return np.concatenate([image[:, each] for each in slot.slices(image.shape[1], heads)], axis=1)


def _taken(slot: _Slot, region: _Region, heads: int, call: Call) -> torch.fx.Node:
    """The node of what a slot says."""
    image = region.images[slot.image]
    if slot.parts == 1:
        return image
    if not slot.by_head or heads == 1:
        return call(operator.getitem, call(torch.chunk, image, slot.parts, 1), slot.part)
    parts = slot.slices(region.channels(image), heads)
    return call(torch.cat, [call(operator.getitem, image, (slice(None), part)) for part in parts], 1)
