"""ONNX files that lie or aren't models that convlab knows: a typed error that names the node, and nothing else."""

from __future__ import annotations

import pickle
import re
import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import model_of, numbers
from onnx import TensorProto, helper, numpy_helper

from convlab.errors import ModelFileError
from convlab.models.files.onnx.read import read_onnx
from convlab.models.files.save_load import load

CHAIN = [("Conv", "X K", "conv", {}), ("Relu", "conv", "Y", {})]
KERNEL = {"K": numbers(2, 3, 3, 3)}


def refusal(path: Path, model: onnx.ModelProto | bytes, backend: str | None = None) -> str:
    """The error of a file with these contents, which is left as it is."""
    data = model if isinstance(model, bytes) else model.SerializeToString()
    path.write_bytes(data)
    with pytest.raises(ModelFileError) as caught:
        read_onnx(path) if backend is None else load(path, backend=backend)
    message = str(caught.value)
    assert str(path) in message
    assert "got" in message and "expected" in message and "Hint:" in message, message  # noqa: PT018
    assert len(message) < 2000
    assert path.read_bytes() == data
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    return message


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.onnx"


def changed(change, nodes=CHAIN, constants=KERNEL, **options):
    model = model_of(nodes, constants, **options)
    change(model)
    return model


NORM = {"two": [0, 2, -1], "one": np.ones(2, "f4"), "s": [0, 4, 4, 4]}


def norm(value):
    """A group norm of a value, as it is spelled out."""
    return [
        ("Reshape", f"{value} two", "g", {}),
        ("InstanceNormalization", "g one one", "n", {}),
        ("Reshape", "n s", "Y", {}),
    ]


def external(model):
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def dims(*sizes):
    def change(model):
        del model.graph.initializer[0].dims[:]
        model.graph.initializer[0].dims.extend(sizes)

    return change


def function(model):
    opsets = [helper.make_opsetid("", 20)]
    model.functions.append(
        helper.make_function("local", "F", ["x"], ["y"], [helper.make_node("Relu", ["x"], ["y"])], opsets)
    )


def second_input(model):
    model.graph.input.append(helper.make_tensor_value_info("X2", TensorProto.FLOAT, [1]))


def subgraph(operator):
    inner = helper.make_graph([helper.make_node("Relu", ["conv"], ["inner"])], "inner", [], [])
    return [CHAIN[0], (operator, "conv", "Y", {"then_branch": inner, "else_branch": inner})]


