"""ONNX files of models; onnxruntime runs each one, and its results are checked before the file is kept."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ModelError, ModelFileError, PortError, UnsupportedError
from ...geometry.geometry import Pads
from ...registry import pip_command
from ...truth.bounds import worst_ratio
from ...truth.precision import rounded
from ..compare.random_images import grid, random_images
from ..layers.activations import Activation, Affine, Softmax
from ..layers.joining import Add, Concatenate, Multiply
from ..layers.layer import BatchNorm, Convolution, Dense, Dropout, Flatten, Layer, Pad, dtype_of
from ..layers.pooling import GlobalPool, Pool
from ..layers.reading import INPUT, Model, Part
from ..layers.steps import carried, steps
from .canonical import canonical

# onnxruntime has had these since its version 1.17.
OPSET, IR_VERSION = 20, 9
# A file of protobuf can have no more bytes.
_LARGEST = 2**31 - 2**20
_PAD_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
_AUTO_PAD = {"same": "SAME_UPPER", "same_lower": "SAME_LOWER"}
_DTYPES = ("float16", "float32", "float64")


def export(parts: Sequence[Part], path: Path, name: str = "") -> None:
    """Write a model's layers as a graph from "X" (N, C, H, W) to "Y"; `name` is the path for messages.

    Raises:
        ModelError: ONNX or onnxruntime has no such layer.
        PortError: onnxruntime computes something else.
        ModelFileError: `onnx` or `onnxruntime` isn't installed.
    """
    name = name or str(path)
    onnx, runtime = _package("onnx", name), _package("onnxruntime", name)
    graph = _Graph(onnx, name, canonical(parts))
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
        flat: whether the input is (N, C).
    """

    def __init__(self, onnx: Any, name: str, parts: Sequence[Part]) -> None:
        self.onnx, self.name, self.parts = onnx, name, parts
        self.layers = layers = [part.layer for part in parts if part.layer is not None]
        self.nodes: list[Any] = []
        self.others: list[str] = []
        self.constants: list[Any] = []
        self.dtype = self._dtype()
        # These layers take images and rows of numbers; the first of the others tells the rank of the input.
        either = (Activation, BatchNorm, Dropout, Softmax)
        self.flat = isinstance(next((each for each in layers if not isinstance(each, either)), None), Dense)
        self.last, self.number, self.rank = "X", 0, 2 if self.flat else 4
        # The name and the rank of each value.
        self.values = {INPUT: (self.last, self.rank)}

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
            self.others = [self.values[value][0] for value in part.inputs[1:]]
            self.last, self.rank = self.values[part.inputs[0]]
            _NODES[type(layer)](self, layer)
            self.values[part.value] = self.last, self.rank
        self.node("Identity", output="Y")
        helper = self.onnx.helper
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        x = helper.make_tensor_value_info("X", kind, ["N", "C"] if self.flat else ["N", "C", "H", "W"])
        y = helper.make_tensor_value_info("Y", kind, ["N", "C_out", "H_out", "W_out"][: self.rank])
        graph = helper.make_graph(self.nodes, "convlab", [x], [y], self.constants)
        if graph.ByteSize() > _LARGEST:
            raise ModelFileError(
                f"{self.name}: got a model of {graph.ByteSize()} bytes, expected fewer than 2 GiB, ONNX's limit.",
                hint="save it as .safetensors.",
            )
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="convlab")

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
        node.name = f"{self.number}.{kind}"
        self.nodes.append(node)
        self.last = output


def _pads(pads: Pads) -> list[int]:
    (top, bottom), (left, right) = pads
    return [top, left, bottom, right]


def _padding(padding: Pads | str) -> dict[str, Any]:
    return {"auto_pad": _AUTO_PAD[padding]} if isinstance(padding, str) else {"pads": _pads(padding)}


def _convolution(graph: _Graph, layer: Convolution) -> None:
    spec, padding = layer.spec, layer.spec.padding
    if spec.padding_mode != "zeros" or spec.padding_value:
        if isinstance(padding, str):
            raise graph.refused(graph.number, f"padding {padding!r} of {spec.padding_mode}", "integers")
        _pad(graph, Pad.before(spec))
        padding = ((0, 0), (0, 0))
    arrays = [graph.constant(name, getattr(layer, name)) for name in layer.arrays if getattr(layer, name) is not None]
    graph.node(
        "Conv",
        *arrays,
        kernel_shape=spec.kernel_size,
        strides=spec.stride,
        dilations=spec.dilation,
        group=spec.groups,
        **_padding(padding),
    )


def _pad(graph: _Graph, layer: Pad) -> None:
    if layer.mode not in _PAD_MODES:
        raise UnsupportedError(f"a border of mode {layer.mode!r} without pooling isn't exported.", hint="leave it out.")
    top, left, bottom, right = _pads(layer.pads)
    sizes = graph.constant("pads", [0, 0, top, left, 0, 0, bottom, right], "int64")
    value = [graph.constant("value", layer.value)] if layer.value else []
    graph.node("Pad", sizes, *value, mode=_PAD_MODES[layer.mode])


