"""ONNX files as sources: the layers that a graph is, whoever exported it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...errors import ConvlabError, ModelFileError, UnsupportedError
from ..layers.layer import Flatten, Layer, Unflatten
from ..layers.reading import INPUT, Model, Part, inputs_first
from .checks import check_layer, size_of
from .fields import excerpt
from .flow import Flow
from .neutral import MOST_LAYERS
from .onnx_graph import Graph, Node, read_graph
from .onnx_operation import IMAGES, PIXELS, ROWS, Operation, Value
from .onnx_operators import OPERATORS, flattened
from .spelled_out import Elementwise, with_activations, with_biases

# What exporters call the array of weights of a layer, and of what they put around all names.
_WEIGHTS = re.compile(r"(.+?)[._/:]+(weight|kernel|scale|gamma)")
_AROUND = re.compile(r"(StatefulPartitionedCall|PartitionedCall)/")


class OnnxFile(NamedTuple):
    """How an ONNX file is run.

    Attributes:
        data: the file's bytes.
        layout, result_layout: the letters of the axes of the image that the graph takes, and of its result.
        batch: how many images it takes, 0 for any number.
    """

    data: bytes
    layout: str
    result_layout: str
    batch: int


def read_onnx(path: Path) -> Model:
    """The model in a file, from images (N, C, H, W), or rows (N, C), to its result; its native is an `OnnxFile`.

    Raises:
        ModelFileError: it can't be read, or a node of it is no layer that convlab knows; the message names the node.
    """
    graph, data = read_graph(path)
    if len(graph.nodes) > MOST_LAYERS:
        raise graph.refused("graph", f"{len(graph.nodes)} nodes", f"at most {MOST_LAYERS}")
    reading = _Reading(graph, len(data))
    parts = reading.parts()
    shape = dict(zip(reading.layout, graph.shape or (), strict=False))
    image = tuple(shape.get(axis) for axis in (IMAGES if len(reading.layout) == 4 else ROWS)[1:])
    native = OnnxFile(data, reading.layout, reading.values[graph.result].layout, reading.batch)
    return Model("onnx", parts, True, native, image if any(image) else None)


class _Reading:
    """A graph on its way to parts.

    Attributes:
        values: what is known of each value by its name in the graph.
        constants: arrays by name; what `Shape` gives is the letters of the axes.
        origins: the initialisers that constants were made of.
        result: the parts.
        nodes: the node of each part, by the part's value.
        allowed: how many bytes copies of the file's numbers, and layers that share them, may still take.
    """

    def __init__(self, graph: Graph, size: int) -> None:
        self.graph, self.allowed = graph, 4 * size + 2**20
        self.taken = {name for node in graph.nodes for name in node.inputs} | {graph.result}
        self.constants: dict[str, np.ndarray] = dict(graph.constants)
        self.origins = {name: name for name in graph.constants}
        self.layout = self._layout_of_image()
        self.batch = (graph.shape or (None,))[0] or 0
        self.values = {graph.image: Value(INPUT, self.layout)}
        self.result: list[Part] = []
        self.nodes: dict[str, Node] = {}

    def _layout_of_image(self) -> str:
        """NCHW, unless all that is done with the image is to move its channels from the end to the front."""
        shape = self.graph.shape
        if shape is not None and len(shape) not in (2, 4):
            got = f"values of {len(shape)} axes"
            raise self.graph.refused(f"input {excerpt(self.graph.image)}", got, "images, or rows of numbers")
        if shape is not None and len(shape) == 2:
            return ROWS
        takers = [node for node in self.graph.nodes if self.graph.image in node.inputs]
        moved = [node.operator == "Transpose" and node.options.get("perm") == [0, 3, 1, 2] for node in takers]
        return PIXELS if moved and all(moved) else IMAGES

    def parts(self) -> list[Part]:
        """The parts, of which the last gives the graph's result."""
        for node in self.graph.nodes:
            try:
                self._node(node)
            except ModelFileError:
                raise
            except ConvlabError as error:
                text = str(error).partition(" Hint:")[0].rstrip(".")
                got, _, expected = text.removeprefix("got ").partition(", expected ")
                raise self.graph.refused(node, got, expected or "what convlab knows", self._around(node)) from error
        if self.graph.result not in self.values:
            raise self.graph.refused(f"result {excerpt(self.graph.result)}", "a constant", "what the image becomes")
        last = self.values[self.graph.result]
        if not self.result or last.layout not in _LAYOUTS:
            raise self.graph.refused("graph", f"a result {last.layout}" if self.result else "no layer", "a model")
        self._check_needed(last.name)
        parts = _named_apart(with_biases(with_activations(self.result)))
        flow = Flow()
        flow.values[INPUT] = (
            len(self.layout),
            dict(zip(self.layout, self.graph.shape or (), strict=False)).get("C") or 0,
        )
        for part in parts:
            node = self.nodes[part.value]
            if isinstance(part.layer, Elementwise):
                got = f"an operation {node.operator} that is part of no activation convlab knows"
                raise self.graph.refused(node, got, "one of its activations", self._around(node))
            check_layer(f"{self.graph.file}: {node}", part, flow)
        return parts

    def _check_needed(self, result: str) -> None:
        """Refuse layers that the result doesn't need: they would be run unseen."""
        by_value = {part.value: part for part in self.result}
        needed = {*inputs_first([result], lambda value: by_value[value].inputs if value in by_value else ())}
        for value, node in self.nodes.items():
            if value not in needed:
                hint = "leave it out when the model is exported"
                raise self.graph.refused(node, "a result that isn't needed", "a graph of one result", hint)

    def _around(self, node: Node) -> str:
        """What stands before and behind a node, in words."""
        before = [each for each in self.graph.nodes if {*each.outputs} & {*node.inputs}]
        after = [each for each in self.graph.nodes if {*node.outputs} & {*each.inputs}]
        sides = [" and ".join(map(str, each[:3])) for each in (before, after)]
        return f"it takes the result of {sides[0] or 'no node'}, and {sides[1] or 'no node'} takes its own"

    def _node(self, node: Node) -> None:
        if node.operator not in OPERATORS and node.operator not in _ARRANGING and node.operator not in _FOLDED:
            quantised = " (of a quantised model)" if "uantize" in node.operator or "Integer" in node.operator else ""
            known = ", ".join(sorted({*OPERATORS, *_ARRANGING, *_FOLDED}))
            raise UnsupportedError(f"got an operator{quantised} that convlab doesn't know, expected one of {known}")
        inputs = tuple(self.constants.get(name, self.values.get(name)) for name in node.inputs)
        values = [each for each in inputs if isinstance(each, Value)]
        if extra := [name for name in node.outputs[1:] if name in self.taken]:
            raise UnsupportedError(f"got further results {excerpt(extra)} that are taken, expected one")
        operation = Operation(node.options, inputs, values[0].layout if values else "", self.batch)
        if node.operator in _FOLDED and (not values or node.operator == "Shape"):
            self._fold(node, operation)
            return
        if not values:
            raise UnsupportedError("got constants alone, expected a value")
        if {value.layout for value in values} != {operation.layout}:
            raise UnsupportedError(f"got axes {' and '.join(value.layout for value in values)}, expected the same")
        reader = OPERATORS.get(node.operator) or _ARRANGING.get(node.operator)
        if reader is None:
            raise UnsupportedError("got it on what is computed from the image, expected constants")
        if node.operator in OPERATORS and operation.layout not in _LAYOUTS:
            raise UnsupportedError(f"got values with axes {operation.layout}, expected one of {', '.join(_LAYOUTS)}")
        self._append(node, reader(operation), values, operation.layout)

    def _fold(self, node: Node, operation: Operation) -> None:
        try:
            array = _FOLDED[node.operator](operation)
        except (ValueError, IndexError, TypeError) as error:
            raise UnsupportedError(
                f"got constants that it can't take ({excerpt(str(error))}), expected others"
            ) from error
        if not any(np.may_share_memory(array, each) for each in operation.inputs if isinstance(each, np.ndarray)):
            self._allow(array.nbytes)
        name = node.outputs[0]
        self.constants[name] = array
        self.origins[name] = next((self.origins[each] for each in node.inputs if each in self.origins), name)

    def _allow(self, size: int) -> None:
        self.allowed -= size
        if self.allowed < 0:
            raise UnsupportedError("got more numbers than the file has, expected weights of few layers to be the same")

    def _append(self, node: Node, layers: Sequence[Layer], values: Sequence[Value], layout: str) -> None:
        inputs = tuple(value.name for value in values)
        for layer in layers:
            value = str(len(self.result))
            self.nodes[value] = node
            self._allow(size_of(layer))
            self.result.append(Part(self._path(node, layer), None, layer, node.operator, inputs, value))
            inputs = (value,)
        self.values[node.outputs[0]] = Value(inputs[0], layout)

    def _path(self, node: Node, layer: Layer) -> str:
        """The name of the layer in the model that was exported, as far as names in the file tell."""
        # PyTorch names nodes by modules, /layer1/layer1.0/conv1/Conv; its initialisers may belong to several layers.
        own = re.sub(rf"[./]?{re.escape(node.operator)}(_\d+)?$", "", node.name)
        if layer.arrays and not own.startswith("/"):
            arrays = [self.origins[name] for name in node.inputs if name in self.origins]
            named = next((match for name in arrays if (match := _WEIGHTS.fullmatch(name))), None)
            if named:
                return named[1].replace("/", ".")
        path: list[str] = []
        for scope in filter(None, _AROUND.sub("", own or node.name).split("/")):
            if path and scope.startswith(f"{path[-1]}."):
                path.pop()
            path.append(scope)
        return ".".join(path) or node.name


