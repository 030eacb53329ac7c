"""What adapters return when they read a model, and helpers for reading."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from ...errors import ModelError, UnsupportedError
from .activations import PReLU
from .joining import Joining
from .layer import BatchNorm, Layer, OfAnyRank
from .norms import ChannelAffine, GroupNorm, LayerNorm, RMSNorm
from .outputs import OUTPUTS, Outputs
from .ranks import own_rank, rank_of
from .spatial import WHAT, Size, hwio

Key = TypeVar("Key", bound=Hashable)

# The value that a model is given: the image. For those of several see `convlab.models.layers.arguments`.
INPUT = "input"
# The shape of what a model takes, without the number of images: (C, H, W), or (C,) for rows of numbers; None for sizes
# that may vary.
InputShape = tuple[int | None, ...]


@dataclass(frozen=True, eq=False)
class Part:
    """A layer as a model has it: a node of the graph that a model is.

    Attributes:
        path: where it is in the model, as the framework writes it.
        native: the framework's own object; called by its adapter's `run`.
        layer: what it computes; None where convlab can't tell.
        note: its class, as the framework writes it, and why convlab can't tell.
        inputs: the names of the values that it takes, in order; `INPUT` is the model's image, see `Model.inputs`.
        value: the name of its result, which no other part has.
        name: what it is called in another framework, where that isn't its path: a number for Flax's `layers_0`.
    """

    path: str
    native: Any
    layer: Layer | None
    note: str = ""
    inputs: tuple[str, ...] = ()
    value: str = ""
    name: str = ""


def chained(parts: Sequence[Part]) -> list[Part]:
    """The parts one after another: each takes the result of the one before it.

    >>> first, second = chained([Part("a", None, None), Part("b", None, None)])
    >>> first.inputs, first.value, second.inputs
    (('input',), '0', ('0',))
    """
    values = [INPUT, *map(str, range(len(parts)))]
    return [replace(part, inputs=(values[i],), value=values[i + 1]) for i, part in enumerate(parts)]


def parts_of(layers: Sequence[Layer]) -> list[Part]:
    """Layers one after another, as the parts of a model of no framework."""
    names = map(str, range(len(layers))) if len(layers) > 1 else [""]
    return chained([Part(name, None, layer, layer.kind) for name, layer in zip(names, layers, strict=True)])


def is_chain(nodes: Sequence[Any]) -> bool:
    """Whether each of the nodes, which have `inputs` and a `value`, takes the result of the one before it alone."""
    before = [INPUT, *(node.value for node in nodes)]
    return all(node.inputs == (value,) for node, value in zip(nodes, before, strict=False))


def consumers(parts: Sequence[Part]) -> dict[str, list[Part]]:
    """The parts that take each value, once for each time that they take it."""
    takers: dict[str, list[Part]] = {}
    for part in parts:
        for value in part.inputs:
            takers.setdefault(value, []).append(part)
    return takers


def parts_with_arrays(parts: Sequence[Part]) -> list[Part]:
    """The parts whose layers have arrays: another one may have the same path, of which it is the code's operation."""
    return [part for part in parts if part.layer is not None and part.layer.arrays]


def without(parts: Sequence[Part], dropped: Callable[[Part], bool]) -> list[Part]:
    """The parts without some that take one value, whose takers get that value instead; the last gives the result."""
    names: dict[str, str] = {}
    kept: list[Part] = []
    for part in parts:
        inputs = tuple(names.get(value, value) for value in part.inputs)
        if dropped(part):
            names[part.value] = inputs[0]
        else:
            kept.append(replace(part, inputs=inputs))
    result = names.get(parts[-1].value) if parts else None
    return kept if result is None else ending_with(kept, result)


def ending_with(parts: Sequence[Part], value: str) -> list[Part]:
    """The parts up to the one that gives a value, none for an input: what stands behind it isn't needed for that."""
    return [*parts[: next((place for place, part in enumerate(parts, 1) if part.value == value), 0)]]


def giving(
    parts: Sequence[Part], results: Sequence[str], native: Callable[[Outputs], Any], names: tuple[str, ...] = ()
) -> list[Part]:
    """The parts that give these values: up to the last of them, and behind it for several an `Outputs`.

    Args:
        parts: those of a model, in order.
        results: the names of values.
        native: makes the framework's own object for a layer.
        names: what the results are called: see `convlab.models.layers.outputs.Outputs`.
    """
    needed = max((ending_with(parts, value) for value in results), key=len)
    if len(results) == 1:
        return needed
    layer = Outputs(names)
    return [*needed, Part(OUTPUTS, native(layer), layer, OUTPUTS, tuple(results), f"{OUTPUTS} of the model")]