REFUSED = {
    "external data": (changed(external), r"initialiser 'K': got numbers in another file, '../../etc/passwd'"),
    "huge dims": (
        changed(dims(2**40, 2**40)),
        r"initialiser 'K': got 54 numbers of float32, expected as many as its sizes",
    ),
    "negative dims": (changed(dims(-1, -54)), "initialiser 'K'"),
    "zero dims": (changed(dims(0, 2**62, 2**62)), "initialiser 'K'"),
    "strings": (
        changed(lambda model: model.graph.initializer.append(helper.make_tensor("s", TensorProto.STRING, [1], [b"a"]))),
        "initialiser 's': got ONNX's dtype 8",
    ),
    "opset 12": (changed(lambda model: None, opset=12), r"got the opsets \[12\], expected one of ONNX's own, from 13"),
    "opset 99": (changed(lambda model: None, opset=99), r"got the opsets \[99\]"),
    "ir": (changed(lambda model: setattr(model, "ir_version", 99)), "got IR version 99"),
    "functions": (changed(function), "1 functions of the model's own.*inline"),
    "an input of one axis": (changed(second_input), r"input 'X2': got values of 1 axes"),
    "an output twice": (changed(lambda model: model.graph.output.append(model.graph.output[0])), r"got 2 outputs"),
    "circle": (
        changed(lambda model: None, [("Add", "X b", "a", {}), ("Relu", "a", "b", {}), ("Relu", "b", "Y", {})], {}),
        r"node '/a/Add' \(Add\): got the value 'b', which a later node gives, in a circle",
    ),
    "itself": (changed(lambda model: None, [("Relu", "Y", "Y", {})], {}), "node '/Y/Relu'.*in a circle"),
    "missing": (changed(lambda model: None, [("Relu", "Z", "Y", {})], {}), "'Z', which nothing gives"),
    "twice": (changed(lambda model: None, [*CHAIN, ("Tanh", "conv", "Y", {})]), "node '/Y/Tanh'.*'Y' again"),
    "a result of nothing": (changed(lambda model: setattr(model.graph.output[0], "name", "Z")), "the result 'Z'"),
    "a constant result": (
        changed(lambda model: setattr(model.graph.output[0], "name", "K")),
        "result 'K': got a constant",
    ),
    "unknown operator": (
        changed(lambda model: None, [CHAIN[0], ("Einsum", "conv", "e", {}), ("Relu", "e", "Y", {})]),
        r"node '/e/Einsum' \(Einsum\): got an operator.*it takes the result of node '/conv/Conv' \(Conv\), and node",
    ),
    "another domain": (
        changed(lambda model: setattr(model.graph.node[1], "domain", "com.microsoft")),
        r"node '/Y/Relu' \(com.microsoft.Relu\): got an operator",
    ),
    "control flow": (changed(lambda model: None, subgraph("If")), r"node '/Y/If' \(If\): got an operator"),
    "quantised": (
        changed(lambda model: None, [CHAIN[0], ("QuantizeLinear", "conv", "Y", {})]),
        "QuantizeLinear.*of a quantised model",
    ),
    "training": (
        changed(
            lambda model: None,
            [("BatchNormalization", "X s s s s", "Y", {"training_mode": 1})],
            {"s": np.ones(3, "f4")},
        ),
        "got a batch norm in training",
    ),
    "a computed kernel": (changed(lambda model: None, [("Conv", "X X", "Y", {})], {}), "got a kernel that is computed"),
    "groups": (changed(lambda model: None, [("Conv", "X K", "Y", {"group": 7})]), "got 7 groups"),
    "stride 0": (changed(lambda model: None, [("Conv", "X K", "Y", {"strides": [0, 1]})]), r"got strides \[0, 1\]"),
    "negative pads": (changed(lambda model: None, [("Conv", "X K", "Y", {"pads": [-1, 0, 0, 0]})]), "got pads"),
    "a kernel of three axes": (changed(dims(2, 3, 9)), "got a kernel float32 of shape"),
    "bias": (
        changed(lambda model: None, [("Conv", "X K b", "Y", {})], {**KERNEL, "b": np.ones(3, "f4")}),
        "got a bias of 3 numbers, expected 2",
    ),
    "channels": (
        changed(lambda model: None, [*CHAIN[:1], ("Conv", "conv K", "Y", {})]),
        "node '/Y/Conv'.*got 2 channels from the layer before it, expected 3",
    ),
    "rows": (changed(lambda model: None, shape=("N", 3)), "node '/conv/Conv'.*got values with axes NC, expected NCHW"),
    "five axes": (changed(lambda model: None, shape=(1, 3, 4, 4, 4)), "node '/conv/Conv'.*point numbers on 5 axes"),
    "six axes": (changed(lambda model: None, shape=(1, 3, 4, 4, 4, 4)), "input 'X': got values of 6 axes"),
    **{
        f"groups {sizes}": (
            changed(lambda model: None, [("Reshape", "X s", "Y", {})], {"s": sizes}, shape=("N", 4, "H", "W")),
            "node '/Y/Reshape'.*got the shape",
        )
        for sizes in ([0, 2, 3, 4], [0, 2, 3, -1, 4], [0, 3, -1], [0, 2, -1, -1, 4], [0, -1, 4, 4, 4], [0, 2**40, -1])
    },
    "groups of unknown channels": (
        changed(lambda model: None, [("Reshape", "X s", "Y", {})], {"s": [0, 2, -1]}, shape=("N", "C", "H", "W")),
        "node '/Y/Reshape'.*got an unknown number of channels",
    ),
    "groups of more channels than memory has": (
        changed(lambda model: None, norm("X"), NORM, shape=("N", 2**40, "H", "W")),
        "node '/g/Reshape'.*got 1099511627776 channels",
    ),
    "groups that stay": (
        changed(lambda model: None, [("Reshape", "X s", "Y", {})], {"s": [0, 2, -1]}, shape=("N", 4, 4, 4)),
        "graph: got no layer",
    ),
    "another function of groups": (
        changed(lambda model: None, [norm("X")[0], ("Relu", "g", "Y", {})], NORM, shape=("N", 4, 4, 4)),
        "node '/Y/Relu'.*got values with axes NGP",
    ),
    "a norm of other groups": (
        changed(lambda model: None, norm("X"), {**NORM, "one": np.ones(4, "f4")}, shape=("N", 4, "H", "W")),
        "node '/n/InstanceNormalization'.*got a scale of 4 numbers, expected 2",
    ),
    "the shape of other images": (
        changed(
            lambda model: None,
            [
                ("AveragePool", "X", "a", {"kernel_shape": [1, 1], "strides": [2, 2]}),
                ("Shape", "X", "s", {}),
                *norm("a"),
            ],
            {name: array for name, array in NORM.items() if name != "s"},
            shape=("N", 4, "H", "W"),
        ),
        "node '/Y/Reshape'.*got the shape",
    ),
    "a group norm of 3 groups": (
        changed(lambda model: None, [("GroupNormalization", "X K K", "Y", {"num_groups": 3})], {"K": np.ones(4, "f4")}),
        "got 3 groups, expected a divisor of 4",
    ),
    "a group norm of no groups": (
        changed(lambda model: None, [("GroupNormalization", "X K K", "Y", {})], {"K": np.ones(4, "f4")}),
        "node '/Y/GroupNormalization'.*got attributes",
    ),
    "an order that is none": (
        changed(lambda model: None, [("Gather", "X o", "Y", {"axis": 1})], {"o": [0, 2**62, 0]}),
        "node '/Y/Gather'.*got the order",
    ),
    "places of rows": (
        changed(lambda model: None, [("Gather", "X o", "Y", {"axis": 2})], {"o": [0, 1, 2]}),
        "node '/Y/Gather'.*got places of other axes",
    ),
    "a part of no channels": (
        changed(lambda model: None, [("Split", "X s", "a Y", {"axis": 1})], {"s": [3, 0]}),
        "node '/a/Split'.*got channels 3 to 3 of 3, expected some of them",
    ),
    "more parts than channels": (
        changed(lambda model: None, [("Split", "X", "a Y", {"axis": 1})], {}),
        "node '/a/Split'.*got the sizes .* for 3 channels",
    ),
    "parts of rows": (
        changed(lambda model: None, [("Split", "X", "a Y", {"axis": 2})], {}),
        "node '/a/Split'.*got axis 2 of NCHW",
    ),
    "no channels": (
        changed(lambda model: None, [("Slice", "X s s a", "Y", {})], {"s": [1], "a": [1]}),
        "node '/Y/Slice'.*got channels 1 to 1 of 3",
    ),
    "a square of no channels": (
        changed(lambda model: None, [("DepthToSpace", "X", "Y", {"blocksize": 2})], {}),
        "node '/Y/DepthToSpace'.*got 3 channels from the layer before it, expected a multiple of 4",
    ),
    "a size divided by nothing": (
        changed(
            lambda model: None,
            [("Shape", "X", "s", {}), ("Div", "s z", "t", {}), ("Reshape", "X t", "Y", {})],
            {"z": [0]},
            shape=(1, 3, 4, 4),
        ),
        "node '/t/Div'.*got attributes",
    ),
    "a size that isn't known": (
        changed(
            lambda model: None,
            [("Shape", "X", "s", {}), ("Mul", "s z", "t", {}), ("Reshape", "X t", "Y", {})],
            {"z": [2**50]},
        ),
        "node '/t/Mul'.*got attributes",
    ),
    "a lone erf": (changed(lambda model: None, [("Erf", "X", "Y", {})], {}), "node '/Y/Erf'.*part of no activation"),
    "an axis": (changed(lambda model: None, [("Softmax", "X", "Y", {"axis": 3})], {}), "got axis 3 of NCHW"),
    "dead": (
        changed(lambda model: None, [*CHAIN, ("Pad", "conv p", "dead", {})], {**KERNEL, "p": [0, 0, 9, 9] * 2}),
        "node '/dead/Pad'.*isn't needed",
    ),
    "the image's channels": (
        changed(lambda model: None, shape=("N", 4, "H", "W")),
        "node '/conv/Conv'.*got 4 channels from the layer before it, expected 3",
    ),
    "attributes of other types": (
        changed(lambda model: None, [("Conv", "X K", "Y", {"strides": "ab", "group": [1]})], KERNEL),
        r"node '/Y/Conv' \(Conv\): got",
    ),
    "axes that are none": (
        changed(lambda model: None, [("Shape", "X", "s", {}), ("ReduceMean", "X s", "Y", {})], {}),
        "node '/Y/ReduceMean'.*got",
    ),
    "a thousand axes": (
        changed(lambda model: None, [("Unsqueeze", "X a", "Y", {})], {"a": [*range(1000)]}),
        "node '/Y/Unsqueeze'.*got the axes",
    ),
    "no layer": (changed(lambda model: None, [("Identity", "X", "Y", {})], {}), "got no layer"),
    "a name with an escape": (
        changed(lambda model: setattr(model.graph.node[1], "op_type", "\x1b[31m" + "x" * 10_000)),
        r"node '/Y/Relu' \(\\x1b",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_named(name, path):
    model, expected = REFUSED[name]
    message = refusal(path, model)
    assert re.search(expected, message), message


def test_cut_off_anywhere_and_bytes_flipped(path):
    data = model_of(CHAIN, {"K": numbers(1, 3, 1, 1)}).SerializeToString()
    for length in range(len(data)):
        refusal(path, data[:length])
    rng = np.random.default_rng(0)
    for _ in range(2000):
        broken = bytearray(data)
        for where in rng.integers(0, len(data), rng.integers(1, 4)):
            broken[where] = rng.integers(0, 256)
        path.write_bytes(bytes(broken))
        try:
            read_onnx(path)
        except ModelFileError:
            continue


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"PK\x03\x04", pickle.dumps(print), b"\x80" * 100, b"{}" * 50, b"\xff" * 4096]
)
def test_what_is_no_model(data, path):
    refusal(path, data)