def _named_apart(parts: Sequence[Part]) -> list[Part]:
    """The parts, with the operator behind names that others have, too, or that are of what others are in."""
    paths = [part.path for part in parts]
    taken = {name for name, count in Counter(paths).items() if count > 1}
    taken |= {path[:place] for path in paths for place, letter in enumerate(path) if letter == "."}
    return [replace(part, path=f"{part.path}.{part.note.lower()}") if part.path in taken else part for part in parts]


_LAYOUTS = (IMAGES, PIXELS, ROWS)


def _transpose(op: Operation) -> Sequence[Layer]:
    perm = op.options.get("perm", [*range(len(op.layout))][::-1])
    if sorted(perm) != [*range(len(op.layout))]:
        raise UnsupportedError(f"got perm {excerpt(perm)}, expected the axes of {op.layout}")
    op.layout = op.letters(perm)
    return []


def _unsqueeze(op: Operation) -> Sequence[Layer]:
    rank = len(op.layout) + len(op.axes(1))
    new = {axis % rank for axis in op.axes(1) if -rank <= axis < rank}
    letters = iter(op.layout)
    op.layout = "".join("1" if axis in new else next(letters, "") for axis in range(rank))
    if sorted(op.layout) != ["1", "1", "C", "N"] or rank > 4:
        return []
    op.layout = op.layout.replace("1", "H", 1).replace("1", "W", 1)
    return [Unflatten()]


