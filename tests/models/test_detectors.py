"""Detectors: boxes of several levels in rows, and results in nested containers, ported, saved and compared."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from chains import conv
from heads import X, in_order, model, nesting, results
from making import words
from safetensors import safe_open
from safetensors.numpy import save_file
from sources import net, run_source

from convlab import compare, load, port, save
from convlab.errors import ModelFileError, ShapeError
from convlab.models.adapters import read
from convlab.models.files.flow import Flow
from convlab.models.files.neutral import read_parts, write_parts
from convlab.models.layers.activations import Softmax
from convlab.models.layers.outputs import Outputs
from convlab.models.layers.reading import INPUT, Part
from convlab.models.layers.shapes import Known, known_after
from convlab.models.layers.tokens import Anchors, ConcatenatePixels, Tokens


@pytest.fixture
def other(framework, backends) -> str:
    """The framework after this one."""
    others = [name for name in backends if name != "numpy"]
    return others[(others.index(framework.partition(".")[0]) + 1) % len(others)]


def same_bits(given, expected):
    arrays, wanted = in_order(given), in_order(expected)
    return len(arrays) == len(wanted) and all(map(np.array_equal, arrays, wanted))


@pytest.mark.parametrize("name", ["ssd", "retina"])
def test_there_and_back(framework, other, name, tmp_path):
    """The boxes have the framework's own bits, in each container; the source and the file give them, too."""
    original = model(framework, name)
    expected = results(framework, original)
    ported = port(original, to=other)
    assert ported.evidence.same
    assert ported.untouched == {}
    assert same_bits(results(other, ported.model), expected)
    back = results(framework, port(ported, to=framework).model)
    assert same_bits(back, expected)
    assert nesting(back) == nesting(expected)
    save(ported, path := tmp_path / "model.safetensors")
    assert same_bits(results(other, load(path, into=run_source(other, ported.source(), X))), expected)


def test_its_own_source_is_read_whole(framework):
    text = port(model(framework, "ssd"), to=framework).source()
    assert read(run_source(framework, text, X)).whole


def test_a_whole_result(framework):
    """The rows of boxes, (N, boxes, numbers), are alike in all frameworks; gluon's result is a row of all numbers."""
    ssd = in_order(results(framework, model(framework, "ssd")))
    assert [each.shape for each in ssd] == [(2, 768) if framework == "mxnet" else (2, 192, 4), (2, 224, 3)]


@pytest.mark.parametrize("name", ["ssd", "retina"])
def test_onnx(framework, name, tmp_path):
    original = model(framework, name)
    save(original, path := tmp_path / "model.onnx")
    expected = results(framework, original)
    assert same_bits(results(framework, load(path, backend=framework)), expected)
    session = pytest.importorskip("onnxruntime").InferenceSession(path)
    assert same_bits(session.run(None, {"X": X}), expected)
    names = [each.name for each in session.get_outputs()]
    if framework != "mxnet":
        nested = ["boxes", "deep/map", "scores[0]", "scores[1]"]
        assert names == (nested if name == "retina" else ["boxes", "scores"])


def detector(count=3, joined=("one", "two"), names=("boxes[0]", "boxes[1]", "map"), **options):
    return [
        ("first", conv(6, 3, padding=1), [INPUT]),
        ("one", Anchors(count), ["first"]),
        ("second", conv(4, 6, stride=2, padding=1), ["first"]),
        ("two", Anchors(2), ["second"]),
        ("both", ConcatenatePixels(), [*joined]),
        ("shares", Softmax(), ["both"]),
        ("rows", Tokens(), ["shares"]),
        ("boxes", Tokens(), ["two"]),
        ("outputs", Outputs(names), ["rows", "boxes", "second"]),
    ]


def test_a_softmax_over_the_numbers_of_each_box(framework, other, tmp_path):
    native = net(framework, detector())
    first, *_ = in_order(results(framework, native))
    assert np.allclose(first.sum(axis=-1), 1)
    ported = port(native, to=other)
    assert ported.untouched == {}
    assert nesting(results(framework, port(ported, to=framework).model)) == nesting(results(framework, native))
    save(native, path := tmp_path / "model.safetensors")
    write_parts(
        [Part(path, None, layer, layer.kind, tuple(takes), path) for path, layer, takes in detector()],
        again := tmp_path / "again.safetensors",
    )
    assert path.read_bytes() == again.read_bytes()


