"""ONNX files made by hand, with ONNX's own helpers, and run by onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from convlab.models.files.onnx.read import read_onnx
from convlab.models.layers.reading import INPUT
from convlab.models.layers.steps import carried, steps
from convlab.testing import worst_ratio

# An operator, the names of its inputs, the names of its results, its attributes.
Nodes = Sequence[tuple[str, str, str, dict[str, Any]]]


def model_of(
    nodes: Nodes, constants: Mapping[str, Any] = {}, shape: Sequence[Any] = ("N", 3, "H", "W"), opset: int = 20
) -> onnx.ModelProto:
    """A graph from "X" to "Y" in float32."""
    protos = [
        helper.make_node(operator, [name.strip("-") for name in inputs.split()], output.split(), **attributes)
        for operator, inputs, output, attributes in nodes
    ]
    for node, (operator, *_) in zip(protos, nodes, strict=True):
        node.name = f"/{node.output[0]}/{operator}"
    x = helper.make_tensor_value_info("X", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("Y", TensorProto.FLOAT, None)
    arrays = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph(protos, "by hand", [x], [y], arrays)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def write(path: Path, *args: Any, **options: Any) -> Path:
    """A file of `model_of`."""
    path.write_bytes(model_of(*args, **options).SerializeToString())
    return path


def run(path: Path, x: np.ndarray) -> np.ndarray:
    """onnxruntime's result."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    """Random numbers of float32, as large as trained ones."""
    return (np.random.default_rng(seed).normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype("float32")


# Arrays of a convolution, and of dense layers on rows of six numbers.
IMAGE = {"K": numbers(4, 3, 3, 3), "b": numbers(4)}
ROWS = ("N", 6)
DENSE = {"W": numbers(6, 5), "V": numbers(5, 6), "c": numbers(5)}


def right(path, x):
    """Whether the layers that are read compute onnxruntime's result, within the bounds carried through them."""
    model, result = read_onnx(path), run(path, x)
    if model.native.layouts == ("NHWC",):
        x = np.moveaxis(x, -1, 1)
    true, off = carried(steps(model), {INPUT: x.astype(float)}, "float32")
    if model.native.result_layouts == ("NHWC",):
        result = np.moveaxis(result, -1, 1)
    return result.shape == true.shape and worst_ratio(result, true, off) <= 1