def _squeeze(op: Operation) -> Sequence[Layer]:
    dropped = op.letters(op.axes(1))
    if not dropped or set(dropped) - set("HW1"):
        raise UnsupportedError(f"got the axes {excerpt(op.axes(1))} of {op.layout}, expected rows and columns")
    images = "H" in op.layout or "W" in op.layout
    op.layout = "".join(letter for letter in op.layout if letter not in dropped)
    return [Flatten()] if images and op.layout == ROWS else []


def _reshape(op: Operation) -> Sequence[Layer]:
    target = op.constant(1, "a shape")
    sizes = [] if target is None else target.ravel().tolist()
    first = sizes[0] if sizes else None
    batch = first == "N" or (first == 0 and not op.options.get("allowzero", 0)) or (first == op.batch and op.batch)
    fixed = [isinstance(size, int) and size > 0 for size in sizes]
    if len(sizes) == 2 and ((batch and sizes[1] != "N") or (first == -1 and fixed[1])):
        return flattened(op)
    pixel = {(1, 1): IMAGES}.get(tuple(sizes[2:])) or {(1, 1): PIXELS}.get(tuple(sizes[1:3]))
    if len(sizes) == 4 and (batch or first == -1) and op.layout == ROWS and pixel:
        op.layout = pixel
        return [Unflatten()]
    raise UnsupportedError(
        f"got the shape {excerpt(sizes)} for {op.layout}, expected rows of numbers, or one pixel of rows"
    )


