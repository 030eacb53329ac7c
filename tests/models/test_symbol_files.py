"""MXNet's exported files, read without MXNet: written here by hand, byte by byte, and run by other frameworks."""

from __future__ import annotations

import json
import re
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.signal import correlate2d
from scipy.special import softmax

from convlab.errors import ModelFileError
from convlab.models.adapters import models_of
from convlab.models.files.mxnet.exported import read_symbol
from convlab.models.files.save_load import load, save

RNG = np.random.default_rng(0)
ARRAYS = {
    "arg:net0_conv0_weight": RNG.normal(size=(2, 1, 3, 3)).astype("f4"),
    "arg:net0_conv0_bias": RNG.normal(size=2).astype("f4"),
    "arg:net0_batchnorm0_gamma": RNG.normal(size=2).astype("f4"),
    "arg:net0_batchnorm0_beta": RNG.normal(size=2).astype("f4"),
    "aux:net0_batchnorm0_running_mean": RNG.normal(size=2).astype("f4"),
    "aux:net0_batchnorm0_running_var": abs(RNG.normal(size=2)).astype("f4") + 1,
    "arg:net0_dense0_weight": RNG.normal(size=(3, 2 * 2 * 2)).astype("f4"),
}
NORM = ["net0_batchnorm0_gamma", "net0_batchnorm0_beta", "net0_batchnorm0_running_mean", "net0_batchnorm0_running_var"]
# The operator, its name, its options, the names of what it takes.
NODES: list[tuple[str, str, dict[str, str], list[str]]] = [
    (
        "Convolution",
        "net0_conv0_fwd",
        {"kernel": "(3, 3)", "num_filter": "2", "pad": "(1, 1)", "layout": "NCHW", "no_bias": "False"},
        ["data", "net0_conv0_weight", "net0_conv0_bias"],
    ),
    ("BatchNorm", "net0_batchnorm0_fwd", {"eps": "0.5", "fix_gamma": "False"}, ["net0_conv0_fwd", *NORM]),
    ("Activation", "net0_relu0_fwd", {"act_type": "relu"}, ["net0_batchnorm0_fwd"]),
    ("elemwise_add", "net0_plus0", {}, ["net0_relu0_fwd", "net0_conv0_fwd"]),
    (
        "Pooling",
        "net0_pool0_fwd",
        {"kernel": "(2, 2)", "stride": "(2, 2)", "pool_type": "max", "pooling_convention": "valid"},
        ["net0_plus0"],
    ),
    (
        "FullyConnected",
        "net0_dense0_fwd",
        {"num_hidden": "3", "no_bias": "True", "flatten": "True"},
        ["net0_pool0_fwd", "net0_dense0_weight"],
    ),
    ("SoftmaxOutput", "softmax", {}, ["net0_dense0_fwd", "softmax_label"]),
]


def symbol(nodes=NODES) -> dict[str, Any]:
    """The JSON of a symbol, with a node for each variable before the one that takes it."""
    numbers: dict[str, int] = {}
    records: list[dict[str, Any]] = []
    for operator, name, options, inputs in nodes:
        for variable in inputs:
            if variable not in numbers:
                numbers[variable] = len(records)
                records.append({"op": "null", "name": variable, "inputs": []})
        record = {"op": operator, "name": name, "attrs": options, "inputs": [[numbers[each], 0, 0] for each in inputs]}
        numbers[name] = len(records)
        records.append(record)
    return {"nodes": records, "arg_nodes": [], "heads": [[len(records) - 1, 0, 0]]}


def params(arrays=ARRAYS) -> bytes:
    """The bytes of a file of parameters."""
    data = struct.pack("<QQQ", 0x112, 0, len(arrays))
    for array in arrays.values():
        kind = {"float32": 0, "float64": 1, "float16": 2, "int32": 4}[array.dtype.name]
        data += struct.pack(f"<Iii{array.ndim}qiii", 0xF993FAC9, 0, array.ndim, *array.shape, 1, 0, kind)
        data += array.tobytes()
    names = b"".join(len(name).to_bytes(8, "little") + name.encode() for name in arrays)
    return data + struct.pack("<Q", len(arrays)) + names


def written(folder: Path, nodes=NODES, arrays=ARRAYS) -> Path:
    path = folder / "net-symbol.json"
    path.write_text(json.dumps(symbol(nodes)))
    (folder / "net-0003.params").write_bytes(params(arrays))
    return path