def test_no_file_at_all(tmp_path):
    (tmp_path / "folder.onnx").mkdir()
    for name in ("none.onnx", "folder.onnx"):
        with pytest.raises(ModelFileError, match="no such file" if name == "none.onnx" else "can't be read"):
            read_onnx(tmp_path / name)


def test_lies_cost_no_memory(path):
    shared = [
        ("Gemm", f"{before} W", after, {"alpha": 2.0}) for before, after in zip("Xabcdefgh", "abcdefghY", strict=True)
    ]
    folded = [("Concat", f"{name} {name}", f"{name}c", {"axis": 0}) for name in ("W", "Wc")]
    lies = [
        b"\x3a" + b"\xff" * 8 + b"\x7f" + b"\x08\x01",  # a graph of 2**63 bytes
        changed(dims(2**20, 2**20)).SerializeToString(),
        model_of(shared, {"W": numbers(512, 512)}, ("N", 512)).SerializeToString(),
        model_of([*folded, ("MatMul", "X Wcc", "Y", {})], {"W": numbers(512, 512)}, ("N", 512)).SerializeToString(),
    ]
    tracemalloc.start()
    for lie in lies:
        refusal(path, lie)
    with open(path, "wb") as file:  # The file has 16 GiB of zeros.
        file.truncate(2**34)
    with pytest.raises(ModelFileError, match="more than 2 GiB"):
        read_onnx(path)
    assert tracemalloc.get_traced_memory()[1] < 2**29
    tracemalloc.stop()


