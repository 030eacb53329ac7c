"""Models with several results: ported, compared, saved, written as source, trained."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from chains import conv
from heads import X, in_order, model, results, trained
from making import words
from safetensors import safe_open
from safetensors.numpy import save_file
from sources import net, run_source

from convlab import compare, load, port, save
from convlab.errors import ModelFileError
from convlab.models.adapters import read
from convlab.models.files.neutral import read_parts, write_parts
from convlab.models.layers.activations import Activation
from convlab.models.layers.layer import Dense, Dropout
from convlab.models.layers.outputs import Outputs, in_rows
from convlab.models.layers.pooling import GlobalPool
from convlab.models.layers.reading import INPUT, Part

NAMES = ("boxes", "scores")
STEM, BOXES = conv(4, 3, stride=2, padding=1), conv(2, 4, (1, 1))
SCORES = Dense(np.arange(12.0, dtype="float32").reshape(3, 4), np.ones(3, "float32"))


@pytest.fixture
def other(framework, backends) -> str:
    """The framework after this one."""
    others = [name for name in backends if name != "numpy"]
    return others[(others.index(framework.partition(".")[0]) + 1) % len(others)]


def heads(outputs, inputs, boxes=BOXES):
    """The graph of a model of two heads."""
    return [
        ("stem", STEM, [INPUT]),
        ("relu", Activation("relu"), ["stem"]),
        ("boxes", boxes, ["relu"]),
        ("mean", GlobalPool("average", keepdims=False), ["relu"]),
        ("scores", SCORES, ["mean"]),
        ("outputs", outputs, inputs),
    ]


GRAPH = heads(Outputs(NAMES), ["boxes", "scores"])
PARTS = [Part(path, None, layer, layer.kind, tuple(inputs), path) for path, layer, inputs in GRAPH]


def same_bits(given, expected):
    arrays, wanted = in_order(given), in_order(expected)
    return len(arrays) == len(wanted) and all(map(np.array_equal, arrays, wanted))


def test_a_detector(giver, taker):
    """Integers have the same bits everywhere, in the container that the framework has for them."""
    original = model(giver, "detector")
    ported = port(original, to=taker)
    assert ported.evidence.same
    assert ported.untouched == {}
    expected, given = results(giver, original), results(taker, ported.model)
    assert same_bits(given, expected)
    assert (isinstance(given, dict) and sorted(given) == [*NAMES]) == ("mxnet" not in (giver, taker))
    back = results(giver, port(ported, to=giver).model)
    assert same_bits(back, expected)
    assert isinstance(back, dict) == (giver != "mxnet")  # Through gluon the names come back, too.


def test_a_pyramid(framework, other, tmp_path):
    """A result of one level goes on into the next one; the source gives them as the model does."""
    original = model(framework, "pyramid")
    ported = port(original, to=other)
    assert ported.untouched == {}
    expected = results(framework, original)
    assert same_bits(results(other, ported.model), expected)
    assert same_bits(results(framework, port(ported, to=framework).model), expected)
    save(ported, path := tmp_path / "model.safetensors")
    loaded = load(path, into=run_source(other, ported.source(), X))
    assert same_bits(results(other, loaded), expected)


def test_the_source_of_a_detector(framework, tmp_path):
    ported = port(net(framework, GRAPH), to=framework)
    save(ported, path := tmp_path / "model.safetensors")
    loaded = load(path, into=run_source(framework, ported.source(), X))
    given = results(framework, loaded)
    assert same_bits(given, results(framework, ported.model))
    assert isinstance(given, dict) == (framework != "mxnet")


@pytest.mark.parametrize("name", ["pyramid", "detector"])
def test_files(framework, name, tmp_path):
    """A dictionary's names are those of ONNX's outputs, which are a tuple when they are read."""
    original = model(framework, name)
    for file in ("model.safetensors", "model.onnx"):
        save(original, tmp_path / file)
        again = load(tmp_path / file, backend=framework)
        assert same_bits(results(framework, again), results(framework, original))
    session = pytest.importorskip("onnxruntime").InferenceSession(tmp_path / "model.onnx")
    assert same_bits(session.run(None, {"X": X}), results(framework, original))
    names = [*NAMES] if name == "detector" and framework != "mxnet" else ["Y0", "Y1", "Y2"][: 2 + (name == "pyramid")]
    assert [each.name for each in session.get_outputs()] == names


def test_what_a_file_says(framework, tmp_path):
    path, again = tmp_path / "model.safetensors", tmp_path / "again.safetensors"
    save(net(framework, GRAPH), path)
    write_parts(PARTS, again)
    assert path.read_bytes() == again.read_bytes()
    with safe_open(path, "numpy") as file:
        *_, last = json.loads(file.metadata()["convlab"])["layers"]
    assert last == {"path": "5", "kind": "outputs", "names": [*NAMES], "inputs": ["2", "4"]}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"names": ["boxes"]}, "got 1 names of 2 results, expected several, and none or one of each"),
        ({"names": ["scores", "boxes"]}, "expected different strings of 1 to 200 characters, sorted"),
        ({"names": ["scores", ""]}, "expected different strings"),
        ({"inputs": ["2"], "names": []}, "got 0 names of 1 results"),
        ({"inputs": ["2", "5"]}, "got '5', expected 'input' or the path of a layer before it"),
        ({"more": True}, "got layers behind it, expected none"),
    ],
)
def test_hostile_files(tmp_path, change, expected):
    write_parts(PARTS, path := tmp_path / "model.safetensors")
    with safe_open(path, "numpy") as file:
        about = json.loads(file.metadata()["convlab"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # it is no dict
    if change.pop("more", False):
        about["layers"].append({"path": "6", "kind": "dropout", "rate": 0.5})
    about["layers"][5] |= change
    save_file(tensors, path, {"convlab": json.dumps(about)})
    with pytest.raises(ModelFileError, match=re.escape(expected)):
        read_parts(path)


@pytest.mark.parametrize(
    ("graph", "path", "expected"),
    [
        (heads(Outputs(NAMES), ["boxes", "scores"], conv(2, 4, (1, 1), bias=False)), "boxes", "has a bias"),
        (heads(Outputs(NAMES), ["scores", "boxes"]), "outputs", "Swapped results: the first model gives those of"),
        (heads(Outputs(NAMES), ["boxes", "mean"]), "scores", "second model has no dense: the first has 'scores'"),
        (heads(Outputs(("a", "b")), ["boxes", "scores"]), "outputs", "calls its results boxes and scores, the second"),
        (heads(Outputs(), ["boxes", "scores", "relu"]), "outputs", "Other results: the first model gives those of"),
    ],
    ids=["a bias", "swapped", "another", "names", "more"],
)
def test_what_differs(framework, graph, path, expected):
    comparison = compare(net(framework, GRAPH), net(framework, graph))
    assert comparison.same is False
    assert comparison.first.a == path
    assert expected[1:] in words(comparison)


def test_names_dont_count_where_one_has_none(framework):
    assert compare(net(framework, GRAPH), net(framework, heads(Outputs(), ["boxes", "scores"]))).same


def test_a_value_twice_and_the_image(framework, other):
    graph = heads(Outputs(), ["scores", INPUT, "relu", "relu"])
    ported = port(net(framework, graph), to=other)
    assert ported.evidence.same
    rows, image, relu, again = results(other, ported.model)
    assert np.array_equal(image, X)
    assert np.array_equal(relu, again)
    assert rows.shape == (2, 3)


def test_the_last_layers_may_do_nothing(framework):
    graph = [("stem", STEM, [INPUT]), ("drop", Dropout(0.5), ["stem"]), ("outputs", Outputs(), ["drop", "stem"])]
    assert compare(net(framework, graph), net(framework, [graph[0], ("outputs", Outputs(), ["stem", "stem"])])).same


def test_the_definition_in_rows():
    """To bounds all results together are rows of numbers; the errors of each are carried."""
    values = X[:, :2], X[:, 0, 0]
    layer = Outputs()
    assert np.array_equal(layer.reference(*values), in_rows(values))
    assert layer.reference(*values).shape == (2, 2 * 16 * 16 + 16)
    assert np.array_equal(layer.error(values, values, "float32"), in_rows(values))


def test_the_part_that_gives_the_results(framework):
    last = read(model(framework, "detector")).parts[-1]
    assert isinstance(last.layer, Outputs)
    assert last.layer.names == (() if framework == "mxnet" else NAMES)
    assert len(last.inputs) == 2


def test_training(framework):
    """A step down the gradient of the sum of all numbers changes a port as it changes the original."""
    original = model(framework, "detector")
    new = trained(framework, port(original, to=framework).model)
    assert same_bits(results(framework, new), results(framework, trained(framework, original)))
    assert not same_bits(results(framework, new), results(framework, model(framework, "detector")))
