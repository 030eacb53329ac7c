"""The operators of ONNX files that convlab didn't write: the layers that are read compute what onnxruntime does."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import DENSE, IMAGE, ROWS, Nodes, numbers, right, write

from convlab.models.files.onnx.read import read_onnx

NORM = {name: abs(numbers(3, seed=seed)) for seed, name in enumerate("smvB")}


def conv(**options):
    return [("Conv", "X K b", "Y", options)]


def one(operator, inputs="X", **options):
    return [(operator, inputs, "Y", options)]


FOUR = ("N", 4, "H", "W")
SCALES, SCALES4 = ({"c": numbers(n, 1, 1, seed=1), "d": numbers(n, 1, 1, seed=2)} for n in (3, 4))


def regrouped(shape, image):
    """A group norm as PyTorch writes it."""
    return [
        ("Reshape", f"{image} g", "1", {}),
        ("InstanceNormalization", "1 ones zeros", "2", {"epsilon": 0.25}),
        ("Reshape", f"2 {shape}", "3", {}),
        ("Mul", "3 c", "4", {}),
        ("Add", "4 d", "Y", {}),
    ]


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
    "clip to others": (one("Clip", "X low high"), {"low": np.float32(-0.5), "high": np.float32(2)}, None, "clip"),
    "clip above": (one("Min", "X high"), {"high": np.float32(0.5)}, None, "clip"),
    "exponential": (
        [("Abs", "X", "a", {}), ("Sqrt", "a", "b", {}), ("Exp", "b", "Y", {})],
        {},
        None,
        "activation " * 3,
    ),
    "quotient": (
        [("Abs", "X", "a", {}), ("Add", "a one", "b", {}), ("Div", "X b", "Y", {})],
        {"one": np.float32(2)},
        None,
        "activation affine divide",
    ),
    "leaky": (one("LeakyRelu", alpha=0.3), {}, None, "activation"),
    "prelu": (one("PRelu", "X s"), {"s": np.full((1, 1, 1), 0.2, "f4")}, None, "prelu"),
    "prelu of channels": (one("PRelu", "X s"), {"s": numbers(3, 1, 1)}, None, "prelu"),
    "transposed": (
        one("ConvTranspose", "X w b", strides=[2, 1], pads=[1, 0, 0, 1], output_padding=[1, 0]),
        {"w": numbers(3, 4, 3, 2), "b": numbers(4)},
        None,
        "conv_transpose2d",
    ),
    "instance norm": (one("InstanceNormalization", "X s b"), {"s": numbers(3), "b": numbers(3)}, None, "group_norm"),
    "a channel's own norm after a shape": (
        [("Shape", "X", "s", {}), *regrouped("s", "X")],
        {"g": [0, 3, -1], "ones": np.ones(3, "f4"), "zeros": np.zeros(3, "f4"), **SCALES},
        None,
        "group_norm",
    ),
    "group norm of one image": (
        regrouped("s", "X"),
        {"g": [1, 2, 112], "s": [1, 4, -1, 8], "ones": numbers(2), "zeros": numbers(2, seed=3), **SCALES4},
        (1, 4, 7, 8),
        "group_norm channel_affine channel_affine",
    ),
    "channel shuffle": (
        [("Reshape", "X g", "1", {}), ("Transpose", "1", "2", {"perm": [0, 2, 1, 3, 4]}), ("Reshape", "2 s", "Y", {})],
        {"g": [-1, 2, 2, 7, 8], "s": [-1, 4, 7, 8]},
        ("N", 4, 7, 8),
        "channel_shuffle",
    ),
    "groups and back": (
        [("Reshape", "X g", "1", {}), ("Reshape", "1 s", "2", {}), ("Relu", "2", "Y", {})],
        {"g": [0, 2, -1, 7, 8], "s": [-1, 4, 7, 8]},
        ("N", 4, 7, 8),
        "activation",
    ),
    "channels in another order": (one("Gather", "X o", axis=-3), {"o": [0, 2, 1, 3]}, FOUR, "channel_shuffle"),
    "split": (
        [("Split", "X", "1 2", {"axis": 1, "num_outputs": 2}), ("Sub", "2 1", "Y", {})],
        {},
        FOUR,
        "chunk chunk subtract",
    ),
    "split into sizes": (
        [("Split", "X s", "1 2 3 4", {"axis": -3}), ("Relu", "3", "Y", {})],
        {"s": [1, 1, 1, 1]},
        FOUR,
        "chunk activation",
    ),
    "slice of channels": (
        one("Slice", "X from to axes"),
        {"from": [-2, 1], "to": [2**62, -2], "axes": [1, 3]},
        FOUR,
        "chunk crop",
    ),
    "depth to space": (one("DepthToSpace", "X", blocksize=1), {}, None, "pixel_shuffle"),
    "nearest": (one("Resize", "X - f"), {"f": np.array([1, 1, 2, 3], "f4")}, None, "upsample"),
    "aligned": (
        one("Resize", "X - f", mode="linear", coordinate_transformation_mode="align_corners"),
        {"f": np.array([1, 1, 2, 3], "f4")},
        None,
        "upsample",
    ),
    **{
        f"to a size {places}": (
            one("Resize", "X - - s", mode=mode, coordinate_transformation_mode=places, **options),
            {"s": [2, 3, 7, 4]},
            (2, 3, "H", "W"),
            "resize",
        )
        for mode, places, options in (
            ("linear", "half_pixel", {}),
            ("linear", "align_corners", {}),
            ("nearest", "asymmetric", {"nearest_mode": "floor"}),
        )
    },
    "to a size of rows and columns": (
        one("Resize", "X - - s", axes=[3, 2], nearest_mode="round_prefer_ceil"),
        {"s": [7, 4]},
        None,
        "resize",
    ),
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
        "channel_affine channel_affine",
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
    "pixel by pixel": (
        [("Reshape", "X s", "a", {}), ("Transpose", "a", "Y", {"perm": [0, 3, 1, 2]})],
        {"s": [-1, 1, 3, 2]},
        ROWS,
        "unflatten",
    ),
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


@pytest.mark.parametrize("name", CASES)
def test_operators(name, tmp_path):
    nodes, constants, shape, kinds = CASES[name]
    path = write(tmp_path / "model.onnx", nodes, constants, shape or ("N", 3, "H", "W"))
    assert [part.layer.kind for part in read_onnx(path).parts] == kinds.split()
    places = {"N": 2, "H": 7, "W": 8}
    size = [places.get(each, each) for each in shape or ("N", 3, "H", "W")]
    x = np.random.default_rng(1).normal(size=size, scale=3).astype("f4")
    assert right(path, x)


@pytest.mark.parametrize(("opset", "count"), [(18, 2), (20, 2), (21, 6), (22, 6)])
def test_the_operator_group_norm(opset, count, tmp_path):
    """Its numbers are those of groups until opset 20, and of channels from 21 on."""
    arrays = {"s": numbers(count, seed=1), "b": numbers(count, seed=2)}
    nodes = one("GroupNormalization", "X s b", num_groups=2, epsilon=0.25)
    path = write(tmp_path / "model.onnx", nodes, arrays, ("N", 6, "H", "W"), opset=opset)
    (part,) = read_onnx(path).parts
    np.testing.assert_array_equal(part.layer.scale, np.repeat(arrays["s"], 6 // count))
    assert right(path, np.random.default_rng(1).normal(size=(2, 6, 7, 8), scale=3).astype("f4"))


@pytest.mark.parametrize("name", SPELLED)
@pytest.mark.parametrize("opset", [13, 17, 20])
def test_activations_that_are_spelled_out(name, opset, tmp_path):
    nodes, constants = SPELLED[name]
    path = write(tmp_path / "model.onnx", nodes, constants, opset=opset)
    (part,) = read_onnx(path).parts
    assert part.layer.function == name.split()[0]
    assert right(path, np.random.default_rng(1).normal(size=(2, 3, 7, 8), scale=3).astype("f4"))