@pytest.fixture
def path(tmp_path):
    return written(tmp_path)


def by_hand(x):
    """The result in float64, by SciPy."""
    kernel, bias, scale, shift, mean, variance, dense = (array.astype(float) for array in ARRAYS.values())
    wide = np.pad(x[:, 0].astype(float), ((0, 0), (1, 1), (1, 1)))
    conv = np.array([[correlate2d(image, k[0], "valid") for k in kernel] for image in wide])
    conv += bias.reshape(-1, 1, 1)
    column = (-1, 1, 1)
    norm = (conv - mean.reshape(column)) / np.sqrt(variance.reshape(column) + 0.5)
    both = np.maximum(norm * scale.reshape(column) + shift.reshape(column), 0) + conv
    pooled = both.reshape(len(x), 2, 2, 2, 2, 2).max(axis=(3, 5))
    return softmax(pooled.reshape(len(x), -1) @ dense.T, axis=1)


def test_it_computes_what_scipy_does(framework, path):
    model = load(path, backend=framework, input_size=4)
    x = np.random.default_rng(1).normal(size=(2, 1, 4, 4)).astype("f4")
    np.testing.assert_allclose(models_of(framework).run([model], x, "float32"), by_hand(x), rtol=0, atol=1e-5)


def test_several_heads(framework, path):
    """The convolution and the classes, of which the first goes on into the second."""
    content = symbol()
    place = next(number for number, node in enumerate(content["nodes"]) if node["name"] == "net0_conv0_fwd")
    path.write_text(json.dumps({**content, "heads": [*content["heads"], [place, 0, 0]]}))
    x = np.random.default_rng(1).normal(size=(2, 1, 4, 4)).astype("f4")
    classes, conv = models_of(framework).run([load(path, backend=framework, input_size=4)], x, "float32")
    np.testing.assert_allclose(classes, by_hand(x), rtol=0, atol=1e-5)
    kernel, bias = (ARRAYS[f"arg:net0_conv0_{name}"].astype(float) for name in ("weight", "bias"))
    wide = np.pad(x[:, 0].astype(float), ((0, 0), (1, 1), (1, 1)))
    expected = np.array([[correlate2d(image, k[0], "valid") for k in kernel] for image in wide])
    np.testing.assert_allclose(conv, expected + bias[:, None, None], rtol=0, atol=1e-5)


def test_the_names_are_the_symbols(path):
    assert [(part.path, part.layer.kind) for part in read_symbol(path).parts] == [
        ("net0_conv0", "conv2d"),
        ("net0_batchnorm0", "batch_norm"),
        ("net0_relu0", "activation"),
        ("net0_plus0", "add"),
        ("net0_pool0", "pool"),
        ("net0_dense0", "flatten"),
        ("net0_dense0", "dense"),
        ("softmax", "softmax"),
    ]


@pytest.mark.parametrize(("operator", "function"), [("broadcast_mul", np.multiply), ("broadcast_add", np.add)])
def test_a_number_for_each_channel(framework, tmp_path, operator, function) -> None:
    """A layer scale, as a gluon block with a parameter of its own has it."""
    numbers = RNG.normal(size=(1, 2, 1, 1)).astype("f4")
    arrays = {name: array for name, array in ARRAYS.items() if "conv0" in name} | {"arg:net0_gamma": numbers}
    nodes = [NODES[0], (operator, "net0_scale0", {}, ["net0_conv0_fwd", "net0_gamma"])]
    model = load(written(tmp_path, nodes, arrays), backend=framework)
    x = np.random.default_rng(1).normal(size=(1, 1, 4, 5)).astype("f4")
    kernel, bias = (ARRAYS[f"arg:net0_conv0_{name}"].astype(float) for name in ("weight", "bias"))
    conv = np.array([[correlate2d(np.pad(x[0, 0].astype(float), 1), k[0], "valid") for k in kernel]])
    expected = function(conv + bias[:, None, None], numbers)
    np.testing.assert_allclose(models_of(framework).run([model], x, "float32"), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("operator", "shape", "message"),
    [
        ("broadcast_sub", (1, 2, 1, 1), r"an array of shape \(1, 2, 1, 1\) beside the image"),
        ("broadcast_mul", (1, 2, 4, 4), r"an array of shape \(1, 2, 4, 4\) beside the image"),
        ("broadcast_sub", None, "broadcast_sub of 1 values, expected 2"),
    ],
)
def test_arrays_that_are_no_channels_numbers_are_refused(tmp_path, operator, shape, message) -> None:
    more = {} if shape is None else {"arg:net0_gamma": np.ones(shape, "f4")}
    arrays = {name: array for name, array in ARRAYS.items() if "conv0" in name} | more
    nodes = [NODES[0], (operator, "net0_own0", {}, ["net0_conv0_fwd", *(["net0_gamma"] if more else [])])]
    with pytest.raises(ModelFileError, match=message):
        read_symbol(written(tmp_path, nodes, arrays))