def _cast(op: Operation) -> Sequence[Layer]:
    if op.options.get("to") not in _FLOATS:
        raise UnsupportedError(f"got ONNX's dtype {op.options.get('to')}, expected floating-point numbers")
    return []


def _given(op: Operation) -> list[np.ndarray]:
    return [np.asarray(each) for each in op.inputs]


def _of_shapes(op: Operation) -> list[np.ndarray]:
    """Inputs that are shapes or parts of them: other constants aren't cut and put together."""
    if any(array.size > 8 or array.ndim > 1 for array in _given(op)):
        raise UnsupportedError("got larger constants, expected shapes")
    return _given(op)


def _constant(op: Operation) -> np.ndarray:
    names = {"value": None, "value_float": "f4", "value_int": "i8", "value_floats": "f4", "value_ints": "i8"}
    (name,) = op.options
    if name not in names:
        raise UnsupportedError(f"got {excerpt(name)}, expected one of {', '.join(names)}")
    return np.asarray(op.options[name], names[name])


def _shape(op: Operation) -> np.ndarray:
    shape = np.array([*op.layout], object) if op.layout else np.array(_given(op)[0].shape)
    return shape[op.options.get("start", 0) : op.options.get("end", None)]


def _gathered(op: Operation) -> np.ndarray:
    array, places = _of_shapes(op)
    return np.array(array[places], array.dtype)


def _sliced(op: Operation) -> np.ndarray:
    array, start, end, *others = (each.ravel() for each in _of_shapes(op))
    step = int(others[1][0]) if len(others) > 1 else 1
    return array[int(start[0]) : int(end[0]) : step]


def _new_axes(op: Operation) -> np.ndarray:
    return np.expand_dims(_given(op)[0], tuple(op.axes(1)))


def _as_type(op: Operation) -> np.ndarray:
    array = _given(op)[0]
    return array if array.dtype == object else array.astype(_FLOATS.get(op.options["to"], np.int64), copy=False)


# ONNX's numbers of the dtypes that layers have.
_FLOATS = {1: "float32", 10: "float16", 11: "float64"}
# Operators that give values other axes, and do nothing else.
_ARRANGING: dict[str, Callable[[Operation], Sequence[Layer]]] = {
    "Identity": lambda op: [],
    "Cast": _cast,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Reshape": _reshape,
}
# Operators on constants; `Shape` is one, since its result is as good as constant.
_FOLDED: dict[str, Callable[[Operation], Any]] = {
    "Constant": _constant,
    "Identity": lambda op: _given(op)[0],
    "Cast": _as_type,
    "Transpose": lambda op: _given(op)[0].transpose(op.options.get("perm")),
    "Unsqueeze": _new_axes,
    "Squeeze": lambda op: np.squeeze(_given(op)[0], tuple(op.axes(1)) or None),
    "Reshape": lambda op: _given(op)[0].reshape(_given(op)[1].tolist()),
    "Shape": _shape,
    "Gather": _gathered,
    "Slice": _sliced,
    "Concat": lambda op: np.concatenate(_of_shapes(op), axis=op.options.get("axis", 0)),
}