def inputs_first(results: Sequence[Key], inputs: Callable[[Key], Sequence[Key]]) -> Iterator[Key]:
    """The nodes of a graph that results need, each behind its inputs, and once.

    >>> [*inputs_first(["sum"], {"sum": ["b", "a"], "b": ["a"], "a": []}.__getitem__)]
    ['a', 'b', 'sum']
    """
    done: set[Key] = set()
    stack = [(node, False) for node in reversed(results)]
    while stack:
        node, inputs_done = stack.pop()
        if node in done:
            continue
        if inputs_done:
            done.add(node)
            yield node
        else:
            stack.append((node, True))
            stack += [(each, False) for each in reversed(inputs(node))]


@dataclass(frozen=True, eq=False)
class Model:
    """A framework's model, read: a graph of layers, often one layer after another.

    Attributes:
        backend: the backend of its framework.
        parts: its layers; each stands behind those whose results it takes, and the last gives the model's result. Parts
            that are given without inputs are one after another.
        whole: whether the model is these layers with these inputs, and nothing else.
        native: the model itself.
        image: the only shape of an image that it takes, (C, H, W), with None for a size that may vary; None where the
            framework doesn't tell.
        loose: what belongs to no part: parameters and buffers by their path, operations by the path of the method that
            calls them, each with a note.
        multiple: what the rows and columns of images must be multiples of, so that the parts compute the same.
        unused: parameters and buffers, as in `loose`, that the model's code doesn't use, and layers for training alone.
        alone: whether the parts compute the same for images of the shape `image` alone; the model may take others.
        runner: what runs its layers, with the methods `run` and `gradients` of `convlab.models.adapters.Models`; None
            for its backend's own.
        inputs: the values that it takes, in the order of its arguments, each with its shape as far as the framework
            tells: `INPUT` and `image` of one; those of several are called by `input_values`.
    """

    backend: str
    parts: list[Part]
    whole: bool
    native: Any = field(repr=False)
    image: InputShape | None = None
    loose: dict[str, str] = field(default_factory=dict)
    multiple: int = 1
    unused: dict[str, str] = field(default_factory=dict)
    alone: bool = False
    runner: Any = None
    inputs: Mapping[str, InputShape | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.inputs:
            object.__setattr__(self, "inputs", {INPUT: self.image})
        if not all(part.value for part in self.parts):
            object.__setattr__(self, "parts", chained(self.parts))
        # Code that joins as many values as it has may have one.
        alone = [part for part in self.parts if isinstance(part.layer, Joining) and len(part.inputs) == 1]
        if alone:
            object.__setattr__(self, "parts", without(self.parts, lambda part: part in alone))
        object.__setattr__(self, "parts", [*_of_one_rank(self.parts)])

    @property
    def rank(self) -> int:
        """How many axes its images have beside those of images and channels: 1 for sequences, 3 for volumes."""
        return rank_of([part.layer for part in self.parts])

    @property
    def computes_with_sizes(self) -> bool:
        """Whether its code computes with its images' sizes, as far as is known."""
        return self.multiple > 1 or any("traced" in why or "size" in why for why in self.loose.values())

    @property
    def size(self) -> Size | None:
        """The only rows and columns of an image that it takes, or its length, where there are any."""
        sizes = {shape[1:] for shape in self.inputs.values() if shape and len(shape) > 1}
        size = sizes.pop() if len(sizes) == 1 else ()
        return None if not size or None in size else size  # type: ignore[return-value]

    def holds_at(self, size: Size) -> bool:
        """Whether its layers are known, all of them, and hold for images of so many rows and columns."""
        known = self.whole and all(part.layer is not None for part in self.parts)
        return known and not any(n % self.multiple for n in size)


def _of_one_rank(parts: Sequence[Part]) -> Iterator[Part]:
    """The parts, with the model's number of axes where a layer takes any; a layer for another one isn't known."""
    rank = rank_of([part.layer for part in parts])
    for part in parts:
        layer = part.layer
        if own_rank(layer) not in (0, rank):
            why = f"it is for {WHAT[own_rank(layer)]}, in a model of {WHAT[rank]}"
            part = replace(part, layer=None, note=f"{part.note}: {why}")
        elif isinstance(layer, OfAnyRank) and layer.rank not in (0, rank):
            part = replace(part, layer=replace(layer, rank=rank))
        yield part


def loose_array(kind: str, shape: Sequence[int]) -> str:
    """The note of a parameter or a buffer that belongs to no part.

    >>> loose_array("parameter", (64, 1, 1))
    'a parameter of shape (64, 1, 1) that belongs to no layer convlab knows'
    """
    return f"a {kind} of shape {tuple(map(int, shape))} that belongs to no layer convlab knows"


def computed_anew(paths: Iterable[str]) -> dict[str, str]:
    """The notes of parameters from which a model's code computes an array of a layer, by their paths.

    >>> computed_anew({"conv.weight", "conv.gain"})["conv.gain"]
    'each time the code computes anew from conv.gain and conv.weight; what is ported has the result'
    """
    ordered = sorted(paths)
    note = f"each time the code computes anew from {' and '.join(ordered)}; what is ported has the result"
    return dict.fromkeys(ordered, note)


def loose_code(native: object, method: str, operations: Iterable[str] = ()) -> str:
    """The note of a method that does more than call layers one after another, with the operations that are known.

    >>> loose_code(3, "forward", ["relu", "flatten", "relu"])
    'int has a forward of its own, whose operations between layers (relu, flatten) are not carried'
    """
    names = ", ".join(dict.fromkeys(operations))
    known = f" ({names})" if names else ""
    return f"{type(native).__name__} has a {method} of its own, whose operations between layers{known} are not carried"


def unbuilt(path: str, native: object, hint: str) -> ModelError:
    """The error for a layer whose parameters have no values yet."""
    return ModelError(
        f"{path or 'the layer'}: got a {type(native).__name__} whose parameters have no values yet, expected them.",
        hint=f"{hint}.",
    )


def known(native: object, readers: dict[type, Callable[[Any], Layer]], *methods: str) -> tuple[Layer | None, str]:
    """What a framework's object computes, by the first reader of its type, and its class's name; None and why not.

    Args:
        native: the object.
        readers: by the class that each is for.
        methods: what a subclass may not replace, since a reader goes by what the framework's own class does.
    """
    name = type(native).__name__
    kind = next((kind for kind in readers if isinstance(native, kind)), None)
    if kind is None:
        return None, name
    if any(replaces(native, kind, method) for method in methods):
        return None, f"{name}: it is a {kind.__name__} with a {methods[0]} of its own"
    try:
        return readers[kind](native), name
    except UnsupportedError as error:
        return None, f"{name}: {error}"


def replaces(native: object, kind: type, method: str) -> bool:
    """Whether an object has a method other than the one of a class."""
    return getattr(type(native), method, None) is not getattr(kind, method) or method in vars(native)


def walk(
    model: Any,
    children: Callable[[Any], Iterable[tuple[str, Any]]],
    parts: Callable[[Any, str], Iterable[Part]],
    is_chain: Callable[[Any], bool],
    separator: str,
) -> tuple[list[Part], dict[str, Any]]:
    """The parts of nested containers, and by their paths the containers that do more than call their layers in turn.

    Args:
        model: a framework's layer, or a container of layers.
        children: names and layers right inside a container; none for a layer that is read as a whole.
        parts: those of a layer without children, at a path.
        is_chain: whether a container does no more than call its layers in turn.
        separator: of the names in a path.
    """
    with_code: dict[str, Any] = {}

    def visit(native: object, path: str) -> Iterator[Part]:
        inside = list(children(native))
        if not inside:
            yield from parts(native, path)
            return
        if not is_chain(native):
            with_code[path] = native
        for name, child in inside:
            yield from visit(child, f"{path}{separator}{name}" if path else name)

    return list(visit(model, "")), with_code


@dataclass(frozen=True)
class ArrayNames:
    """How a framework's layers name and lay out their arrays.

    Attributes:
        mean, variance, scale, shift: the names of a normalisation's arrays.
        kernel: the name of a convolution's and of a dense layer's kernel.
        slope: the name of a PReLU's slopes.
        channels_last: whether kernels are HWIO, and those of dense layers (inputs, outputs).
    """

    mean: str
    variance: str
    scale: str
    shift: str
    kernel: str
    slope: str
    channels_last: bool

    def arrays(self, layer: Any, data_format: str | None = None) -> dict[str, np.ndarray]:
        """A layer's arrays as the framework's layer has them; `data_format` is that of a `Conv2D` of convlab's."""
        if isinstance(layer, BatchNorm):
            return {
                self.mean: layer.mean,
                self.variance: layer.variance,
                self.scale: layer.scale,
                self.shift: layer.shift,
            }
        if isinstance(layer, PReLU):
            return {self.slope: layer.slope}
        if isinstance(layer, RMSNorm):
            return {self.scale: layer.scale}
        if isinstance(layer, (GroupNorm, LayerNorm, ChannelAffine)):
            both = {self.scale: layer.scale, self.shift: layer.shift}
            return {name: array for name, array in both.items() if array is not None}
        if data_format is not None:
            arrays = {"weight": layer.ours_for(data_format)[1]}
        elif not self.channels_last:
            arrays = {self.kernel: layer.kernel}
        else:
            arrays = {self.kernel: hwio(layer.kernel)}
        return arrays if layer.bias is None else {**arrays, "bias": layer.bias}
