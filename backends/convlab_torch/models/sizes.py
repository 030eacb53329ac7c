"""What a model's code computes from the sizes of its images, found by running it on images of two sizes."""

from __future__ import annotations

import math
import operator
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import product
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn

from convlab.models.layers.spatial import Size

from .. import private
from .functions import broadcast_like, resize_like
from .relative_sizes import cut_at_the_end, of_whole_images
from .rewriting import OPENS, VIEWS, arguments_of
from .tokens import merges_pixels

# Images have at least so many rows and columns, if the model doesn't take smaller ones.
_LEAST = (64, 224)
# Code that halves an image and later makes it as large as it was is the same for multiples of a power of 2.
_MULTIPLES = (1, 2, 4, 8, 16, 32)
_SQUEEZES = ("squeeze", torch.squeeze)
_RESIZES = (F.interpolate, F.upsample)
Seen = dict[torch.fx.Node, Any]


class Images(NamedTuple):
    """The images that a model is tried on.

    Attributes:
        channels: how many they have.
        rank: how many axes they have beside those of images and channels.
        size: their only rows and columns; None for any.
        inputs: the shapes (C, H, W) of what is given for the arguments of these names, where only these will do.
    """

    channels: int
    rank: int
    size: Size | None = None
    inputs: Mapping[str, tuple[int, ...]] = MappingProxyType({})

    def shapes(self, multiple: int) -> Iterator[list[tuple[int, ...]]]:
        """Shapes of two batches, and others for a model that doesn't take these.

        Sizes are odd and even multiples, if any will do, of which the second ones are twice as large: what a deep layer
        sees differs, too. So do the images' numbers: what depends on either is taken for no constant.
        """
        if self.size is not None:
            yield [(count, self.channels, *self.size) for count in (2, 3)]
            return
        for least in _LEAST:
            n = -(-least // multiple) | 1
            sizes = (2, n, n + 3, n + 1), (3, 2 * n + 4, 2 * n + 1, 2 * n + 6)
            yield [(count, self.channels, *(each * multiple for each in size[: self.rank])) for count, *size in sizes]


def is_size(node: torch.fx.Node, sizes: set[torch.fx.Node]) -> bool:
    """Whether a node tells a tensor's shape, or computes with numbers from one, which `sizes` holds: it is no layer."""
    taken = node.all_input_nodes
    return (
        node.target in ("size", "dim")
        or node.args[1:] in (("shape",), ("ndim",))
        or (bool(taken) and sizes.issuperset(taken))
    )


def fold_sizes(model: nn.Module, graph: torch.fx.Graph, images: Images) -> int:
    """Write the numbers that are the same for images of all sizes into the calls that take them.

    A resize to another tensor's size becomes one by a factor, where that is always the same, or else takes that tensor.
    What depends on the size in another way stays as it is, and is refused when it is read.

    Args:
        model: the model.
        graph: its traced graph, which is changed.
        images: those that it takes; of one size, of which `convlab_torch.models.sized_trace` has written the numbers
            into the graph, or of any.

    Returns:
        What the rows and columns of images must be multiples of, so that the numbers hold.
    """
    sizes: set[torch.fx.Node] = set()
    takers: list[torch.fx.Node] = []
    with_numbers = () if images.size is None else (*VIEWS, *_RESIZES, "expand", operator.getitem)
    for node in graph.nodes:
        if is_size(node, sizes):
            sizes.add(node)
        elif "output_size" in node.kwargs or (
            node.op in ("call_function", "call_method")
            and (
                sizes.intersection(node.all_input_nodes)
                or (node.target in _SQUEEZES and len(node.args) == 1)
                or node.target in with_numbers
            )
        ):
            takers.append(node)
    if not takers:
        return 1

    @cache
    def tried(multiple: int) -> tuple[list[_Change], list[Seen]]:
        runs = runs_of(model, graph, images, multiple)
        return [change for node in takers if (change := _change(model, node, sizes, runs)) is not None], runs

    def count(multiple: int) -> int:
        return len(tried(multiple)[0])

    least, last = 1, _MULTIPLES[-1]
    if images.size is None and count(1) < len(takers):
        if not tried(last)[1]:
            least = max(_MULTIPLES, key=count)
        elif count(last) > count(1):  # What holds for a size holds for its multiples.
            least = _MULTIPLES[bisect_left(_MULTIPLES, count(last), key=count)]
    best, known = tried(least)
    left = [node for node in takers if all(change.node is not node for change in best)]
    best += [change for node in left if (change := _to_size_of(node, sizes, known)) is not None]
    for node, op, target, args, kwargs in best:
        node.op, node.target, node.args, node.kwargs = op, target, args, kwargs
    return least


class _Change(NamedTuple):
    """A node, and what it is to call."""

    node: torch.fx.Node
    op: str
    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def _change(model: nn.Module, node: torch.fx.Node, sizes: set[torch.fx.Node], runs: Sequence[Seen]) -> _Change | None:
    """The call without sizes that computes what a node does for images of all sizes that were tried."""
    shapes: list[Any] = [(seen.get(node.args[0]), seen.get(node)) for seen in runs]  # type: ignore[arg-type]
    if not shapes or not all(isinstance(shape, torch.Size) for both in shapes for shape in both):
        return None
    if node.op == "call_module":
        return _transposed(model.get_submodule(str(node.target)), node, shapes)
    if node.target in _RESIZES:
        return _resize(node, shapes) or _repeat(node, shapes, sizes, runs)
    if node.target == "expand":
        return _repeat(node, shapes, sizes, runs)
    if node.target in OPENS and all(_opens(x, y) for x, y in shapes):
        # Whether these are the rows and columns that the tokens came from is seen when they are read.
        return _Change(node, node.op, node.target, node.args, node.kwargs)
    if node.target in (*VIEWS, *_SQUEEZES):
        if all(tuple(x) == tuple(y) for x, y in shapes):
            return _Change(node, "call_method", "contiguous", (node.args[0],), {})
        first = next((n for n in (1, 2) if all(_flattens(x, y, n) for x, y in shapes)), None)
        known = first is None or (first == 2 and merges_pixels(node, 0))
        return None if known else _Change(node, "call_method", "flatten", (node.args[0], first), {})
    if (whole := of_whole_images(node, runs)) is not None:
        return _Change(node, "call_function", *whole, {})
    if node.target is operator.getitem and (index := cut_at_the_end(node, runs)) is not None:
        return _Change(node, "call_function", operator.getitem, (node.args[0], index), {})
    return _numbers(node, sizes, runs)


def _transposed(module: nn.Module, node: torch.fx.Node, shapes: Sequence[tuple[Any, Any]]) -> _Change | None:
    """The function that a transposed convolution is whose `output_size` adds as much to images of all sizes."""
    if type(module) not in TRANSPOSED:
        return None
    conv: Any = module
    added: set[tuple[int, ...]] = set()
    for x, y in shapes:
        least = [(n - 1) * s + d * (k - 1) + 1 - 2 * p for n, s, d, k, p in zip(x[2:], *_window(conv), strict=True)]
        added.add(tuple(new - n for new, n in zip(y[2:], least, strict=True)))
    if len(added) != 1:
        return None
    with node.graph.inserting_before(node):
        weight = node.graph.get_attr(f"{node.target}.weight")
        bias = None if conv.bias is None else node.graph.get_attr(f"{node.target}.bias")
    function = getattr(F, f"conv_transpose{len(conv.stride)}d")
    others = conv.stride, conv.padding, added.pop(), conv.groups, conv.dilation
    return _Change(node, "call_function", function, (node.args[0], weight, bias, *others), {})


def _window(conv: Any) -> tuple[tuple[int, ...], ...]:
    return conv.stride, conv.dilation, conv.kernel_size, conv.padding


def runs_of(model: nn.Module, graph: torch.fx.Graph, images: Images, multiple: int) -> list[Seen]:
    """The shapes of all tensors, and the numbers from them, for two batches that the model takes; none for none."""
    several = sum(node.op == "placeholder" and not node.args for node in graph.nodes) > 1
    # Images of which each may have a size of its own tell more than those of one size.
    for more, shapes in product((multiple, 0) if several else (0,), images.shapes(multiple)):
        try:
            return [_run(model, graph, images, shape, more) for shape in shapes]
        except Exception:  # The model's own code may fail in any way on images of a size.
            continue
    return []


def only_images(model: nn.Module, graph: torch.fx.Graph, images: Images) -> Images:
    """The images, of one size where the model's code asserts that, and fails on others."""
    asserted = [node.args[0] for node in graph.nodes if getattr(node.target, "__name__", "") == "_assert"]
    equal: Any = [each for each in asserted if isinstance(each, torch.fx.Node) and each.target is operator.eq]
    size = tuple(each.args[1] for each in equal if isinstance(each.args[1], int))[: images.rank]
    if len(size) < images.rank or any(_takes(model, shape) for shape, *_ in images.shapes(_MULTIPLES[-1])):
        return images
    return images._replace(size=size) if _takes(model, (1, images.channels, *size)) else images


def _takes(model: nn.Module, shape: tuple[int, ...]) -> bool:
    try:
        with torch.no_grad():
            model(torch.zeros(shape, dtype=float_dtype(model)))
    except Exception:  # The model's own code may fail in any way on images of a size.
        return False
    return True


def shapes_in(model: nn.Module, graph: torch.fx.Graph, images: Images, multiple: int) -> Seen:
    """The shapes of all tensors in a graph, and the numbers, for images of one size; none where it takes none tried."""
    runs = (runs_of(model, graph, images, each) for each in _MULTIPLES if each % multiple == 0)
    return next((seen[0] for seen in runs if seen), {})


def _run(model: nn.Module, graph: torch.fx.Graph, images: Images, shape: tuple[int, ...], more: int = 0) -> Seen:
    """The shapes for images of a shape; those of each further input have so many more rows and columns."""
    watched = _Watched(torch.fx.GraphModule(model, graph))
    given = [node for node in graph.nodes if node.op == "placeholder" and not node.args]
    shapes = [
        (shape[0], *images.inputs[str(node.target)])
        if str(node.target) in images.inputs
        else _shape_for(model, node, shape, place * more)
        for place, node in enumerate(given)
    ]
    with torch.no_grad(), private.shapes_alone():
        watched(*(torch.zeros(each, dtype=float_dtype(model)) for each in shapes or [shape]))
    return watched.seen


def _shape_for(model: nn.Module, node: torch.fx.Node, shape: tuple[int, ...], more: int) -> tuple[int, ...]:
    """The shape of an input: that of rows or of images with as many channels as the module takes that takes it."""
    modules = [model.get_submodule(str(user.target)) for user in node.users if user.op == "call_module"]
    rows = next((each.in_features for each in modules if isinstance(each, nn.Linear)), 0)
    if rows:
        return shape[0], int(rows)
    convolutions = (each for each in modules if isinstance(each, (*CONVOLUTIONS, *TRANSPOSED)))
    channels = next((each.in_channels for each in convolutions), shape[1])
    return shape[0], channels, *(size + more for size in shape[2:])


class _Watched(nn.Module):
    """A traced module that notes the shapes of tensors, and numbers, by their nodes."""

    def __init__(self, module: torch.fx.GraphModule) -> None:
        super().__init__()
        self.module = module
        self.seen: Seen = {}

    def forward(self, *images: Tensor) -> Any:
        seen = self.seen = {}

        class Watching(torch.fx.Interpreter):
            def run_node(self, node: torch.fx.Node) -> Any:
                result = super().run_node(node)
                seen[node] = result.shape if isinstance(result, Tensor) else result
                return result

        return Watching(self.module).run(*images)


def _repeat(
    node: torch.fx.Node, shapes: Sequence[tuple[Any, Any]], sizes: set[torch.fx.Node], runs: Sequence[Seen]
) -> _Change | None:
    """The call that repeats one pixel for each pixel of the tensor whose size is taken, if a node does that."""
    if any(len(x) < 3 or max(x[2:]) > 1 or x[:2] != y[:2] for x, y in shapes):
        return None
    for like in _measured(node, sizes):
        if all(isinstance(seen[like], torch.Size) and seen[like][2:] == seen[node][2:] for seen in runs):
            return _Change(node, "call_function", broadcast_like, (node.args[0], like), {})
    return None


def _measured(node: torch.fx.Node, sizes: set[torch.fx.Node]) -> Iterator[torch.fx.Node]:
    """The tensors from whose shapes the numbers come that a node takes."""
    for each in node.all_input_nodes:
        if each in sizes:
            yield from (source for source in each.all_input_nodes if source not in sizes)
            yield from _measured(each, sizes)


def _resize(node: torch.fx.Node, shapes: Sequence[tuple[Any, Any]]) -> _Change | None:
    factors = {tuple(new / old for old, new in zip(x[2:], y[2:], strict=True)) for x, y in shapes}
    given = arguments_of(node, "input", "size", "scale_factor", "mode", "align_corners")
    rank = len(shapes[0][0]) - 2
    if len(factors) != 1:
        return None
    if all(number == int(number) for number in next(iter(factors))):
        given |= {"size": None, "scale_factor": factors.pop()}
    elif len({x[2:] for x, _ in shapes}) == 1 and factors == {_factors(given.get("scale_factor"), rank)}:
        # Of images of one size, a fraction that gives whole rows and columns is a size.
        given |= {"size": tuple(shapes[0][1][2:]), "scale_factor": None}
    else:
        return None
    image = given.pop("input")
    return _Change(node, node.op, node.target, (image,), {k: v for k, v in given.items() if v is not None})


def _factors(given: Any, rank: int) -> tuple[Any, ...]:
    return tuple(given) if isinstance(given, (tuple, list)) else (given,) * rank


def _to_size_of(node: torch.fx.Node, sizes: set[torch.fx.Node], runs: Sequence[Seen]) -> _Change | None:
    """The resize to the size of the tensor from whose shape a node takes it."""
    if node.target not in _RESIZES or not runs:
        return None
    given = arguments_of(node, "input", "size", "scale_factor", "mode", "align_corners")
    image, scale = given.pop("input"), given.pop("scale_factor", None)
    del given["size"]
    shapes = [seen[node] for seen in runs]
    for like in _measured(node, sizes):
        if scale is None and all(_is_like(seen[like], shape) for seen, shape in zip(runs, shapes, strict=True)):
            return _Change(node, "call_function", resize_like, (image, like), given)
    return None


def _is_like(shape: Any, other: Any) -> bool:
    return isinstance(shape, torch.Size) and len(shape) == len(other) == 4 and shape[2:] == other[2:]


def _flattens(x: torch.Size, y: torch.Size, first: int) -> bool:
    """Whether the axes of an image from one on become one."""
    return len(x) > 2 and tuple(y) == (*x[:first], math.prod(x[first:]))


def _opens(x: torch.Size, y: torch.Size) -> bool:
    """Whether the last axis of tokens, (N, C, L), or that before it, becomes two: the rows and columns of images."""
    return len(x) == 3 and len(y) == 4 and (x[:2] == y[:2] or (x[0], x[2]) == (y[0], y[3]))


def _numbers(node: torch.fx.Node, sizes: set[torch.fx.Node], runs: Sequence[Seen]) -> _Change | None:
    def folded(each: torch.fx.Node) -> Any:
        values = [seen[each] for seen in runs]
        number = each in sizes and isinstance(values[0], (int, torch.Size)) and len(set(values)) == 1
        return values[0] if number else each

    args, kwargs = torch.fx.map_arg(node.args, folded), torch.fx.map_arg(node.kwargs, folded)
    left: list[torch.fx.Node] = []
    torch.fx.map_arg((args, kwargs), left.append)
    return None if sizes.intersection(left) else _Change(node, node.op, node.target, args, kwargs)


def image_channels(model: nn.Module, graph: torch.fx.Graph, rank: int) -> int:
    """How many channels a model's images have: as many as its first convolution takes, or as squares of pixels give."""
    taken = channels_of_first(model)
    before = [taken // square for square in (4, 16) if taken in (square, 3 * square)]
    images = (Images(channels, rank) for channels in (taken, *before))
    tried = (each.channels for each in images if runs_of(model, graph, each, _MULTIPLES[-1]))
    return next(tried, taken) if before else taken


def float_dtype(model: nn.Module) -> torch.dtype:
    """The dtype of a model's first array of floats; float32 where it has none."""
    dtypes = (each.dtype for each in (*model.parameters(), *model.buffers()) if each.is_floating_point())
    return next(dtypes, torch.float32)


def channels_of_first(model: nn.Module) -> int:
    """How many channels a model's first convolution takes; 3 where it has none."""
    convolutions = (each for each in model.modules() if isinstance(each, (*CONVOLUTIONS, *TRANSPOSED)))
    return next((each.in_channels for each in convolutions), 3)


CONVOLUTIONS = (nn.Conv2d, nn.Conv1d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_FUNCTIONS = {2: (F.conv2d, torch.conv2d), 1: (F.conv1d, torch.conv1d), 3: (F.conv3d, torch.conv3d)}


def image_rank(model: nn.Module, graph: torch.fx.Graph) -> int:
    """How many axes a model's images have, as its convolutions tell: 2 if any has two, or if there is none."""
    kinds = dict(zip(_FUNCTIONS, CONVOLUTIONS, strict=True))
    for rank, functions in _FUNCTIONS.items():
        called = any(node.target in functions for node in graph.nodes)
        if called or any(isinstance(module, kinds[rank]) for module in model.modules()):
            return rank
    return 2