def test_one_of_several_epochs(framework, path):
    other = path.with_name("net-0010.params")
    changed = {**ARRAYS, "arg:net0_conv0_bias": ARRAYS["arg:net0_conv0_bias"] + 1}
    other.write_bytes(params(changed))
    with pytest.raises(ModelFileError, match=r"got 2 files .*net-0003.params, net-0010.params.*params="):
        load(path, backend=framework)
    for epoch, arrays in (("net-0003.params", ARRAYS), (other, changed)):
        (first, *_) = read_symbol(path, path.parent / epoch).parts
        assert first.layer.bias.tolist() == arrays["arg:net0_conv0_bias"].tolist()
    assert load(path, backend=framework, input_size=4, params=other) is not None
    other.unlink()
    path.with_name("net-0003.params").unlink()
    with pytest.raises(ModelFileError, match=r"got 0 files of parameters beside it, expected one, net-0000.params"):
        load(path, backend=framework)


def test_it_is_read_and_not_written(framework, path):
    model = load(path, backend=framework, input_size=4)
    with pytest.raises(ModelFileError, match=r"got the suffix '\.json'"):
        save(model, path)
    with pytest.raises(ModelFileError, match="without into="):
        load(path, into=model)
    with pytest.raises(ModelFileError, match="params="):
        load(path.with_name("m.safetensors"), params=path)


def refusal(path: Path, content: Any) -> str:
    """The error of a symbol with this content, which is left as it is."""
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    path.write_bytes(data)
    with pytest.raises(ModelFileError) as caught:
        read_symbol(path)
    message = str(caught.value)
    assert str(path) in message
    assert "got" in message and "expected" in message and "Hint:" in message, message  # noqa: PT018
    assert len(message) < 1500
    assert path.read_bytes() == data
    return message


def with_node(number: int, **changes: Any) -> dict[str, Any]:
    content = symbol()
    content["nodes"][number].update(changes)
    return content