# ONNX's own alpha is 0.2; its numbers are float32.
_HARD: dict[str, dict[str, Any]] = {"hard_sigmoid": {"alpha": 1 / 6, "beta": 0.5}}


def _affine(graph: _Graph, layer: Affine) -> None:
    graph.node("Mul", graph.constant("scale", layer.scale))
    graph.node("Add", graph.constant("shift", layer.shift))


def _joined(kind: str) -> Callable[[_Graph, Any], None]:
    def add(graph: _Graph, layer: Layer) -> None:
        others = graph.others
        graph.node(kind, others[0] if others else graph.constant("one", float(kind == "Mul")))
        for other in others[1:]:
            graph.node(kind, other)

    return add


def _activation(graph: _Graph, layer: Activation) -> None:
    function, before = layer.function, graph.last
    if function == "relu6":
        graph.node("Clip", graph.constant("least", 0.0), graph.constant("most", 6.0))
    elif function == "silu":
        graph.node("Sigmoid")
        graph.node("Mul", before)
    elif function in ("gelu", "gelu_tanh"):
        graph.node("Gelu", approximate="tanh" if function == "gelu_tanh" else "none")
    elif function in ("hard_sigmoid", "hard_swish", "mish"):
        graph.node(
            {"hard_sigmoid": "HardSigmoid", "hard_swish": "HardSwish", "mish": "Mish"}[function],
            **_HARD.get(function, {}),
        )
    elif function in ("leaky_relu", "elu"):
        graph.node("LeakyRelu" if function == "leaky_relu" else "Elu", alpha=layer.parameter)
    else:
        graph.node(function.title())


def _pool(graph: _Graph, layer: Pool) -> None:
    own: dict[str, Any] = {"count_include_pad": int(layer.count_padding)} if layer.function == "average" else {}
    graph.node(
        "AveragePool" if layer.function == "average" else "MaxPool",
        kernel_shape=layer.size,
        strides=layer.stride,
        ceil_mode=int(layer.ceil),
        **_padding(layer.padding),
        **own,
    )


def _global_pool(graph: _Graph, layer: GlobalPool) -> None:
    graph.node("GlobalAveragePool" if layer.function == "average" else "GlobalMaxPool")
    if not layer.keepdims:
        _flatten(graph, Flatten())


def _batch_norm(graph: _Graph, layer: BatchNorm) -> None:
    epsilon, variance = layer.epsilon, layer.variance
    if graph.dtype == "float64":  # The attribute epsilon is a float32.
        epsilon, variance = 0.0, np.asarray(variance, np.float64) + epsilon
    arrays = {"scale": layer.scale, "shift": layer.shift, "mean": layer.mean, "variance": variance}
    graph.node("BatchNormalization", *(graph.constant(*each) for each in arrays.items()), epsilon=epsilon)


def _flatten(graph: _Graph, layer: Flatten) -> None:
    if layer.order == "HWC" and graph.rank == 4:
        graph.node("Transpose", perm=[0, 2, 3, 1])
    graph.node("Flatten", axis=1)
    graph.rank = 2


def _dense(graph: _Graph, layer: Dense) -> None:
    if graph.rank != 2:
        raise graph.refused(graph.number, "images", "rows of numbers, of a flattening before it")
    arrays = [graph.constant(name, getattr(layer, name)) for name in layer.arrays if getattr(layer, name) is not None]
    graph.node("Gemm", *arrays, transB=1)


_NODES: dict[type[Layer], Callable[[_Graph, Any], None]] = {
    Convolution: _convolution,
    Pad: _pad,
    Activation: _activation,
    Softmax: lambda graph, layer: graph.node("LogSoftmax" if layer.log else "Softmax", axis=1),
    Pool: _pool,
    GlobalPool: _global_pool,
    BatchNorm: _batch_norm,
    Dropout: lambda graph, layer: None,
    Flatten: _flatten,
    Dense: _dense,
    Affine: _affine,
    Add: _joined("Add"),
    Multiply: _joined("Mul"),
    Concatenate: lambda graph, layer: graph.node("Concat", *graph.others, axis=1),
}


def _prove(runtime: Any, data: bytes, graph: _Graph) -> None:
    """Run the file on random images of odd and even sizes, within the rounding bounds of its layers.

    Raises:
        PortError: a result is outside.
    """
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        for x in _images(graph):
            x = rounded(x, graph.dtype)
            (result,) = session.run(None, {"X": x.astype(graph.dtype)})
            true, off = _expected(graph, x)
            ratio = worst_ratio(result, true, off) if result.shape == true.shape else np.inf
            if ratio > 1:
                raise PortError(
                    f"{graph.name}: on an image of shape {x.shape} onnxruntime's result of shape {result.shape} is off "
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


def _images(graph: _Graph) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    if graph.flat:
        inputs = next(each.kernel.shape[1] for each in graph.layers if isinstance(each, Dense))
        return [grid(rng, (n, inputs)) for n in (1, 4)]
    return random_images(steps(Model("", [*graph.parts], True, None)), 0)


def _expected(graph: _Graph, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the layers compute, and how far rounding may take it from that."""
    return carried(steps(Model("", [*graph.parts], True, None)), x, graph.dtype)
