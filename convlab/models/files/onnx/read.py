"""ONNX files as sources: the layers that a graph is, whoever exported it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ....errors import ConvlabError, ModelFileError, UnsupportedError
from ...layers.arguments import input_values
from ...layers.joining import Joining
from ...layers.layer import Layer
from ...layers.outputs import Outputs
from ...layers.reading import INPUT, Model, Part, giving, inputs_first
from ...layers.shapes import Known, known_after
from ...layers.spatial import to_first
from ...layers.tokens import Tokens
from ..checks import bytes_of, check_flow, check_options
from ..fields import excerpt
from ..flow import Flow
from ..neutral import LONGEST_PATH, MOST_LAYERS
from .arranging import ARRANGING, FOLDED
from .graph import Graph, OnnxNode, read_graph
from .operation import FIRST, GROUPS, LAST, LAYOUTS, ROWS, TOKENS, TOKENS_LAST, Operation, Value
from .operators import OF_TOKENS, OPERATORS
from .spelled_out import Elementwise, with_activations, with_numbers

# What exporters call the array of weights of a layer, and of what they put around all names.
_WEIGHTS = re.compile(r"(.+?)[._/:]+(weight|kernel|scale|gamma)")
_AROUND = re.compile(r"(StatefulPartitionedCall|PartitionedCall)/")


class OnnxFile(NamedTuple):
    """How an ONNX file is run.

    Attributes:
        data: the file's bytes.
        layouts: the letters of the axes of the images that the graph takes.
        result_layouts: those of its results.
        batch: how many images it takes, 0 for any number.
    """

    data: bytes
    layouts: tuple[str, ...]
    result_layouts: tuple[str, ...]
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
    layouts = tuple(reading.values[result].layout for result in graph.results)
    native = OnnxFile(data, tuple(reading.layouts.values()), layouts, reading.batch)
    shapes = dict(zip(reading.inputs, map(reading.shape_of, graph.inputs), strict=True))
    return Model("onnx", parts, True, native, shapes.get(INPUT), inputs=shapes)


class _Reading:
    """A graph on its way to parts.

    Attributes:
        rank: how many axes the graph's images have beside those of images and channels.
        layouts: the axes of the inputs, by their names in the graph.
        inputs: their parts' values.
        takers: the nodes that take each value of the graph.
        values: the part's value and the axes of each value, by its name in the graph.
        known: what is known of the channels and the size of each part's value.
        constants: arrays by name; what `Shape` gives is the letters of the axes.
        origins: the initialisers that constants were made of.
        result: the parts.
        nodes: the node of each part, by the part's value.
        allowed: how many bytes copies of the file's numbers, and layers that share them, may still take.
    """

    def __init__(self, graph: Graph, size: int) -> None:
        self.graph, self.allowed = graph, 4 * size + 2**20
        self.takers: dict[str, list[OnnxNode]] = {result: [] for result in graph.results}
        for node in graph.nodes:
            for name in filter(None, node.inputs):
                self.takers.setdefault(name, []).append(node)
        self.constants: dict[str, np.ndarray] = dict(graph.constants)
        self.origins = {name: name for name in graph.constants}
        self.layouts = {name: self._layout_of(name, shape) for name, shape in graph.inputs.items()}
        self.inputs = input_values([*graph.inputs])
        self.batch = self._number_of_images()
        pairs = [*zip(self.inputs, self.layouts.items(), strict=True)]
        self.values = {name: Value(value, layout) for value, (name, layout) in pairs}
        self.rank = next((len(layout) - 2 for layout in self.layouts.values() if layout != ROWS), 2)
        self.known = {value: self._known_of(name, layout) for value, (name, layout) in pairs}
        self.result: list[Part] = []
        self.nodes: dict[str, OnnxNode] = {}

    def _number_of_images(self) -> int:
        """How many images the graph takes; 0 for any number."""
        counts = {shape[0] for shape in self.graph.inputs.values() if shape and shape[0]}
        if len(counts) > 1:
            raise self.graph.refused("inputs", f"{excerpt(sorted(counts))} images", "as many for each input")
        return counts.pop() if counts else 0

    def shape_of(self, name: str) -> tuple[int | None, ...] | None:
        """The shape of an input, channels first and without the number of images; None if nothing of it is told."""
        sizes = dict(zip(self.layouts[name], self.graph.inputs[name] or (), strict=False))
        axes = ROWS if self.layouts[name] == ROWS else FIRST[self.rank]
        shape = tuple(sizes.get(axis) for axis in axes[1:])
        return shape if any(shape) or len(self.inputs) > 1 else None

    def _known_of(self, name: str, layout: str) -> Known:
        channels, *inner = self.shape_of(name) or (None,)
        size = tuple(n or 0 for n in inner)
        return Known(channels or 0, size if size and all(size) else None, layout == ROWS)

    def _layout_of(self, name: str, shape: Sequence[int | None] | None) -> str:
        """NCHW, unless all that is done with the image is to move its channels from the end to the front."""
        if shape is not None and not 2 <= len(shape) <= 5:
            got = f"values of {len(shape)} axes"
            raise self.graph.refused(f"input {excerpt(name)}", got, "images, or rows of numbers")
        if shape is not None and len(shape) == 2:
            return ROWS
        rank = 2 if shape is None else len(shape) - 2
        return (LAST if self._moved(name) else FIRST)[rank]

    def _moved(self, name: str) -> bool:
        """Whether all that is done with a value is to move its channels from the end to the front."""
        takers = self.takers.get(name, [])
        orders = [node.options.get("perm") or [] for node in takers if node.operator == "Transpose"]
        moved = [tuple(order) == to_first(len(order) - 2) for order in orders if len(order) > 2]
        if len(moved) < len(takers):
            return False
        return name not in self.graph.results and bool(moved) and all(moved)

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
        self._results()
        parts = _named_apart(with_numbers(with_activations(self.result)))
        flow = Flow(self.inputs)
        for value, layout in zip(self.inputs, self.layouts.values(), strict=True):
            flow.values[value] = len(layout), self.known[value].channels
        for part in parts:
            if isinstance(part.layer, Outputs):
                continue
            node = self.nodes[part.value]
            if isinstance(part.layer, Elementwise):
                got = f"an operation {node.operator} that is part of no activation convlab knows"
                raise self.graph.refused(node, got, "one of its activations", self._around(node))
            check_flow(f"{self.graph.file}: {node}", part, flow)
        return parts

    def _results(self) -> None:
        """Add the part that gives several results; a lone one is that of the last part.

        Raises:
            ModelFileError: one is no result of a model.
        """
        for name in self.graph.results:
            if name not in self.values:
                raise self.graph.refused(f"result {excerpt(name)}", "a constant", "what the image becomes")
            layout = self.values[name].layout
            if not self.result or layout not in (*LAYOUTS, TOKENS_LAST):
                raise self.graph.refused("graph", f"a result {layout}" if self.result else "no layer", "a model")
            if layout == TOKENS_LAST:
                node = next(node for node in self.graph.nodes if name in node.outputs)
                operation = self._operation(node, (), self.values[name])
                self._append(node, [Tokens()], [self.values[name]], operation, name)
        names = tuple(self.values[result].name for result in self.graph.results)
        self._check_needed(names)
        self.result = giving(self.result, names, native=lambda layer: None)

    def _check_needed(self, results: Sequence[str]) -> None:
        """Refuse layers that the results don't need: they would be run unseen."""
        by_value = {part.value: part for part in self.result}
        needed = {*inputs_first(results, lambda value: by_value[value].inputs if value in by_value else ())}
        for value, node in self.nodes.items():
            if value not in needed:
                hint = "leave it out when the model is exported"
                raise self.graph.refused(node, "a result that isn't needed", "a graph of one result", hint)

    def _around(self, node: OnnxNode) -> str:
        """What stands before and behind a node, in words."""
        before = [str(each) for each in self.graph.nodes if {*each.outputs} & {*node.inputs}]
        after = [str(each) for each in self.graph.nodes if {*node.outputs} & {*each.inputs}]
        takes = f"the result of {' and '.join(before[:3])}" if before else "the image"
        gives = f"{' and '.join(after[:3])} takes its own" if after else "its own is the model's"
        return f"it takes {takes}, and {gives}"

    def _node(self, node: OnnxNode) -> None:
        if node.operator not in OPERATORS and node.operator not in ARRANGING and node.operator not in FOLDED:
            quantised = " (of a quantised model)" if "uantize" in node.operator or "Integer" in node.operator else ""
            known = ", ".join(sorted({*OPERATORS, *ARRANGING, *FOLDED}))
            raise UnsupportedError(f"got an operator{quantised} that convlab doesn't know, expected one of {known}")
        inputs = tuple(self.constants.get(name, self.values.get(name)) for name in node.inputs)
        values = [each for each in inputs if isinstance(each, Value)]
        extra = [name for name in node.outputs[1:] if name in self.takers]
        if extra and node.operator != "Split":
            raise UnsupportedError(f"got further results {excerpt(extra)} that are taken, expected one")
        operation = self._operation(node, inputs, values[0] if values else None)
        if node.operator in FOLDED and (not values or node.operator == "Shape"):
            self._fold(node, operation)
            return
        if not values:
            raise UnsupportedError("got constants alone, expected a value")
        if {value.layout for value in values} != {operation.layout}:
            raise UnsupportedError(f"got axes {' and '.join(value.layout for value in values)}, expected the same")
        reader = OPERATORS.get(node.operator) or ARRANGING.get(node.operator)
        if reader is None:
            raise UnsupportedError("got it on what is computed from the image, expected constants")
        taken = (FIRST[self.rank], LAST[self.rank], ROWS)
        layouts = (*taken, GROUPS) if node.operator == "InstanceNormalization" else taken
        layouts = (*layouts, TOKENS, TOKENS_LAST) if node.operator in OF_TOKENS else layouts
        if node.operator in OPERATORS and operation.layout not in layouts:
            raise UnsupportedError(f"got values with axes {operation.layout}, expected one of {', '.join(taken)}")
        for operation.result, name in enumerate(node.outputs):
            if not name or (name not in self.takers if node.operator == "Split" else operation.result):
                continue
            layers = _checked(reader, operation)
            first = layers[0] if layers else None
            count = first.values if isinstance(first, Elementwise) else 1
            if len(values) != count and not isinstance(first, Joining):
                raise UnsupportedError(f"got {len(values)} values that are computed, expected {count}")
            self._append(node, layers, values, operation)

    def _operation(self, node: OnnxNode, inputs: tuple[Any, ...], first: Value | None) -> Operation:
        results = len(node.outputs)
        if first is None:
            return Operation(node.options, inputs, Known(), batch=self.batch, rank=self.rank, results=results)
        of_first = self.known[first.name], first.layout, first.groups, first.image or first.name
        of_graph = self.batch, self._moved(node.outputs[0]), self.rank
        return Operation(node.options, inputs, *of_first, *of_graph, results=results)

    def _fold(self, node: OnnxNode, operation: Operation) -> None:
        array = _checked(FOLDED[node.operator], operation)
        if not any(np.may_share_memory(array, each) for each in operation.inputs if isinstance(each, np.ndarray)):
            self._allow(array.nbytes)
        name = node.outputs[0]
        self.constants[name] = array
        self.origins[name] = next((self.origins[each] for each in node.inputs if each in self.origins), name)

    def _allow(self, size: int) -> None:
        self.allowed -= size
        if self.allowed < 0:
            raise UnsupportedError("got more numbers than the file has, expected weights of few layers to be the same")

    def _append(
        self, node: OnnxNode, layers: Sequence[Layer], values: Sequence[Value], operation: Operation, result: str = ""
    ) -> None:
        inputs = tuple(value.name for value in values)
        for layer in layers:
            value = str(len(self.result))
            self.nodes[value] = node
            self._allow(bytes_of(layer))
            if not isinstance(layer, Elementwise):
                check_options(f"{self.graph.file}: {node}", layer)
            self.known[value] = known_after(layer, [self.known[each] for each in inputs])
            self.result.append(Part(self._path(node, layer), None, layer, node.operator, inputs, value))
            inputs = (value,)
        image = operation.image if operation.groups else ""
        self.values[result or node.outputs[operation.result]] = Value(
            inputs[0], operation.layout, operation.groups, image
        )

    def _path(self, node: OnnxNode, layer: Layer) -> str:
        """The name of the layer in the model that was exported, as far as names in the file tell."""
        # PyTorch names nodes by modules, /layer1/layer1.0/conv1/Conv; its initialisers may belong to several layers.
        name = node.name[:LONGEST_PATH]
        own = re.sub(rf"[./]?{re.escape(node.operator)}(_\d+)?$", "", name)
        if layer.arrays and not own.startswith("/"):
            arrays = [self.origins[each][:LONGEST_PATH] for each in node.inputs if each in self.origins]
            named = next((match for each in arrays if (match := _WEIGHTS.fullmatch(each))), None)
            if named:
                return named[1].replace("/", ".")
        path: list[str] = []
        for scope in filter(None, _AROUND.sub("", own or name).split("/")):
            if path and scope.startswith(f"{path[-1]}."):
                path.pop()
            path.append(scope)
        return ".".join(path) or name


def _checked(reader: Callable[[Operation], Any], operation: Operation) -> Any:
    """What a reader makes of an operation, whose attributes and constants may be anything."""
    try:
        return reader(operation)
    except ConvlabError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        got = f"attributes {excerpt(operation.options)} and constants that don't fit ({excerpt(str(error))})"
        raise UnsupportedError(f"got {got}, expected those of ONNX's definition") from error


def _named_apart(parts: Sequence[Part]) -> list[Part]:
    """The parts, with the operator behind names that others have, too, or that are of what others are in."""
    paths = [part.path for part in parts]
    taken = {name for name, count in Counter(paths).items() if count > 1}
    taken |= {path[:place] for path in paths for place, letter in enumerate(path) if letter == "."}
    return [replace(part, path=f"{part.path}.{part.note.lower()}") if part.path in taken else part for part in parts]