@pytest.mark.parametrize(
    ("graph", "path", "expected"),
    [
        (detector(joined=("two", "one")), "both", "wapped inputs: the first takes the results of 'one', 'two'"),
        (detector(names=("boxes[0]", "boxes[1]", "maps")), "outputs", "calls its results boxes[0], boxes[1] and map"),
        (detector(names=("[0]", "[1]", "[2][0]")), "outputs", "calls its results"),
    ],
    ids=["swapped", "names", "nesting"],
)
def test_what_differs(framework, graph, path, expected):
    comparison = compare(net(framework, detector()), net(framework, graph))
    assert comparison.same is False
    assert comparison.first.a == path
    assert expected in words(comparison)


def test_places_stand_for_keys(framework):
    """A framework without dictionaries has tuples for them."""
    theirs = net(framework, detector(names=("[0][0]", "[0][1]", "[1]")))
    assert compare(net(framework, detector()), theirs).same


def test_definitions():
    """What NumPy's reshape of images NHWC gives is what users mean by boxes."""
    rng = np.random.default_rng(0)
    low, high = rng.integers(-9, 9, (2, 12, 3, 4)).astype(float), rng.integers(-9, 9, (2, 8, 2, 2)).astype(float)
    boxes = [x.transpose(0, 2, 3, 1).reshape(2, -1, 4) for x in (low, high)]
    both = ConcatenatePixels().reference(Anchors(3).reference(low), Anchors(2).reference(high))
    assert both.shape == (2, 4, 3 * 4 * 3 + 2 * 2 * 2, 1)
    assert np.array_equal(Tokens().reference(both), np.concatenate(boxes, axis=1))
    for layer, values in ((Anchors(3), (low,)), (ConcatenatePixels(), (low, low)), (Tokens(), (high,))):
        off = [np.abs(value) for value in values]
        error = layer.error(values, off, "float32") if len(values) > 1 else layer.error(*values, *off, "float32")
        assert np.array_equal(error, np.abs(layer.reference(*values)))  # they round nothing
    assert known_after(Anchors(3), [Known(12, (3, 4))]) == Known(4, (3, 12))
    assert known_after(ConcatenatePixels(), [Known(4, (3, 12)), Known(4, (2, 4))]) == Known(4, (44, 1))
    with pytest.raises(ShapeError, match="got sequences, expected images"):
        known_after(Tokens(), [Known(4, (7,))])


def test_no_layer_takes_tokens():
    flow = Flow()
    assert flow.through(Tokens(), [INPUT], "0") is None
    assert flow.through(Softmax(), ["0"], "1") == ("tokens", "images")
    assert flow.through(Outputs(), ["0", INPUT], "1") is None


@pytest.mark.parametrize(
    ("number", "change", "expected"),
    [
        (1, {"count": 4}, "got 6 channels from the layer before it, expected a multiple of 4"),
        (1, {"count": 2}, "got 3 and 2 channels, expected the same number"),
        (1, {"count": 0}, "expected an integer from 1 to 65536"),
        (5, {"inputs": ["6"]}, "got '6', expected"),
        (8, {"names": ["boxes[1]", "boxes[0]", "map"]}, "sorted, or those of nested results"),
        (8, {"names": ["boxes[0]", "boxes", "map"]}, "sorted, or those of nested results"),
        (8, {"inputs": ["6", "7"]}, "got 3 names of 2 results"),
    ],
)
def test_hostile_files(tmp_path, number, change, expected):
    parts = [Part(path, None, layer, layer.kind, tuple(inputs), path) for path, layer, inputs in detector()]
    write_parts(parts, path := tmp_path / "model.safetensors")
    with safe_open(path, "numpy") as file:
        about = json.loads(file.metadata()["convlab"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # it is no dict
    about["layers"][number] |= change
    save_file(tensors, path, {"convlab": json.dumps(about)})
    with pytest.raises(ModelFileError, match=re.escape(expected)):
        read_parts(path)


def test_names_come_back(framework):
    last = read(model(framework, "retina")).parts[-1].layer
    keys = ("boxes", "deep/map", "scores[0]", "scores[1]")
    places = ("[0]", "[1][0]", "[2][0]", "[2][1]")
    assert last.names == (places if framework == "mxnet" else keys)
