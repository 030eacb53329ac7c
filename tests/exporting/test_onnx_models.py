"""Models from ONNX files that convlab didn't write, loaded into every framework: they compute what onnxruntime does."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest
from graphs import DENSE, IMAGE, ROWS, Nodes, model_of, numbers, right, run, write

from convlab.errors import ModelFileError, PortError
from convlab.models.adapters import models_of
from convlab.models.files import prove
from convlab.models.files.onnx.read import read_onnx
from convlab.models.files.save_load import load
from convlab.models.layers.reading import INPUT
from convlab.models.layers.steps import carried, steps
from convlab.testing import worst_ratio

BLOCK_SHAPE = {"K": numbers(4, 3, 3, 3), "k": numbers(4, 4, 1, 1, seed=2), "W": numbers(4, 5, seed=3), "c": numbers(5)}
BLOCK: Nodes = [
    ("Conv", "X K", "stem", {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
    ("Relu", "stem", "relu", {}),
    ("GlobalAveragePool", "relu", "pool", {}),
    ("Conv", "pool k", "squeeze", {}),
    ("Sigmoid", "squeeze", "gate", {}),
    ("Mul", "relu gate", "scaled", {}),
    ("Add", "scaled stem", "sum", {}),
    ("ReduceMean", "sum", "mean", {"axes": [2, 3], "keepdims": 0}),
    ("Gemm", "mean W c", "Y", {}),
]


@pytest.mark.parametrize("shape", [("N", 3, "H", "W"), (1, 3, 9, 8), (3, 3, 9, 8), ("N", 3, 9, "W")])
def test_a_model_is_loaded_into_every_framework(framework, shape, tmp_path):
    path = write(tmp_path / "model.onnx", BLOCK, BLOCK_SHAPE, shape, opset=17)
    model = load(path, backend=framework)
    x = numbers(3, 3, 9, 8)
    true = np.concatenate([run(path, x[i : i + 1]) for i in range(3)]) if shape[0] == 1 else run(path, x)
    np.testing.assert_allclose(models_of(framework).run([model], x, "float32"), true, rtol=0, atol=1e-6)


def test_a_size_that_the_model_doesnt_take(tmp_path, framework):
    path = write(tmp_path / "model.onnx", BLOCK, BLOCK_SHAPE, ("N", 3, 9, 8), opset=17)
    assert load(path, backend=framework, input_size=(9, 8)) is not None
    with pytest.raises(ModelFileError, match=r"got input_size of 8x8 pixels, expected 9x8 pixels, the only size"):
        load(path, backend=framework, input_size=8)


# As tf2onnx writes what Keras computes on pixels: the image is transposed, and the rows of numbers are pixel by pixel.
PIXELS: Nodes = [
    ("Transpose", "X", "first", {"perm": [0, 3, 1, 2]}),
    ("Conv", "first K b", "conv", {"pads": [0, 0, 1, 1]}),
    ("Transpose", "conv", "back", {"perm": [0, 2, 3, 1]}),
    ("Relu", "back", "relu", {}),
    ("MatMul", "relu M", "dense", {}),
    ("Add", "dense m", "sum", {}),
    ("Softmax", "sum", "softmax", {"axis": -1}),
    ("Reshape", "softmax s", "flat", {}),
    ("MatMul", "flat W", "product", {}),
    ("Add", "product c", "Y", {}),
]
PIXEL_ARRAYS = {
    **IMAGE,
    "M": numbers(4, 2),
    "m": numbers(2),
    "s": [-1, 4 * 3 * 2],
    "W": numbers(24, 5),
    "c": numbers(5),
}


def test_channels_last(framework, tmp_path):
    path = write(tmp_path / "model.onnx", PIXELS, PIXEL_ARRAYS, ("N", 5, 4, 3))
    kinds = [part.layer.kind for part in read_onnx(path).parts]
    assert kinds == ["conv2d", "activation", "conv2d", "softmax", "flatten", "dense"]
    x = numbers(2, 5, 4, 3)
    assert right(path, x)
    result = models_of(framework).run([load(path, backend=framework)], np.moveaxis(x, -1, 1), "float32")
    np.testing.assert_allclose(result, run(path, x), rtol=0, atol=1e-6)


def test_shapes_that_are_computed(tmp_path):
    """x.view(x.size(0), -1), as PyTorch writes it for a batch of any number."""
    nodes: Nodes = [
        ("Shape", "X", "shape", {}),
        ("Constant", "", "zero", {"value_int": 0}),
        ("Gather", "shape zero", "n", {"axis": 0}),
        ("Unsqueeze", "n axis", "n1", {}),
        ("Concat", "n1 rest", "sizes", {"axis": 0}),
        ("Reshape", "X sizes", "rows", {}),
        ("Gemm", "rows W c", "Y", {}),
    ]
    path = write(tmp_path / "model.onnx", nodes, {"axis": [0], "rest": [-1], "W": numbers(18, 5), "c": numbers(5)})
    assert [part.layer.kind for part in read_onnx(path).parts] == ["flatten", "dense"]
    assert right(path, numbers(2, 3, 3, 2))


def test_what_pytorchs_new_exporter_writes(framework, tmp_path):
    """All options said, shapes cut out of `Shape`, and only initialisers named as in the model."""
    rows = {"beta": 1.0, "alpha": 1.0, "transA": 0, "transB": 1}
    plain = {"auto_pad": "NOTSET", "dilations": [1, 1], "strides": [1, 1]}
    nodes: Nodes = [
        ("Conv", "X features.0.weight features.0.bias", "conv", {**plain, "pads": [1, 1, 1, 1], "group": 1}),
        ("Relu", "conv", "relu", {}),
        ("MaxPool", "relu", "pool", {**plain, "kernel_shape": [2, 2], "storage_order": 0, "ceil_mode": 0}),
        ("Shape", "X", "val_0", {"start": 0, "end": 1}),
        ("Constant", "", "val_1", {"value_ints": [-1]}),
        ("Concat", "val_0 val_1", "val_2", {"axis": 0}),
        ("Reshape", "pool val_2", "view", {"allowzero": 1}),
        ("Gemm", "view fc.weight fc.bias", "Y", rows),
    ]
    constants = {"features.0.weight": IMAGE["K"], "features.0.bias": IMAGE["b"]}
    constants |= {"fc.weight": numbers(5, 4 * 6), "fc.bias": numbers(5)}
    model = model_of(nodes, constants, ("batch", 3, 4, 3), opset=18)
    for number, node in enumerate(model.graph.node):
        node.name = f"node_{node.op_type}_{number}"
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    paths = [part.path for part in read_onnx(path).parts if part.layer.arrays]
    assert paths == ["features.0", "fc"]
    x = numbers(2, 3, 4, 3)
    result = models_of(framework).run([load(path, backend=framework)], x, "float32")
    np.testing.assert_allclose(result, run(path, x), rtol=0, atol=1e-6)


def test_names_are_those_of_the_exported_model(tmp_path):
    constants = {
        "layer1.0.conv1.weight": IMAGE["K"],
        "layer1.0.conv1.bias": IMAGE["b"],
        "net0_dense0_weight": numbers(4, 5),
    }
    nodes: Nodes = [
        ("Conv", "X layer1.0.conv1.weight layer1.0.conv1.bias", "1", {}),
        ("Relu", "1", "relu", {}),
        ("ReduceMax", "relu axes", "mean", {"keepdims": 0}),
        ("Cast", "net0_dense0_weight", "w", {"to": 1}),
        ("MatMul", "mean w", "Y", {}),
    ]
    model = model_of(nodes, {**constants, "axes": [2, 3]})
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())  # Nodes that are named by modules, as PyTorch's old exporter does it:
    assert [part.path for part in read_onnx(path).parts] == ["1", "relu", "mean", "Y"]
    for number, node in enumerate(model.graph.node):
        node.name = f"node_{number}"
    path.write_bytes(model.SerializeToString())
    assert [part.path for part in read_onnx(path).parts] == ["layer1.0.conv1", "node_1", "node_2", "net0_dense0"]


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_dtypes(dtype, tmp_path):
    import onnx

    model = model_of([("Gemm", "X W c", "Y", {})], {name: array.astype(dtype) for name, array in DENSE.items()}, ROWS)
    model.graph.input[0].type.tensor_type.elem_type = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    model.graph.output[0].type.tensor_type.elem_type = model.graph.input[0].type.tensor_type.elem_type
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    (part,) = read_onnx(path).parts
    assert part.layer.dtype == dtype
    assert part.layer.kernel.tobytes() == DENSE["W"].T.astype(dtype).tobytes()
    x = numbers(2, 6).astype(dtype)
    true, off = carried(steps(read_onnx(path)), {INPUT: x.astype(float)}, dtype)
    assert worst_ratio(run(path, x), true, off) <= 1


def test_numbers_that_arent_plain_bytes(tmp_path):
    """Each dtype has a field of its own, beside that of plain bytes."""
    from onnx import helper

    half = helper.make_tensor("h", 10, [2], np.float16([1.5, -2.25]))
    double = helper.make_tensor("d", 11, [2], [0.1, 1e300])
    single = helper.make_tensor("f", 1, [1, 2], [0.5, -3.0])
    integers = helper.make_tensor("i", 7, [3], [-1, 2**40, 0])
    model = model_of([("Relu", "X", "Y", {})])
    model.graph.initializer.extend([half, double, single, integers])
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    from convlab.models.files.onnx.graph import read_graph

    constants = read_graph(path)[0].constants
    assert {name: array.tolist() for name, array in constants.items()} == {
        "h": [1.5, -2.25],
        "d": [0.1, 1e300],
        "f": [[0.5, -3.0]],
        "i": [-1, 2**40, 0],
    }


@pytest.mark.parametrize("with_runtime", [True, False])
def test_a_model_that_computes_something_else_is_found(tmp_path, monkeypatch, framework, with_runtime):
    path = write(tmp_path / "model.onnx", BLOCK, BLOCK_SHAPE, opset=17)
    if not with_runtime:
        monkeypatch.setattr(prove, "_session", lambda name, file: None)
    load(path, backend=framework)
    target = models_of(framework)
    build = target.build

    def wrong(layer, style):
        return build(layer, style) if layer.kind != "activation" else build(type(layer)("tanh"), style)

    monkeypatch.setattr(target, "build", wrong)
    with pytest.raises(PortError, match=r"off by .* times what rounding allows"):
        load(path, backend=framework)


def test_onnxruntime_is_not_needed(tmp_path, monkeypatch, framework):
    path = write(tmp_path / "model.onnx", BLOCK, BLOCK_SHAPE, opset=17)
    original = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else original(name))
    for package in ("onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, package, None)
    assert load(path, backend=framework) is not None


def test_a_padding_that_depends_on_the_size(tmp_path, framework):
    """The model is for the size that is given, and proven at that size."""
    nodes: Nodes = [("Conv", "X K b", "Y", {"auto_pad": "SAME_LOWER", "strides": [2, 2]})]
    path = write(tmp_path / "model.onnx", nodes, IMAGE)
    model = load(path, backend=framework, input_size=(9, 8))
    x = numbers(2, 3, 9, 8)
    np.testing.assert_allclose(models_of(framework).run([model], x, "float32"), run(path, x), rtol=0, atol=1e-5)
