"""The graph in an ONNX file, checked before anything is made of it; the package `onnx` isn't needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ....errors import ModelFileError
from ..fields import excerpt
from .messages import MODEL, refused, tensor_array
from .protobuf import parsed

# Of the package onnx 1.23. What convlab reads computes the same in all of them.
OPSETS = range(13, 29)
_NEWEST_IR = 14
# A file of protobuf can have no more bytes.
LARGEST_FILE = 2**31
_MOST_INPUTS = _MOST_RESULTS = 1000
_DOMAINS = ("", "ai.onnx")

# By ONNX's number of an attribute's type: where its value is.
_ATTRIBUTE_FIELDS = {1: "f", 2: "i", 3: "s", 4: "t", 5: "g", 6: "floats", 7: "ints"}


class OnnxNode(NamedTuple):
    """An operation.

    Attributes:
        name: its own name, or that of its result.
        operator: what it does, with its domain if that isn't ONNX's own.
        inputs, outputs: names of values; "" for one that is left out.
        options: its attributes; a graph is None.
    """

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    options: dict[str, Any]

    def __str__(self) -> str:
        return f"node {excerpt(self.name)} ({excerpt(self.operator)[1:-1]})"


@dataclass(frozen=True, eq=False)
class Graph:
    """A model's operations.

    Attributes:
        file: its path, for messages.
        nodes: in order, each behind the ones whose results it takes.
        constants: arrays by name.
        inputs: the names of the values that it takes, and their shapes: None for a size that may vary, and for a shape
            that isn't told.
        results: the names of the values that it gives.
    """

    file: str
    nodes: list[OnnxNode]
    constants: dict[str, np.ndarray]
    inputs: dict[str, tuple[int | None, ...] | None]
    results: tuple[str, ...]

    def refused(self, where: object, got: str, expected: str, hint: str = "") -> ModelFileError:
        """The error for a place in the file."""
        return refused(f"{self.file}: {where}", got, expected, hint)


def read_graph(path: Path) -> tuple[Graph, bytes]:
    """The graph in a file, and the file's bytes.

    Raises:
        ModelFileError: it can't be read, or isn't such a file; the message names the node.
    """
    name = str(path)
    try:
        if path.exists() and not path.is_file():
            raise OSError("it is no file")
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise ValueError(f"{size} bytes, more than 2 GiB")
        data = path.read_bytes()
        model = parsed(memoryview(data), MODEL)
    except FileNotFoundError:
        raise ModelFileError(f"{name}: no such file, expected an ONNX file.", hint="check the path.") from None
    except (OSError, ValueError) as error:
        why = f"a file that can't be read ({type(error).__name__}: {excerpt(str(error))})"
        hint = "it may be another kind of file, or have been cut off"
        raise refused(name, why, "an ONNX model", hint) from error
    _check_versions(name, model)
    return _Checking(name).graph(model["graph"]), data


def _check_versions(name: str, model: Mapping[str, Any]) -> None:
    if "graph" not in model or "ir_version" not in model:
        raise refused(name, "no graph", "an ONNX model", "it may be another kind of file")
    if not 0 < model["ir_version"] <= _NEWEST_IR:
        hint = "a newer convlab may read it"
        raise refused(name, f"IR version {model['ir_version']}", f"at most {_NEWEST_IR}", hint)
    versions = [each.get("version", 0) for each in model["opsets"] if each.get("domain", "") in _DOMAINS]
    if len(versions) != 1 or versions[0] not in OPSETS:
        hint = f"onnx.version_converter.convert_version(model, {OPSETS[-1] - 4}) makes one of an older one"
        expected = f"one of ONNX's own, from {OPSETS[0]} to {OPSETS[-1]}"
        raise refused(name, f"the opsets {excerpt(versions)}", expected, hint)
    if model["functions"]:
        hint = "onnx.inliner.inline_local_functions puts them into the graph"
        raise refused(name, f"{len(model['functions'])} functions of the model's own", "operators alone", hint)


class _Checking:
    """A message of a graph on its way to a graph that is safe to read."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.constants: dict[str, np.ndarray] = {}

    def graph(self, graph: Mapping[str, Any]) -> Graph:
        if graph["sparse"]:
            raise refused(self.name, "sparse initialisers", "dense ones")
        for tensor in graph["initialisers"]:
            where = f"{self.name}: initialiser {excerpt(tensor.get('name', ''))}"
            if tensor.get("name", "") in {"", *self.constants}:
                raise refused(where, "its name twice or none", "a name of its own for each value")
            self.constants[tensor["name"]] = tensor_array(where, tensor)
        inputs = [each for each in graph["inputs"] if each.get("name") not in self.constants]
        names, results = ([each.get("name", "") for each in values] for values in (inputs, graph["outputs"]))
        if not 1 <= len(names) <= _MOST_INPUTS or len({*names}) < len(names):
            raise refused(self.name, f"{len(names)} inputs {excerpt(names)}", f"1 to {_MOST_INPUTS} names")
        if not 1 <= len(results) <= _MOST_RESULTS or len({*results}) < len(results):
            raise refused(self.name, f"{len(results)} outputs {excerpt(results)}", f"1 to {_MOST_RESULTS} names")
        nodes = [self._node(node, number) for number, node in enumerate(graph["nodes"])]
        self._check_order(nodes, [*names, *self.constants], results)
        shapes = dict(zip(names, map(_shape, inputs), strict=True))
        return Graph(self.name, nodes, self.constants, shapes, tuple(results))

    def _node(self, node: Mapping[str, Any], number: int) -> OnnxNode:
        outputs, domain = tuple(node["outputs"]), node.get("domain", "")
        name = node.get("name") or next(iter(outputs), "") or f"number {number}"
        operator = node.get("operator", "") if domain in _DOMAINS else f"{domain}.{node.get('operator', '')}"
        bare = OnnxNode(name, operator, tuple(node["inputs"]), outputs, {})
        if not any(outputs):
            raise refused(f"{self.name}: {bare}", "no result", "one")
        options: dict[str, Any] = {}
        for attribute in node["attributes"]:
            key = attribute.get("name", "")
            if key in options:
                raise refused(f"{self.name}: {bare}", f"the attribute {excerpt(key)} twice", "it once")
            options[key] = self._attribute(bare, attribute)
        return bare._replace(options=options)

    def _attribute(self, node: OnnxNode, attribute: Mapping[str, Any]) -> Any:
        where = f"{self.name}: {node}: {excerpt(attribute.get('name', ''))}"
        field = _ATTRIBUTE_FIELDS.get(attribute.get("type", 0), "")
        value = attribute.get(field)
        if field == "t" and value is not None:
            return tensor_array(where, value)
        if field == "s" and value is not None:
            return str(value, "utf-8", "replace")
        if field == "floats":
            return np.concatenate([*(value or []), np.zeros(0, "f4")]).tolist()
        if field == "f":  # The shortest decimal, as the exporter had it: 1e-5, not 9.99999975e-06.
            return float(str(np.float32(value or 0)))
        if field == "i":  # What is 0 needn't be written.
            return value or 0
        return value if field == "ints" else None

    def _check_order(self, nodes: Sequence[OnnxNode], given: Sequence[str], results: Sequence[str]) -> None:
        """Check that each value is given once, and before it is taken."""
        later = {output for node in nodes for output in node.outputs}
        values = {*given}
        for node in nodes:
            for value in filter(None, node.inputs):
                if value not in values:
                    why = "a later node gives, in a circle or out of order" if value in later else "nothing gives"
                    got = f"the value {excerpt(value)}, which {why}"
                    raise refused(f"{self.name}: {node}", got, "a value that a node before it gives")
            for value in filter(None, node.outputs):
                if value in values:
                    raise refused(f"{self.name}: {node}", f"the value {excerpt(value)} again", "a name of its own")
                values.add(value)
        for result in results:
            if result not in values:
                raise refused(self.name, f"the result {excerpt(result)}, which nothing gives", "a node's result")


def _shape(value: Mapping[str, Any]) -> tuple[int | None, ...] | None:
    shape = value.get("type", {}).get("tensor", {}).get("shape")
    return None if shape is None else tuple(max(dim.get("size", 0), 0) or None for dim in shape["dim"])
