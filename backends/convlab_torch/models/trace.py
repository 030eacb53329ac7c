"""The graph of a PyTorch model whose code is its own, traced by `torch.fx`."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn

from convlab.errors import UnsupportedError
from convlab.models.layers.activations import Activation, Affine, Clip
from convlab.models.layers.joining import Add, Divide, Multiply, Subtract
from convlab.models.layers.layer import Dropout
from convlab.models.layers.outputs import results_of
from convlab.models.layers.reading import INPUT, Part, check_one_input, giving
from convlab.models.layers.shapes import gives_rows
from convlab.models.layers.spatial import to_first, to_last

from .attention import (
    ClassToken,
    OfTorchvision,
    PixelAttention,
    PositionEmbedding,
    WindowAttention,
    Written,
    of_pixels,
)
from .channel_convolutions import RowConvolution, as_rows, convolves_rows
from .constants import operation, with_arrays
from .functional import view_of
from .functions import (
    add,
    affine,
    divide,
    multiply,
    native_of,
    outputs,
    over_last_axis,
    read_function,
    subtract,
    unflatten_pixels,
    with_number,
)
from .merged_parts import has_parts, merge_parts
from .modules import ChannelAffine, LayerNorm2d, PixelLinear, RMSNorm2d
from .partitions import of_partitions
from .patterns import is_part_of_pattern, native_of_pattern, permutation
from .rewriting import to_channels_first
from .sizes import CONVOLUTIONS, TRANSPOSED, fold_sizes, image_channels, image_rank, is_size, is_size_of, shapes_in
from .spelled_out import spell_out
from .tokens import expands_batch, merges_pixels, row_of_tokens, swaps_tokens
from .tracer import defaults_of, graph_of

_NEGATIVES = (operator.neg, torch.neg, torch.negative, "neg", "negative")

# What computes the same whichever axis is that of the channels, or knows that it is the last.
_ELEMENTWISE = (Activation, Affine, Clip, Dropout, Add, Subtract, Multiply, Divide)
_ATTENTION = (PixelAttention, WindowAttention, OfTorchvision, Written, ClassToken, PositionEmbedding)
_OVER_LAST = (LayerNorm2d, RMSNorm2d, PixelLinear, ChannelAffine, *_ATTENTION)

# Arguments that aren't looked at: the tensors, given by name, and what only warns.
_UNUSED = ("input", "tensors", "_stacklevel")


def traced(
    model: nn.Module,
    is_leaf: Callable[[nn.Module], bool],
    of_torch: Callable[[nn.Module], bool],
    parts: Callable[[nn.Module, str], Sequence[Part]],
) -> tuple[list[Part], dict[str, list[str]], int]:
    """The parts of a model with their inputs, and by their callers' paths the operations that convlab doesn't know.

    The third is what the rows and columns of images must be multiples of.

    Args:
        model: any module.
        is_leaf: whether a module is read as a whole.
        of_torch: whether a module's class is PyTorch's own.
        parts: the parts that a module at a path is; none for one that does nothing.

    Raises:
        UnsupportedError: it can't be traced, or takes or gives more than one tensor.
    """
    graph = graph_of(model, is_leaf, of_torch)
    rank = image_rank(model, graph)
    channels = image_channels(model, graph, rank)
    multiple = fold_sizes(model, graph, channels, rank)
    spell_out(graph)
    if rank == 2 and has_parts(graph):
        merge_parts(graph, shapes_in(model, graph, channels, multiple))
    if rank == 2 and any(map(convolves_rows, model.modules())):
        as_rows(model, graph, shapes_in(model, graph, channels, multiple))
    return *_Reading(model, parts, rank).of(graph), multiple


class _Reading:
    """A traced graph on its way to parts.

    Attributes:
        rank: how many axes the images have beside those of images and channels.
        values: the name of each node's value; a node that does nothing has that of its input.
        arrays: the parameters and buffers that the code itself takes, by the nodes that fetch them.
        last: the nodes whose last axis is that of the channels, since the code permuted the axes.
        tokens: the nodes whose pixels are the tokens of a sequence, (N, C, L) or (N, L, C).
        sizes: the nodes that are numbers computed from shapes.
        pieces: the nodes that are only read together with those that take them.
    """

    def __init__(self, model: nn.Module, parts: Callable[[nn.Module, str], Sequence[Part]], rank: int) -> None:
        self.model, self.parts, self.rank = model, parts, rank
        self.values: dict[torch.fx.Node, str] = {}
        self.arrays: dict[torch.fx.Node, Tensor] = {}
        self.last: set[torch.fx.Node] = set()
        self.tokens: set[torch.fx.Node] = set()
        self.sizes: set[torch.fx.Node] = set()
        self.pieces: set[torch.fx.Node] = set()
        self.result: list[Part] = []
        self.unknown: dict[str, list[str]] = {}

    def of(self, graph: torch.fx.Graph) -> tuple[list[Part], dict[str, list[str]]]:
        """The parts, and the unknown operations."""
        check_one_input(
            [node.name for node in graph.nodes if node.op == "placeholder" and not node.args and node.users]
        )
        for node in graph.nodes:
            if node.op == "placeholder":
                self._input(node)
            elif node.op == "call_module":
                self._module(node)
            elif node.op == "output":
                self._output(node.args[0])
            elif node.op == "get_attr":
                self.arrays[node] = operator.attrgetter(str(node.target))(self.model)
            elif is_size(node, self.sizes):
                self.sizes.add(node)
            elif node.args and node.args[0] in self.arrays and expands_batch(node):
                self.arrays[node] = self.arrays[node.args[0]]
            elif (view := view_of(node, self.arrays)) is not None:
                self.arrays[node] = view
            elif self._of_tokens(node):
                continue
            elif is_part_of_pattern(node, self.rank):
                self.pieces.add(node)
            else:
                self._function(node)
        return self.result, self.unknown

    def _input(self, node: torch.fx.Node) -> None:
        if INPUT not in self.values.values():
            self.values[node] = INPUT
        elif node.args:  # an argument with a default, which the trace holds for its value
            self.sizes.add(node)

    def _output(self, result: Any) -> None:
        names, results = results_of(result)
        for each in results:
            for kind, what in ((self.tokens, "tokens, not images"), (self.last, "images NHWC")):
                if each in kind:
                    self._refuse(each, f"{_name(each.target)}: the model's result is {what}")
                    break
        if self.unknown:
            return
        for which, each in zip(names or range(len(results)), results, strict=True):
            if not isinstance(each, torch.fx.Node) or each not in self.values:
                number = "" if len(results) == 1 else f" {which!r}"
                raise UnsupportedError(f"its result{number} isn't a tensor that is computed from the image")
        values = [self.values[each] for each in results]
        self.result = giving(self.result, values, lambda layer: partial(outputs, names=layer.names), names)

    def _module(self, node: torch.fx.Node) -> None:
        path, source = str(node.target), node.args[0] if node.args else None
        module = self.model.get_submodule(path)
        if isinstance(module, nn.MultiheadAttention) and source in self.tokens:
            self._attention(node, module)
            return
        defaults = defaults_of(module)
        options = {name: value for name, value in node.kwargs.items() if defaults.get(name, node) is not value}
        if len(node.args) != 1 or options or not isinstance(source, torch.fx.Node):
            with_what = ", ".join(options) if options and len(node.args) == 1 else "more than one tensor"
            self._refuse(node, f"{path}, called with {with_what}")
            return
        if self.rank == 2 and convolves_rows(module):
            module = RowConvolution.sharing(module)
        if source in self.last:
            module = over_last_axis(module, self.rank) or of_partitions(self.model, path) or module
        self._append(node, self.parts(module, path), [source])

    def _attention(self, node: torch.fx.Node, module: nn.MultiheadAttention) -> None:
        """Add the attention of tokens to themselves."""
        own = of_pixels(module)
        options = {name: value for name, value in node.kwargs.items() if name != "need_weights"}
        only_result = all(
            user.target is operator.getitem and (user.args[1] == 0 or not user.users) for user in node.users
        )
        if own is None or len(set(node.args[:3])) != 1 or len(node.args) != 3 or options or not only_result:
            self._refuse(node, f"{node.target}, attention that isn't of (N, L, C) to itself alone")
            return
        source = node.args[0]
        assert isinstance(source, torch.fx.Node)
        self._append(node, self.parts(own, str(node.target)), [source])
        for user in node.users:
            self.values[user] = self.values[node]
            self.last.add(user)
            self.tokens.add(user)

    def _of_tokens(self, node: torch.fx.Node) -> bool:
        """Whether a node only changes the axes of tokens, or takes one, and has been read."""
        source = node.args[0] if node.args else None
        if not isinstance(source, torch.fx.Node) or source not in self.values or self.rank != 2:
            return False
        if node in self.values:  # what attention gives
            return True
        if source not in self.tokens:
            if source in self.last or not merges_pixels(node, self._channels(source)):
                return False
            self.tokens.add(node)
        elif swaps_tokens(node):
            self.tokens.add(node)
            if source not in self.last:
                self.last.add(node)
        elif (native := row_of_tokens(node, source in self.last)) is not None:
            layer, note = read_function(native)
            path = ".".join(filter(None, [_owner(node), note]))
            self.result.append(Part(path, native, layer, note, (self.values[source],), node.name))
            self.values[node] = node.name
            return True
        else:
            return False
        self.values[node] = self.values[source]
        return True

    def _channels(self, node: torch.fx.Node) -> int:
        """The channels of a node's images, where the last layer tells; 0 where it doesn't."""
        layer = next((part.layer for part in self.result if part.value == self.values[node]), None)
        return 0 if layer is None else layer.output_channels(0)

    def _append(
        self, node: torch.fx.Node, parts: Sequence[Part], sources: Sequence[torch.fx.Node], moved: bool = False
    ) -> None:
        """Add the parts that a node is; `moved` if its axes were rewritten as those of images NCHW."""
        if self.sizes.intersection(sources):
            self._refuse(node, f"{_name(node.target)}, which takes the size of an image")
        for source in self.pieces.intersection(sources):
            if not parts:
                self.pieces.add(node)
                return
            self._refuse(source, f"{_name(source.target)}: convlab doesn't know it before {_name(node.target)}")
        inputs = tuple(self.values.get(source, "") for source in sources)
        for kind, what in ((self.last, "images NHWC"), (self.tokens, "tokens")):
            if any(source in kind for source in sources):
                if not any(gives_rows(part.layer) for part in parts):
                    kind.add(node)
                if not (moved or all(map(_of_any_axis, parts))) or not kind.issuperset(sources):
                    self._refuse(node, f"{_name(node.target)}, which takes {what}")
        for index, part in enumerate(parts):
            value = f"{node.name}.{index}" if index else node.name
            self.result.append(Part(part.path, part.native, part.layer, part.note, inputs, value))
            inputs = (value,)
        self.values[node] = inputs[0] if parts or len(inputs) == 1 else node.name

    def _function(self, node: torch.fx.Node) -> None:
        if (order := permutation(node, self.rank)) is not None and node.args[0] in self.values:
            self._permute(node, order)
            return
        sources = [each for each in node.all_input_nodes if each in self.values]
        in_last = bool(sources) and self.last.issuperset(sources) and not self.tokens.intersection(sources)
        moved = in_last and to_channels_first(node, self.rank)
        try:
            native, sources, own = self._native(node)
        except UnsupportedError as error:
            self._refuse(node, f"{_name(node.target)}: {str(error).rstrip('.')}")
            return
        path = own or ".".join(filter(None, [_owner(node), _name(node.target)]))
        back = to_first(self.rank)
        if isinstance(native, nn.Unflatten) and all(permutation(user, self.rank) == back for user in node.users):
            native = partial(unflatten_pixels, size=tuple(map(int, native.unflattened_size[:-1])))
            self.last.add(node)
        if isinstance(native, nn.Module):
            parts = self.parts(native, path)
        else:
            parts = [Part(path, native, *read_function(native))]
        self._append(node, parts, sources, moved)

    def _native(self, node: torch.fx.Node) -> tuple[Any, list[torch.fx.Node], str]:
        """What computes a node, the nodes whose values it takes, and the path of the arrays that it takes."""
        own = [_fetched(each) for each in node.all_input_nodes if each in self.arrays]
        if not own:
            return *_native(node, self.rank), ""
        last = any(each in self.last for each in node.all_input_nodes)
        native, tensor = with_arrays(node, self.arrays, last, self.rank)
        native = (over_last_axis(native, self.rank) or native) if last else native
        alone = len(own) == 1 and not isinstance(native, (nn.Linear, *CONVOLUTIONS, *TRANSPOSED))
        return native, [tensor], own[0] if alone else own[0].rpartition(".")[0]

    def _permute(self, node: torch.fx.Node, order: tuple[int, ...]) -> None:
        """Note that a node has its channels last, or no longer."""
        source = node.args[0]
        assert isinstance(source, torch.fx.Node)
        away, back = order == to_last(self.rank), order == to_first(self.rank)
        if (source in self.last and not back) or (source not in self.last and not away):
            self._refuse(node, f"a permutation of the axes to {order}")
        self.values[node] = self.values[source]
        if source not in self.last:
            self.last.add(node)

    def _refuse(self, node: torch.fx.Node, what: str) -> None:
        self.unknown.setdefault(_owner(node), []).append(what)


def _fetched(node: torch.fx.Node) -> str:
    """The path of the array that a node fetches, or gives other axes."""
    while node.op != "get_attr":
        node = node.args[0]  # type: ignore[assignment]
    return str(node.target)


def _owner(node: torch.fx.Node) -> str:
    """The path of the module whose code a node is of."""
    return str(next(reversed(node.meta.get("nn_module_stack") or [""])))


def _name(target: Any) -> str:
    return target if isinstance(target, str) else str(getattr(target, "__name__", target))


def _of_any_axis(part: Part) -> bool:
    return isinstance(part.native, _OVER_LAST) or isinstance(part.layer, _ELEMENTWISE)


def _native(node: torch.fx.Node, rank: int) -> tuple[Any, list[torch.fx.Node]]:
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
        return _reshaped(others[0] if len(others) == 1 else others, rank), [first]
    if any(isinstance(each, torch.fx.Node) for each in _flat([*others, *options.values()])):
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


def _reshaped(shape: Any, rank: int) -> nn.Module:
    """The flattening that a reshape to (N, -1) or (-1, numbers) is, or its inverse, to (N, C, H, W)."""
    axes = [*shape] if isinstance(shape, (list, tuple)) else []
    if len(axes) == 2 and ((is_size_of(axes[0], 0) and (axes[1] == -1 or is_size_of(axes[1], 1))) or axes[0] == -1):
        return nn.Flatten()
    if len(axes) == rank + 2 and axes[2:] == [1] * rank and is_size_of(axes[0], 0):
        return nn.Unflatten(1, (-1, *(1,) * rank))
    if (
        len(axes) == rank + 2
        and all(isinstance(size, int) for size in axes[1:])
        and (axes[0] == -1 or is_size_of(axes[0], 0))
    ):
        return nn.Unflatten(1, axes[1:])
    raise UnsupportedError("it gives other axes than (N, -1) or, of rows, (N, C, H, W)")


def _flat(values: Sequence[Any]) -> Iterator[Any]:
    for value in values:
        yield from _flat(value) if isinstance(value, (list, tuple)) else (value,)