def test_cut_off_anywhere(path):
    data = json.dumps(symbol()).encode()
    for length in range(len(data)):
        refusal(path, data[:length])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "can't be read"),
        (b"[" * 100_000, "can't be read"),
        (b"9" * 5000, "can't be read"),
        (b" " * (2**24 + 1), "more than 16777216 bytes"),
        (b"\xff\xfe", "can't be read"),
        ([], "no nodes and heads"),
        ({"nodes": {}, "heads": []}, "no nodes and heads"),
        ({"nodes": [3], "heads": [[0, 0, 0]]}, r"nodes\[0\]: got 3"),
        ({"nodes": [{"op": "null", "name": 3}], "heads": [[0, 0, 0]]}, r"nodes\[0\]"),
        ({"nodes": [{"op": "null", "name": "x", "inputs": []}] * 10_001, "heads": [[0, 0, 0]]}, "got 10001 nodes"),
        (with_node(3, inputs=[[0, 0, 0], [3, 0, 0]]), r"node 'net0_conv0_fwd' \(Convolution\): got the inputs"),
        (with_node(3, inputs=[[0, 0, 0], [9, 0, 0]]), r"nodes\[3\].*take what comes behind it"),
        (with_node(3, inputs=[[-1, 0, 0]]), r"nodes\[3\]"),
        (with_node(3, inputs=[[0, 1, 0]]), r"nodes\[3\].*first result"),
        (with_node(3, inputs=[[10**400, 0, 0]]), r"nodes\[3\]"),
        (with_node(3, inputs=None), r"nodes\[3\]"),
        (with_node(3, attrs={"kernel": 3}), r"nodes\[3\].*the attributes"),
        (with_node(3, attrs={}), "net0_conv0: Convolution with the options"),
        (with_node(3, attrs={"kernel": "(5, 5)"}), r"net0_conv0: its kernel has shape \(2, 1, 3, 3\)"),
        (with_node(3, attrs={"kernel": "(3, 3)", "num_group": "0"}), "net0_conv0"),
        (with_node(3, attrs={"kernel": "(3, 3)", "num_group": "7"}), "net0_conv0"),
        (with_node(3, attrs={"kernel": "(3, 3)", "stride": "(0, 1)"}), "net0_conv0"),
        (with_node(3, attrs={"kernel": "(3, 3)", "pad": "(-1, 0)"}), "net0_conv0"),
        (with_node(3, attrs={"kernel": "(3, 3)", "pad": "(100000, 0)"}), "net0_conv0.*padding"),
        (with_node(3, attrs={"kernel": "((" * 90}), "net0_conv0"),
        (with_node(3, op="Custom"), "net0_conv0: convlab doesn't know the operator Custom"),
        (with_node(3, subgraphs=[]), "a graph inside"),
        (with_node(1, name="other"), "takes more than one array: 'other' isn't a parameter"),
        (with_node(8, attrs={"eps": "-1"}), "epsilon -1"),
        ({**symbol(), "heads": []}, r"got the heads \[\]"),
        ({**symbol(), "heads": [[0, 0, 0]]}, "got no layer"),
        ({**symbol(), "heads": [[1, 0, 0]]}, "gives a parameter"),
        ({**symbol(), "heads": [[99, 0, 0]]}, "got the heads"),
        ({**symbol(), "heads": [[3, 0, 0], [8, 1, 0]]}, "got the heads"),
        ({**symbol(), "heads": [[3, 0, 0]] * 1001}, "got the heads"),
    ],
)  # fmt: skip
def test_a_symbol_that_lies(path, content, expected):
    message = refusal(path, content)
    assert re.search(expected, message), message


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("arg:net0_conv0_weight", np.ones((2, 1, 3), "f4")),
        ("arg:net0_conv0_weight", np.ones((2, 1, 3, 3), "i4")),
        ("arg:net0_conv0_bias", np.ones(3, "f4")),
        ("arg:net0_conv0_bias", np.ones(2, "f8")),
        ("arg:net0_batchnorm0_gamma", np.ones(3, "f4")),
        ("aux:net0_batchnorm0_running_mean", np.ones((2, 1), "f4")),
        ("arg:net0_dense0_weight", np.ones(8, "f4")),
    ],
)
def test_arrays_that_dont_fit(path, name, array):
    path.with_name("net-0003.params").write_bytes(params({**ARRAYS, name: array}))
    message = refusal(path, symbol())
    assert "net0_" in message
    assert "its arrays have shapes" in message


def test_arrays_that_are_missing(path):
    for name in ARRAYS:
        others = {key: array for key, array in ARRAYS.items() if key != name}
        path.with_name("net-0003.params").write_bytes(params(others))
        assert "isn't a parameter" in refusal(path, symbol())


def test_channels_that_dont_fit(path):
    narrow = {**ARRAYS, **{key: array[:1] for key, array in ARRAYS.items() if "conv0" in key}}
    path.with_name("net-0003.params").write_bytes(params(narrow))
    assert "node 'net0_batchnorm0_fwd' (BatchNorm): got 1 channels" in refusal(path, symbol())


def test_parameters_that_lie_cost_no_memory(path):
    file = path.with_name("net-0003.params")
    data = file.read_bytes()
    lies = [
        struct.pack("<QQQ", 0x112, 0, 2**61),
        struct.pack("<QQQIii4qiii", 0x112, 0, 1, 0xF993FAC9, 0, 4, *[2**15] * 4, 1, 0, 0),
        *(data[:length] for length in range(0, len(data), 7)),
        data + b"\0",
    ]
    tracemalloc.start()
    for lie in lies:
        file.write_bytes(lie)
        with pytest.raises(ModelFileError, match=r"net-0003\.params: got"):
            read_symbol(path)
    wide = [("FullyConnected", f"d{i}", {}, [f"d{i - 1}" if i else "data", "w"]) for i in range(50)]
    file.write_bytes(params({"w": np.ones((256, 256), "f4")}))
    assert "weights of few layers" in refusal(path, symbol(wide))
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_no_file_at_all(tmp_path):
    with pytest.raises(ModelFileError, match="no such file"):
        read_symbol(tmp_path / "net-symbol.json")
    (tmp_path / "net-symbol.json").mkdir()
    with pytest.raises(ModelFileError, match="it is no file"):
        read_symbol(tmp_path / "net-symbol.json")