def test_empty_messages_are_counted(path):
    nodes = b"\x0a\x00" * 2**19
    assert "more than 1048576 fields" in refusal(path, b"\x08\x07\x3a\x80\x80\x40" + nodes)


def test_long_names_are_cut(path):
    model = model_of(CHAIN, KERNEL)
    for node in model.graph.node:
        node.name = "." * 500_000 + node.op_type
    model.graph.initializer[0].name = model.graph.node[0].input[1] = "." * 500_000 + "weight"
    path.write_bytes(model.SerializeToString())
    assert max(len(part.path) for part in read_onnx(path).parts) < 220


def test_a_border_beyond_memory_is_not_computed(path, framework):
    nodes = [("Conv", "X K", "Y", {"pads": [60_000, 60_000, 60_000, 60_000]})]
    assert re.search(r"got a result of \d+ numbers", refusal(path, model_of(nodes, KERNEL), framework))


def test_what_onnxruntime_refuses(path, framework):
    model = model_of(CHAIN, KERNEL)
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    assert "onnxruntime" in refusal(path, model, framework)


def test_nan_and_infinity_are_kept_as_they_are(path, framework):
    kernel = KERNEL["K"].copy()
    kernel.flat[:3] = np.nan, np.inf, -np.inf
    path.write_bytes(model_of(CHAIN, {"K": kernel}).SerializeToString())
    assert read_onnx(path).parts[0].layer.kernel.tobytes() == kernel.tobytes()
    assert load(path, backend=framework) is not None


def test_sparse_initialisers_are_refused(path):
    model = model_of(CHAIN, KERNEL)
    values, indices = numpy_helper.from_array(np.ones(1, "f4"), "S"), numpy_helper.from_array(np.zeros(1, "i8"), "")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))
    assert "got sparse initialisers" in refusal(path, model)
