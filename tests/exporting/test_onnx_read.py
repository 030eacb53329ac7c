"""ONNX files that convlab didn't write: the layers that are read compute what onnxruntime does."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest
from graphs import Nodes, model_of, numbers, run, write

from convlab.errors import ModelFileError, PortError
from convlab.models.adapters import models_of
from convlab.models.files import prove
from convlab.models.files.onnx_read import read_onnx
from convlab.models.files.save_load import load
from convlab.models.layers.steps import carried, steps
from convlab.testing import worst_ratio

IMAGE = {"K": numbers(4, 3, 3, 3), "b": numbers(4)}
NORM = {name: abs(numbers(3, seed=seed)) for seed, name in enumerate("smvB")}
ROWS = ("N", 6)
DENSE = {"W": numbers(6, 5), "V": numbers(5, 6), "c": numbers(5)}


def conv(**options):
    return [("Conv", "X K b", "Y", options)]


def one(operator, inputs="X", **options):
    return [(operator, inputs, "Y", options)]


# The nodes, the constants, the shape of the input, and the kinds of the layers.
CASES: dict[str, tuple] = {
    "conv": (conv(), IMAGE, None, "conv2d"),
    "conv without bias": (one("Conv", "X K", pads=[1, 0, 2, 1]), IMAGE, None, "conv2d"),
    "conv same": (conv(auto_pad="SAME_UPPER", strides=[2, 2]), IMAGE, None, "conv2d"),
    "conv same lower": (conv(auto_pad="SAME_LOWER", strides=[2, 3]), IMAGE, None, "conv2d"),
    "conv valid": (conv(auto_pad="VALID", dilations=[2, 1]), IMAGE, None, "conv2d"),
    "depthwise": (one("Conv", "X K", group=3), {"K": numbers(6, 1, 3, 2)}, None, "conv2d"),
    "bias added": (
        [("Conv", "X K", "a", {}), ("Add", "a b", "Y", {})],
        {"K": IMAGE["K"], "b": numbers(4, 1, 1)},
        None,
        "conv2d",
    ),
    "norm": (one("BatchNormalization", "X s B m v", epsilon=0.25), NORM, None, "batch_norm"),
    "clip": (one("Clip", "X low high"), {"low": np.float32(0), "high": np.float32(6)}, None, "activation"),
    "clip below": (one("Clip", "X low"), {"low": np.float32(0)}, None, "activation"),
    "leaky": (one("LeakyRelu", alpha=0.3), {}, None, "activation"),
    "prelu": (one("PRelu", "X s"), {"s": np.full((1, 1, 1), 0.2, "f4")}, None, "activation"),
    "elu": (one("Elu", alpha=0.5), {}, None, "activation"),
    "hard sigmoid": (one("HardSigmoid", alpha=1 / 6, beta=0.5), {}, None, "activation"),
    "hard sigmoid 0.2": (one("HardSigmoid"), {}, None, "affine activation affine"),
    "gelu tanh": (one("Gelu", approximate="tanh"), {}, None, "activation"),
    **{
        operator: (one(operator), {}, None, "activation")
        for operator in ("Relu", "Sigmoid", "Tanh", "Softplus", "HardSwish", "Mish", "Selu", "Gelu")
    },
    "softmax": (one("Softmax", axis=1), {}, None, "softmax"),
    "log softmax of rows": (one("LogSoftmax"), {}, ROWS, "softmax"),
    **{
        f"{kind} {pads} {ceil}": (
            one(kind, kernel_shape=[3, 2], strides=[2, 2], pads=pads, ceil_mode=ceil),
            {},
            None,
            "pool",
        )
        for kind in ("MaxPool", "AveragePool")
        for pads in ([0, 0, 0, 0], [1, 1, 1, 0])
        for ceil in (0, 1)
    },
    "average counts": (
        one("AveragePool", kernel_shape=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1),
        {},
        None,
        "pool",
    ),
    "max same": (one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"), {}, None, "pool"),
    "global average": (one("GlobalAveragePool"), {}, None, "global_pool"),
    "global max": (one("GlobalMaxPool"), {}, None, "global_pool"),
    "mean": (one("ReduceMean", "X axes", keepdims=0), {"axes": [2, 3]}, None, "global_pool"),
    "max of all": (one("ReduceMax", "X axes"), {"axes": [-1, -2]}, None, "global_pool"),
    **{
        f"pad {mode}": (one("Pad", "X p", mode=mode), {"p": [0, 0, 1, 2, 0, 0, 0, 1]}, None, "pad")
        for mode in ("constant", "reflect", "edge", "wrap")
    },
    "pad value": (
        one("Pad", "X p v axes"),
        {"p": [1, 2, 0, 1], "v": np.float32(0.5), "axes": [3, 2]},
        None,
        "pad",
    ),
    "gemm": (one("Gemm", "X V c", transB=1), {**DENSE, "V": numbers(5, 6)}, ROWS, "dense"),
    "gemm of alpha": (one("Gemm", "X W c", alpha=0.5, beta=2.0), DENSE, ROWS, "dense"),
    "matmul": ([("MatMul", "X W", "a", {}), ("Add", "c a", "Y", {})], DENSE, ROWS, "dense"),
    "numbers": (
        [("Mul", "X a", "1", {}), ("Sub", "1 b", "2", {}), ("Div", "2 c", "3", {}), ("Neg", "3", "Y", {})],
        {"a": np.float32(3), "b": np.float32([0.5]), "c": np.float32(4)},
        None,
        "affine affine affine affine",
    ),
    "mean and deviation": (
        [("Sub", "X m", "1", {}), ("Div", "1 s", "Y", {})],
        {"m": numbers(1, 3, 1, 1), "s": 1 + abs(numbers(3, 1, 1, seed=2))},
        None,
        "batch_norm batch_norm",
    ),
    "one less": (one("Sub", "one X"), {"one": np.float32(1)}, None, "affine affine"),
    "sum": ([("Relu", "X", "a", {}), ("Sum", "X a X", "Y", {})], {}, None, "activation add"),
    "product": ([("Tanh", "X", "a", {}), ("Mul", "a X", "Y", {})], {}, None, "activation multiply"),
    "concat": ([("Relu", "X", "a", {}), ("Concat", "X a", "Y", {"axis": 1})], {}, None, "activation concatenate"),
    "dropout": ([("Dropout", "X", "a", {}), ("Relu", "a", "Y", {})], {}, None, "dropout activation"),
    "unsqueeze": (
        [("Unsqueeze", "X two", "a", {}), ("Unsqueeze", "a three", "Y", {})],
        {"two": [2], "three": [3]},
        ROWS,
        "unflatten",
    ),
    "squeeze": (
        [("GlobalMaxPool", "X", "a", {}), ("Squeeze", "a axes", "Y", {})],
        {"axes": [2, 3]},
        None,
        "global_pool flatten",
    ),
    "pixel": (one("Reshape", "X s"), {"s": [0, -1, 1, 1]}, ROWS, "unflatten"),
    "identity": (
        [("Identity", "X", "a", {}), ("Cast", "a", "b", {"to": 1}), ("Relu", "b", "Y", {})],
        {},
        None,
        "activation",
    ),
}
SPELLED: dict[str, tuple[Nodes, dict]] = {
    "silu": ([("Sigmoid", "X", "a", {}), ("Mul", "X a", "Y", {})], {}),
    "silu by exp": (
        [("Neg", "X", "a", {}), ("Exp", "a", "b", {}), ("Add", "b one", "c", {}), ("Div", "X c", "Y", {})],
        {"one": np.float32(1)},
    ),
    "hard_swish": ([("HardSigmoid", "X", "a", {"alpha": 1 / 6}), ("Mul", "X a", "Y", {})], {}),
    "hard_swish by clip": (
        [
            ("Add", "X three", "a", {}),
            ("Clip", "a zero six", "b", {}),
            ("Mul", "X b", "c", {}),
            ("Div", "c six", "Y", {}),
        ],
        {"three": np.float32(3), "zero": np.float32(0), "six": np.float32(6)},
    ),
    "mish": ([("Softplus", "X", "a", {}), ("Tanh", "a", "b", {}), ("Mul", "X b", "Y", {})], {}),
    "gelu": (
        [
            ("Div", "X root", "a", {}),
            ("Erf", "a", "b", {}),
            ("Add", "b one", "c", {}),
            ("Mul", "X c", "d", {}),
            ("Mul", "d half", "Y", {}),
        ],
        {"root": np.float32(np.sqrt(2)), "one": np.float32(1), "half": np.float32(0.5)},
    ),
    "gelu_tanh": (
        [
            ("Pow", "X three", "a", {}),
            ("Mul", "a k", "b", {}),
            ("Add", "X b", "c", {}),
            ("Mul", "c root", "d", {}),
            ("Tanh", "d", "e", {}),
            ("Add", "e one", "f", {}),
            ("Mul", "X half", "g", {}),
            ("Mul", "g f", "Y", {}),
        ],
        {
            "three": np.float32(3),
            "k": np.float32(0.044715),
            "root": np.float32(np.sqrt(2 / np.pi)),
            "one": np.float32(1),
            "half": np.float32(0.5),
        },
    ),
    "relu": ([("Max", "X zero", "Y", {})], {"zero": np.float32(0)}),
}


def right(path, x):
    """Whether the layers that are read compute onnxruntime's result, within the bounds carried through them."""
    model, result = read_onnx(path), run(path, x)
    if model.native.layout == "NHWC":
        x = np.moveaxis(x, -1, 1)
    true, off = carried(steps(model), x.astype(float), "float32")
    if model.native.result_layout == "NHWC":
        result = np.moveaxis(result, -1, 1)
    return result.shape == true.shape and worst_ratio(result, true, off) <= 1


@pytest.mark.parametrize("name", CASES)
def test_operators(name, tmp_path):
    nodes, constants, shape, kinds = CASES[name]
    path = write(tmp_path / "model.onnx", nodes, constants, shape or ("N", 3, "H", "W"))
    assert [part.layer.kind for part in read_onnx(path).parts] == kinds.split()
    x = np.random.default_rng(1).normal(size=(2, 6) if shape else (2, 3, 7, 8), scale=3).astype("f4")
    assert right(path, x)


@pytest.mark.parametrize("name", SPELLED)
@pytest.mark.parametrize("opset", [13, 17, 20])
def test_activations_that_are_spelled_out(name, opset, tmp_path):
    nodes, constants = SPELLED[name]
    path = write(tmp_path / "model.onnx", nodes, constants, opset=opset)
    (part,) = read_onnx(path).parts
    assert part.layer.function == name.split()[0]
    assert right(path, np.random.default_rng(1).normal(size=(2, 3, 7, 8), scale=3).astype("f4"))


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
    true, off = carried(steps(read_onnx(path)), x.astype(float), dtype)
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
    from convlab.models.files.onnx_graph import read_graph

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
