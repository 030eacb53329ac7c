"""The nodes of MXNet's symbols on their way to the parts of a model, without MXNet."""

from __future__ import annotations

from ast import literal_eval
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ....errors import UnsupportedError
from ...layers.activations import Activation, Affine
from ...layers.arguments import input_values
from ...layers.flattening import Flatten, Unflatten
from ...layers.joining import Concatenate, Divide, Joining, Multiply
from ...layers.layer import Dense, Layer
from ...layers.pooling import ChannelPool, GlobalPool
from ...layers.reading import INPUT, Part, giving
from ...layers.shapes import channels_at, gives_rows
from ...layers.tokens import Anchors, ConcatenatePixels, Tokens
from ..fields import excerpt
from ..neutral import LONGEST_PATH
from .operators import EXPAND_DIMS, LEARNED, NOTHING, OPERATORS, UNIT
from .tokens import (
    ANYWHERE,
    IMAGES,
    LAST,
    PIXELS,
    TOKENS,
    axes_joined,
    channels_of_tokens,
    moved,
    parts_of_channels,
    softmax_of_tokens,
)

_LONGEST_OPTION = 200

# What variables have that an optimiser changes.
_LEARNS = {"__lr_mult__", "__wd_mult__", "__init__"}


class SymbolReading:
    """A symbol's nodes on their way to parts; an adapter that has the blocks behind the nodes overrides the methods.

    Attributes:
        parameters: by name.
        values: the name of each node's value, by its number.
        rows: the values that are rows of numbers.
        expanded: the values that were rows of numbers before an axis was added.
        result: the parts.
        axes: those of nodes that moved the axes of images, by the nodes' numbers: see `tokens.py`.
        pieces: the values that stand behind each other in such a node.
        places: the number of the node of each part, by the part's value.
    """

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self.parameters = parameters
        self.inputs: tuple[str, ...] = (INPUT,)
        self.values: dict[int, str] = {}
        self.rows: set[str] = set()
        self.expanded: set[str] = set()
        self.result: list[Part] = []
        self.axes: dict[int, str] = {}
        self.pieces: dict[int, list[str]] = {}
        self.places: dict[str, int] = {}

    def array(self, name: str) -> np.ndarray:
        """A parameter's numbers."""
        return np.asarray(self.parameters[name])

    def path(self, node: str) -> str:
        """The path of a node's layer."""
        return node.removesuffix("_fwd")[:LONGEST_PATH]

    def native(self, path: str, layer: Layer, parameters: Sequence[str]) -> tuple[str, Any]:
        """The path of a layer with these parameters, and what computes it."""
        weights = [name.rpartition("_") for name in parameters]
        named = next((stem for stem, _, array in weights if stem and array in ("weight", "gamma")), path)
        return named[:LONGEST_PATH], None

    def native_of(self, layer: Layer) -> Any:
        """What computes a layer that is a piece of an operator."""
        return None

    def block(self, node: str) -> Part | None:
        """The block that a node stands for as a whole; None for one of MXNet's operators."""
        return None

    def of(
        self,
        nodes: Sequence[Mapping[str, Any]],
        heads: Sequence[int],
        names: tuple[str, ...] = (),
        arguments: Sequence[str] = (),
    ) -> list[Part]:
        """The parts, of which the last gives the value of the head, or the values of several, which may have names.

        Args:
            nodes: of the symbol, as its file has them.
            heads: the numbers of the nodes that give the results.
            names: of the results.
            arguments: the names of the nodes that are given values, in order; that of the nodes if there are none.

        Raises:
            UnsupportedError: an operator isn't known, or takes an array that isn't among the parameters.
        """
        self._take_inputs(nodes, arguments)
        for number, node in enumerate(nodes):
            if node["op"] != "null":
                self._operator(number, node, nodes)
        if not self.values.keys() >= {*heads}:
            raise UnsupportedError("it gives a parameter, and nothing of the image")
        results = [self._as_result(head, nodes[head]) for head in heads]
        return giving(self.result, results, self.native_of, names)

    def _take_inputs(self, nodes: Sequence[Mapping[str, Any]], arguments: Sequence[str]) -> None:
        """Note which nodes are given values: what is neither computed, nor a parameter, nor for training."""
        learned = {each[0] for node in nodes if node["op"] in LEARNED for each in node["inputs"][1:]}
        given: dict[str, int] = {}
        for number, node in enumerate(nodes):
            name = node["name"]
            if node["op"] != "null" or name in self.parameters or name.endswith("_label"):
                continue
            if number in learned or _LEARNS.intersection(node.get("attrs") or ()) or name not in (arguments or [name]):
                raise UnsupportedError(f"it takes more than one array: {excerpt(name)} isn't a parameter")
            given[name] = number
        names = [*arguments] or [*given]
        self.inputs = input_values(names)
        self.values |= {given[name]: value for name, value in zip(names, self.inputs, strict=True) if name in given}

    def _operator(self, number: int, node: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]]) -> None:
        given = [each[0] for each in node["inputs"]]
        options = {key: _literal(value) for key, value in (node.get("attrs") or node.get("param") or {}).items()}
        sources = [each for each in given if each in self.values]
        if len(given) == len(sources) and self._is_moved(number, node, options, sources):
            return
        for each in sources:
            self._flatten(each, node)
        inputs = tuple(self.values[each] for each in sources)
        options["rows"] = all(value in self.rows for value in inputs)
        second = node["op"] == EXPAND_DIMS and inputs and inputs[0] in self.expanded
        if (node["op"] in NOTHING and len(inputs) == 1) or second:
            self._keep(number, self._axes_of(sources[0]), [inputs[0]])
            return
        arrays = [nodes[each]["name"] for each in given if nodes[each]["name"] in self.parameters]
        axes = {self._axes_of(each) for each in sources}
        if node["op"] == UNIT and axes == {IMAGES}:
            self._keep(number, IMAGES, [self._of_length_one(number, node, options, inputs[0])])
            return
        value = self._computed(number, node, options, inputs, arrays, axes)
        self._keep(number, axes.pop(), [value])

    def _computed(
        self,
        number: int,
        node: Mapping[str, Any],
        options: Mapping[str, Any],
        inputs: tuple[str, ...],
        arrays: Sequence[str],
        axes: set[str],
    ) -> str:
        """Add what an operator computes of values and parameters, of which the values' axes are these."""
        operator, path, rows = node["op"], self.path(node["name"]), options["rows"]
        block = self.block(node["name"])
        layer = self._layer(path, operator, options, arrays, axes, block)
        if isinstance(layer, Joining) and layer.takes not in (0, len(inputs)):
            raise UnsupportedError(f"{path}: {operator} of {len(inputs)} values, expected {layer.takes}")
        path, native = (block.path, block.native) if block else self.native(path, layer, arrays)
        if isinstance(layer, Dense) and not rows:
            if options.get("flatten", True):
                inputs = (self._append(node, path, self.native_of(Flatten()), Flatten(), inputs, f"{number}.flatten"),)
            elif len(self.inputs) == 1 or inputs[0] not in self.inputs:
                raise UnsupportedError(f"{path}: it is applied to each row of pixels")
            else:
                self.rows.add(inputs[0])
        if isinstance(layer, GlobalPool) and not layer.keepdims:
            pool = replace(layer, keepdims=True)
            inputs = (self._append(node, path, native, pool, inputs, f"{number}.pool"),)
            native, layer = self.native_of(Flatten()), Flatten()
        value = self._append(node, path, native, layer, inputs, str(number))
        if operator == EXPAND_DIMS:
            self.expanded.add(value)
        if not isinstance(layer, Unflatten) and (rows or gives_rows(layer) or isinstance(layer, (Dense, Flatten))):
            self.rows.add(value)
        return value

    def _of_length_one(self, number: int, node: Mapping[str, Any], options: Mapping[str, Any], value: str) -> str:
        """Add what divides the channels of each pixel, or of each row, by the root of the sum of their squares."""
        mode = options.get("mode", "instance")
        if mode != "channel" and not (mode == "instance" and options["rows"]):
            raise UnsupportedError(f"{self.path(node['name'])}: its mode is {mode!r}, expected 'channel' of images")
        squares = self._further(number, node, Multiply(), [value, value])
        total = self._further(number, node, ChannelPool("sum"), [squares])
        above = self._further(number, node, Affine(shift=float(options.get("eps", 1e-10))), [total])
        length = self._further(number, node, Activation("sqrt"), [above])
        result = self._further(number, node, Divide(), [value, length])
        self.rows |= {squares, total, above, length, result} if options["rows"] else set()
        return result

    def _layer(
        self,
        path: str,
        operator: str,
        options: Mapping[str, Any],
        arrays: Sequence[str],
        axes: set[str],
        block: Part | None,
    ) -> Layer:
        """What an operator or a block computes of values whose axes are these."""
        layer = block.layer if block else None
        try:
            if (operator not in OPERATORS and layer is None) or not axes:
                raise UnsupportedError(f"convlab doesn't know the operator {operator}")
            softmax = softmax_of_tokens(operator, options) if axes == {TOKENS} else None
            layer = layer or softmax or OPERATORS[operator](options, [*map(self.array, arrays)])
            if axes != {IMAGES} and not softmax and (axes != {TOKENS} or not isinstance(layer, ANYWHERE)):
                raise UnsupportedError(f"{operator} takes arrays whose axes were moved")
        except UnsupportedError as error:
            raise UnsupportedError(f"{path}: {error}") from error
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise UnsupportedError(f"{path}: {operator} with the options {excerpt(options)}") from error
        return layer

    def _axes_of(self, number: int) -> str:
        return self.axes.get(number, IMAGES)

    def _is_moved(self, number: int, node: Mapping[str, Any], options: Mapping[str, Any], sources: list[int]) -> bool:
        """Whether an operator only moves the axes of images, makes tokens of them or joins such, and has been read."""
        operator, axes = node["op"], self._axes_of(sources[0]) if sources else IMAGES
        if {*map(self._axes_of, sources)} != {axes} or self.rows.intersection(self.values[each] for each in sources):
            return False
        pieces = [value for each in sources for value in self.pieces.get(each, [self.values[each]])]
        if len(sources) > 1 and (after := axes_joined(operator, options, axes)) is not None:
            self._keep(number, after, pieces if axes == PIXELS else [self._joined(number, node, pieces)])
        elif len(sources) == 1 and (count := parts_of_channels(operator, options, axes)):
            self._keep(number, LAST, [self._further(number, node, Anchors(count), pieces)])
        elif len(sources) == 1 and (after := moved(operator, options, axes)) is not None:
            self._keep(number, after, pieces)
        elif len(sources) == 1 and (channels := channels_of_tokens(operator, options, axes)):
            boxes = [self._boxes(number, node, value, channels) for value in pieces]
            self._keep(number, TOKENS, [self._joined(number, node, boxes)])
        else:
            return False
        return True

    def _keep(self, number: int, axes: str, pieces: list[str]) -> None:
        self.values[number] = pieces[0]
        if axes != IMAGES:
            self.axes[number], self.pieces[number] = axes, pieces

    def _boxes(self, number: int, node: Mapping[str, Any], value: str, channels: int) -> str:
        """The value that the tokens of so many channels are, one or several for each pixel of an image."""
        count, rest = divmod(channels_at(self.result, value), channels)
        if rest or not count:
            raise UnsupportedError(f"{self.path(node['name'])}: it makes rows of {channels} numbers of other images")
        return value if count == 1 else self._further(number, node, Anchors(count), [value])

    def _joined(self, number: int, node: Mapping[str, Any], values: list[str]) -> str:
        return values[0] if len(values) == 1 else self._further(number, node, ConcatenatePixels(), values)

    def _flatten(self, number: int, node: Mapping[str, Any]) -> None:
        """Make rows of what a node has flattened pixel by pixel, once it is taken as rows."""
        if self.axes.get(number) == PIXELS:
            rows = [self._further(number, node, Flatten("HWC"), [value]) for value in self.pieces[number]]
            self.values[number] = rows[0] if len(rows) == 1 else self._further(number, node, Concatenate(), rows)
            self.rows |= {*rows, self.values[number]}
            del self.axes[number]

    def _as_result(self, number: int, node: Mapping[str, Any]) -> str:
        """The value that a node gives as a result of the model."""
        self._flatten(number, node)
        if self._axes_of(number) not in (IMAGES, TOKENS):
            raise UnsupportedError(f"its result has the axes {self._axes_of(number)}")
        value = self.values[number]
        return self._further(number, node, Tokens(), [value]) if number in self.axes else value

    def _further(self, number: int, node: Mapping[str, Any], layer: Layer, values: list[str]) -> str:
        """Add a layer that an operator, with others, is; its value comes back."""
        path = f"{self.path(node['name'])}.{layer.kind}"
        return self._append(
            node, path, self.native_of(layer), layer, tuple(values), f"{number}.{layer.kind}.{len(self.result)}"
        )

    def _append(
        self, node: Mapping[str, Any], path: str, native: Any, layer: Layer, inputs: tuple[str, ...], value: str
    ) -> str:
        note = node["op"] if native is None else type(native).__name__
        self.result.append(Part(path, native, layer, note, inputs, value))
        return value


def _literal(text: str) -> Any:
    try:
        return literal_eval(text) if len(text) < _LONGEST_OPTION else text
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
