"""The graph of a PyTorch model whose code is its own, traced by `torch.fx`."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.fx
from torch import Tensor, nn

from convlab.errors import UnsupportedError
from convlab.models.layers.activations import Activation, Affine, Clip
from convlab.models.layers.arguments import arguments_needed, input_values
from convlab.models.layers.joining import Add, Divide, Maximum, Minimum, Multiply, Subtract
from convlab.models.layers.layer import Dropout
from convlab.models.layers.outputs import results_of
from convlab.models.layers.reading import INPUT, Part, giving
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
from .calls import native_of_call
from .casts import drop_casts
from .channel_convolutions import RowConvolution, convolves_rows
from .constants import computed_from, fetched, notes_of_computed, place_in_array, with_arrays
from .functional import NORMS, view_of
from .functions import (
    outputs,
    over_last_axis,
    read_function,
    softmax_of_channels,
    unflatten_pixels,
)
from .in_place import take_changed
from .modules import ChannelAffine, LayerNorm2d, PixelLinear, RMSNorm2d
from .partitions import of_partitions
from .patterns import is_part_of_pattern, permutation
from .recognised import recognise
from .rewriting import OPENS, PARTS, to_channels_first
from .sized_trace import SizedTracer
from .sizes import (
    CONVOLUTIONS,
    TRANSPOSED,
    Images,
    Seen,
    fold_sizes,
    image_channels,
    image_rank,
    is_size,
    only_images,
    runs_of,
    shapes_in,
)
from .token_calls import TokenReading, owner
from .tokens import expands_batch
from .tracer import defaults_of, graph_of

# What computes the same whichever axis is that of the channels, or knows that it is the last.
_ELEMENTWISE = (Activation, Affine, Clip, Dropout, Add, Subtract, Multiply, Divide, Maximum, Minimum)
_ATTENTION = (PixelAttention, WindowAttention, OfTorchvision, Written, ClassToken, PositionEmbedding)
_OVER_LAST = (LayerNorm2d, RMSNorm2d, PixelLinear, ChannelAffine, *_ATTENTION)


class Traced(NamedTuple):
    """A model's code, read.

    Attributes:
        parts: those of the model with their inputs.
        unknown: the operations that convlab doesn't know, by their callers' paths.
        multiple: what the rows and columns of images must be multiples of.
        unused: what inference doesn't use: how arrays are computed from others, by path.
        inputs: the values of the arguments, in order, each with the only shape, (C, H, W) or (C,), that the parts are
            for; None for images of any size.
    """

    parts: list[Part]
    unknown: dict[str, list[str]]
    multiple: int
    unused: dict[str, str]
    inputs: dict[str, tuple[int, ...] | None]


def traced(
    model: nn.Module,
    is_leaf: Callable[[nn.Module], bool],
    of_torch: Callable[[nn.Module], bool],
    parts: Callable[[nn.Module, str], Sequence[Part]],
    inputs: Mapping[str, tuple[int, ...]] | None = None,
) -> Traced:
    """What the code of a model computes.

    Args:
        model: any module.
        is_leaf: whether a module is read as a whole.
        of_torch: whether a module's class is PyTorch's own.
        parts: the parts that a module at a path is; none for one that does nothing.
        inputs: the only shapes, (C, H, W) or (C,), that the parts are to be for, by the names of the arguments; None
            for all that the model takes.

    Raises:
        UnsupportedError: it can't be traced, or takes or gives more than one tensor.
    """
    if inputs is None:
        graph = graph_of(model, is_leaf, of_torch)
        drop_casts(graph, model)
        take_changed(graph, model)
        rank = image_rank(model, graph)
        images = only_images(model, graph, Images(image_channels(model, graph, rank), rank))
    else:
        graph = graph_of(model, is_leaf, of_torch, partial(SizedTracer, inputs=inputs))
        drop_casts(graph, model)
        take_changed(graph, model)
        image = max(inputs.values(), key=len)
        rank = len(image) - 1
        images = Images(image[0], rank, image[1:], inputs)
    multiple = fold_sizes(model, graph, images)
    shapes = partial(shapes_in, model, graph, images, multiple)
    recognise(model, graph, rank, shapes)
    needed = images.size is not None or any(node.target in OPENS for node in graph.nodes)
    runs = runs_of(model, graph, images, multiple) if needed else []
    reading = _Reading(model, parts, rank, runs, images.size is not None)
    parts_read = reading.of(graph)
    only = None if images.size is None else (images.channels, *images.size)
    given = dict(zip(input_values([*inputs]), inputs.values(), strict=True)) if inputs else {}
    return Traced(*parts_read, multiple, reading.notes, {value: given.get(value, only) for value in reading.inputs})


class _Reading(TokenReading):
    """A traced graph on its way to parts: see `TokenReading`.

    Attributes:
        arrays: the parameters and buffers that the code itself takes, by the nodes that fetch them.
        shapes: those of the tensors, where the images have one size.
        sizes: the nodes that are numbers computed from shapes.
        pieces: the nodes that are only read together with those that take them.
        computed: the nodes among `arrays` that compute one.
        notes: how the arrays of layers are computed, by the paths that their results have.
    """

    def __init__(
        self,
        model: nn.Module,
        parts: Callable[[nn.Module, str], Sequence[Part]],
        rank: int,
        runs: Sequence[Seen],
        of_one_size: bool,
    ) -> None:
        super().__init__(rank, runs)
        self.model, self.parts = model, parts
        self.shapes: Seen = runs[0] if of_one_size and runs else {}
        self.arrays: dict[torch.fx.Node, Tensor] = {}
        self.sizes: set[torch.fx.Node] = set()
        self.pieces: set[torch.fx.Node] = set()
        self.computed: set[torch.fx.Node] = set()
        self.notes: dict[str, str] = {}
        self.unknown: dict[str, list[str]] = {}
        self.inputs: tuple[str, ...] = (INPUT,)

    def of(self, graph: torch.fx.Graph) -> tuple[list[Part], dict[str, list[str]]]:
        """The parts, and the unknown operations."""
        self._take_inputs([node for node in graph.nodes if node.op == "placeholder"])
        for node in graph.nodes:
            if node.op == "placeholder":
                continue
            if node.op == "call_module":
                self._module(node)
            elif node.op == "output":
                self._output(node.args[0])
            elif node.op == "get_attr":
                self.arrays[node] = operator.attrgetter(str(node.target))(self.model)
            elif is_size(node, self.sizes):
                self.sizes.add(node)
            elif self._of_arrays(node) or self.of_tokens(node):
                continue
            elif is_part_of_pattern(node, self.rank):
                self._moved(node)
                self.pieces.add(node)
            else:
                self._function(node)
        return self.result, self.unknown

    def _of_arrays(self, node: torch.fx.Node) -> bool:
        """Whether a node takes arrays of the model's own alone, and has been read."""
        computes = bool(self.computed.intersection(node.all_input_nodes))
        array: Tensor | None
        if node.args and node.args[0] in self.arrays and expands_batch(node):
            array = self.arrays[node.args[0]]  # type: ignore[index]
        elif (array := view_of(node, self.arrays)) is None:
            array, computes = computed_from(node, self.arrays), True
        if array is None:
            return False
        self.arrays[node] = array
        self.computed |= {node} if computes else set()
        return True

    def _take_inputs(self, arguments: Sequence[torch.fx.Node]) -> None:
        """Note what is given for arguments; those with defaults are held by the trace for their values."""
        given = [node for node in arguments if not node.args and node.users] or [*arguments[:1]]
        names = [str(node.target) for node in given]
        others = [name for name in names if name not in arguments_needed(self.model.forward)]
        if len(given) > 1 and others:
            raise UnsupportedError(f"it takes {others[0]!r} beside {names[0]!r}, which isn't an argument by position")
        self.inputs = input_values(names)
        self.values.update(zip(given, self.inputs, strict=True))
        self.sizes.update(node for node in arguments if node.args and node not in given)

    def _output(self, result: Any) -> None:
        names, results = results_of(result)
        self.as_results(results)
        for each in results:
            for kind, what in ((self.tokens, "tokens (N, C, L)"), (self.last, "images NHWC")):
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
        moved = (
            softmax_of_channels(module, 3 if source in self.tokens else self.rank + 2) if source in self.last else None
        )
        if source in self.last:
            module = moved or over_last_axis(module, self.rank) or of_partitions(self.model, path) or module
        self._append(node, self.parts(module, path), [source], moved is not None)

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
        for source in sources:
            self.as_rows(source)
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
        moved = self._moved(node)
        try:
            native, sources, own = self._native(node)
        except UnsupportedError as error:
            of_sizes = " with numbers from the image's size" if self.sizes.intersection(node.all_input_nodes) else ""
            self._refuse(node, f"{_name(node.target)}{of_sizes}: {str(error).rstrip('.')}")
            return
        path = own or ".".join(filter(None, [owner(node), _name(node.target)]))
        if sources and sources[0] in self.last:
            softmax = softmax_of_channels(native, 3 if sources[0] in self.tokens else self.rank + 2)
            native, moved = softmax or native, moved or softmax is not None
        back = to_first(self.rank)
        if isinstance(native, nn.Unflatten) and all(permutation(user, self.rank) == back for user in node.users):
            native = partial(unflatten_pixels, size=tuple(map(int, native.unflattened_size[:-1])))
            self.last.add(node)
        if isinstance(native, nn.Module):
            parts = self.parts(native, path)
        else:
            parts = [Part(path, native, *read_function(native))]
        self._append(node, parts, sources, moved)

    def _moved(self, node: torch.fx.Node) -> bool:
        """Whether a node of images NHWC, or of tokens, has been rewritten as one of images NCHW."""
        sources = [each for each in node.all_input_nodes if each in self.values or each in self.last]
        of_tokens = bool(self.tokens.intersection(sources))
        in_last = bool(sources) and self.last.issuperset(sources)
        moved = in_last and to_channels_first(node, self.rank, of_tokens)
        if moved and node.target in PARTS:
            self.last.add(node)
        return moved

    def _native(self, node: torch.fx.Node) -> tuple[Any, list[torch.fx.Node], str]:
        """What computes a node, the nodes whose values it takes, and the path of the arrays that it takes."""
        taken = [each for each in node.all_input_nodes if each in self.arrays]
        own = [f"{fetched(each)[0]}{place_in_array(each)}" for each in taken]
        self.notes |= notes_of_computed(node.all_input_nodes, self.computed)
        if not own and node.target not in NORMS:
            return *native_of_call(node, self.rank), ""
        last = any(each in self.last for each in node.all_input_nodes)
        native, tensor = with_arrays(node, self.arrays, last, self.rank, self.channels_of, self.shapes)
        native = (over_last_axis(native, self.rank) or native) if last else native
        whole = len(own) > 1 or isinstance(native, (nn.Linear, *CONVOLUTIONS, *TRANSPOSED))
        alone = bool(own) and (not whole or bool(place_in_array(taken[0])))
        path = own[0] if alone else own[0].rpartition(".")[0] if own else ""
        return native, [tensor], "" if path.startswith("_tensor_constant") else path  # an array in the code has no name

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
        self.unknown.setdefault(owner(node), []).append(what)


def _name(target: Any) -> str:
    return target if isinstance(target, str) else str(getattr(target, "__name__", target))


def _of_any_axis(part: Part) -> bool:
    return isinstance(part.native, _OVER_LAST) or isinstance(part.layer, _ELEMENTWISE)
