"""ONNX files of models; onnxruntime runs each one, and its results are checked before the file is kept."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ....errors import ModelError, ModelFileError, PortError
from ....page.page import listed
from ....registry import pip_command
from ....truth.bounds import worst_ratio
from ...adapters import as_input
from ...compare.random_images import grid, random_images
from ...layers.activations import Activation, PReLU, Softmax
from ...layers.arguments import input_name
from ...layers.inputs import ONE_IMAGE, Batch, Inputs, given_values, rounded_batch
from ...layers.layer import BatchNorm, Dense, Dropout, dtype_of
from ...layers.norms import ChannelAffine, LayerNorm, RMSNorm
from ...layers.outputs import Outputs, in_rows
from ...layers.ranks import rank_of
from ...layers.reading import INPUT, Model, Part
from ...layers.shapes import Known, known_after
from ...layers.spatial import Size
from ...layers.steps import carried, steps
from ..canonical import canonical
from .nodes import NODES

# onnxruntime has had these since its version 1.17.
OPSET, IR_VERSION = 20, 9
# A file of protobuf can have no more bytes.
_LARGEST = 2**31 - 2**20
_AXES = dict(enumerate(("NC", "NCL", "NCHW", "NCDHW"), 2))
_DTYPES = ("float16", "float32", "float64")


def export(
    parts: Sequence[Part], path: Path, name: str = "", size: Size | None = None, inputs: Inputs = ONE_IMAGE
) -> None:
    """Write a model's layers as a graph from "X" (N, C, H, W) to "Y", or to "Y0", "Y1", … or the names of its results.

    Several inputs have their own names. `name` is the path for messages, `size` the only rows and columns of images
    that the model is for, and the inputs are as in `convlab.models.layers.reading.Model`.

    Raises:
        ModelError: ONNX or onnxruntime has no such layer.
        PortError: onnxruntime computes something else.
        ModelFileError: `onnx` or `onnxruntime` isn't installed.
    """
    name = name or str(path)
    onnx, runtime = _package("onnx", name), _package("onnxruntime", name)
    graph = _Graph(onnx, name, canonical(parts), size, inputs)
    proto = graph.model()
    onnx.checker.check_model(proto, full_check=True)
    data = proto.SerializeToString(deterministic=True)
    _prove(runtime, data, graph)
    path.write_bytes(data)


def _package(package: str, name: str) -> Any:
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise ModelFileError(
            f"{name}: got no package {package}, which .onnx files need.", hint=pip_command("onnx", "onnxruntime")
        ) from error


class _Graph:
    """Layers as the nodes of a graph of ONNX.

    Attributes:
        name: the file's path, for messages.
        layers: what is computed.
        dtype: the dtype that it is computed in.
        last, others: the values that the next layer takes.
        read: the layers, as a model of no framework.
        names: of the inputs, by their values.
        size: the only rows and columns of images; None for any.
    """

    def __init__(self, onnx: Any, name: str, parts: Sequence[Part], size: Size | None, inputs: Inputs) -> None:
        self.onnx, self.name, self.parts, self.size = onnx, name, parts, size
        self.read = Model("", [*parts], True, None, inputs=inputs)
        self.layers = layers = [part.layer for part in parts if part.layer is not None]
        self.nodes: list[Any] = []
        self.others: list[str] = []
        self.constants: list[Any] = []
        self.dtype = self._dtype()
        # These layers take images and rows of numbers; the first of the others tells the rank of the input.
        either = (Activation, PReLU, BatchNorm, LayerNorm, RMSNorm, ChannelAffine, Dropout, Softmax)
        self.flat = isinstance(next((each for each in layers if not isinstance(each, either)), None), Dense)
        self.last, self.number, self.rank = "X", 0, 2 if self.flat else rank_of(layers) + 2
        # The name and the rank of each value.
        self.values = {INPUT: (self.last, self.rank)}
        self.known = {INPUT: Known()}
        if len(inputs) > 1:
            self.known = given_values(self.read, size)
            ranks = {value: 2 if each.rows else rank_of(layers) + 2 for value, each in self.known.items()}
            self.values = {value: (input_name(value), rank) for value, rank in ranks.items()}
        self.names = {value: name for value, (name, _) in self.values.items()}
        self.results: list[Any] = []

    def _dtype(self) -> str:
        common = ""
        for number, layer in enumerate(self.layers):
            if layer.arrays:
                own = dtype_of(layer)
                if own not in _DTYPES or own != (common or own):
                    raise self.refused(
                        number, f"dtype {own}", f"one of {', '.join(_DTYPES)} and the same for all layers"
                    )
                common = own
        return common or "float32"

    def refused(self, number: int, got: str, expected: str) -> ModelError:
        """The error that names a layer."""
        return ModelError(
            f"{self.name}: layer {number}, {self.layers[number].kind}: got {got}, expected {expected}.",
            hint="save it as .safetensors.",
        )

    def model(self) -> Any:
        """The whole file, as ONNX's own object."""
        for number, (part, layer) in enumerate(zip(self.parts, self.layers, strict=True)):
            self.number = number
            if isinstance(layer, Outputs):
                self._results(part, layer)
                break
            self.others = [self.values[value][0] for value in part.inputs[1:]]
            self.last, self.rank = self.values[part.inputs[0]]
            if type(layer) not in NODES:
                raise self.refused(number, layer.kind, "a layer that ONNX has, too")
            NODES[type(layer)](self, layer)
            self.values[part.value] = self.last, self.rank
            self.known[part.value] = known_after(layer, [self.known[value] for value in part.inputs])
        else:
            self._result("Y")
        helper = self.onnx.helper
        given = [helper.make_tensor_value_info(name, self._kind(), axes) for name, axes in self._inputs()]
        graph = helper.make_graph(self.nodes, "convlab", given, self.results, self.constants)
        if graph.ByteSize() > _LARGEST:
            raise ModelFileError(
                f"{self.name}: got a model of {graph.ByteSize()} bytes, expected fewer than 2 GiB, ONNX's limit.",
                hint="save it as .safetensors.",
            )
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="convlab")

    def _inputs(self) -> Iterator[tuple[str, list[Any]]]:
        """The names and the axes of the inputs: of several each has its own, but for the number of images."""
        if len(self.read.inputs) == 1:
            axes = _AXES[self.values[INPUT][1]]
            yield "X", [*axes[:2], *(self.size or axes[2:])]
            return
        for value, known in given_values(self.read, self.size).items():
            axes = _AXES[2 if known.rows else rank_of(self.layers) + 2]
            own = [f"{axis}_{input_name(value)}" for axis in axes[1:]]
            yield input_name(value), ["N", known.channels or own[0], *(known.size or own[1:])]

    def _results(self, part: Part, layer: Outputs) -> None:
        """Give several results, by their names where they have some."""
        names = layer.names or [f"Y{number}" for number in range(len(part.inputs))]
        computed = (name for node in self.nodes for name in node.output)
        inside = {*self.names.values(), *(each.name for each in self.constants), *computed}
        for value, name in zip(part.inputs, names, strict=True):
            if name in inside:
                raise self.refused(self.number, f"a result called {name!r}", "another name")
            self.last, self.rank = self.values[value]
            self._result(name)

    def _result(self, name: str) -> None:
        """Give the last value as a result of a name."""
        if name in self.names.values():
            raise self.refused(self.number, f"an input and a result called {name!r}", "a name for each")
        behind = "_out" if name == "Y" else f"_{name}"
        self.node("Identity", output=name)
        axes = ["N", *(f"{axis}{behind}" for axis in _AXES[self.rank][1:])]
        self.results.append(self.onnx.helper.make_tensor_value_info(name, self._kind(), axes))

    def _kind(self) -> int:
        return int(self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype)))

    def channels(self) -> int:
        """The channels of what the layer takes."""
        channels = self.known[self.parts[self.number].inputs[0]].channels
        if not channels:
            raise self.refused(self.number, "images of any number of channels", "a layer before it that tells them")
        return channels

    def constant(self, name: str, value: Any, dtype: str = "") -> str:
        """Add an array; its name in the graph comes back."""
        full = f"{self.number}.{name}"
        array = np.ascontiguousarray(np.asarray(value, dtype or self.dtype))
        self.constants.append(self.onnx.numpy_helper.from_array(array.reshape(np.shape(value)), full))
        return full

    def node(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> None:
        """Add an operation on the last result."""
        output = output or f"{self.number}.{len(self.nodes)}"
        node = self.onnx.helper.make_node(kind, [self.last, *inputs], [output], **attributes)
        before = sum(each.name.startswith(f"{self.number}.{kind}") for each in self.nodes)
        node.name = f"{self.number}.{kind}" + (f".{before}" if before else "")
        self.nodes.append(node)
        self.last = output


def _prove(runtime: Any, data: bytes, graph: _Graph) -> None:
    """Run the file on random images of odd and even sizes, within the rounding bounds of its layers.

    Raises:
        PortError: a result is outside.
    """
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        for images in _images(graph):
            batch = rounded_batch(images, graph.dtype)
            fed = {graph.names[value]: x.astype(graph.dtype) for value, x in batch.items()}
            result = in_rows(as_input(tuple(session.run(None, fed))))
            true, off = carried(steps(graph.read), batch, graph.dtype)
            ratio = worst_ratio(result, true, off) if result.shape == true.shape else np.inf
            if ratio > 1:
                shapes = listed([str(x.shape) for x in batch.values()])
                raise PortError(
                    f"{graph.name}: on an image of shape {shapes} onnxruntime's result of shape {result.shape} is off "
                    f"by {ratio:.3g} times what rounding allows, expected shape {true.shape} and at most 1.",
                    hint="this is convlab's fault or onnxruntime's; nothing was written.",
                )
    except (runtime.capi.onnxruntime_pybind11_state.NotImplemented, *_failures(runtime)) as error:
        why = " ".join(str(error).split()).rpartition(" : ")[2]
        # A node without a number has the name of the output.
        node = re.search(r"name:? ?'\D*(\d+)\.", why, re.IGNORECASE)
        number = int(node[1]) if node else len(graph.layers) - 1
        raise graph.refused(number, f"{graph.dtype} ({why})", "what onnxruntime runs") from error


def _failures(runtime: Any) -> list[type[Exception]]:
    names = ("Fail", "InvalidArgument", "InvalidGraph", "RuntimeException")
    return [getattr(runtime.capi.onnxruntime_pybind11_state, name) for name in names]


def _images(graph: _Graph) -> list[Batch]:
    rng = np.random.default_rng(0)
    if graph.flat and len(graph.read.inputs) == 1:
        inputs = next(each.kernel.shape[1] for each in graph.layers if isinstance(each, Dense))
        return [{INPUT: grid(rng, (n, inputs))} for n in (1, 4)]
    batches = random_images(steps(graph.read), 0, graph.size, inputs=graph.read.inputs)
    # A flattening before all else tells neither channels nor pixels: each number is a channel of one pixel.
    axes = {value: graph.values[value][1] for value in graph.names}
    return [
        {value: x.reshape(*x.shape, *(1,) * (axes[value] - x.ndim)) for value, x in each.items()} for each in batches
    ]
