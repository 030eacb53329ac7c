"""Models with branches: a sum, a product, channels one after another; ported, compared, saved and loaded."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from making import convolution, kernel, run
from safetensors import safe_open
from safetensors.numpy import save_file
from scipy.signal import correlate2d
from sources import net

from convlab import compare, load, port, save
from convlab.errors import ModelFileError
from convlab.models.files.neutral import read_parts, write_parts
from convlab.models.layers.activations import Activation, Affine
from convlab.models.layers.flattening import Unflatten
from convlab.models.layers.joining import Add, BroadcastLike, Concatenate, Multiply, Subtract
from convlab.models.layers.layer import Dense, Dropout
from convlab.models.layers.pooling import GlobalPool
from convlab.models.layers.reading import INPUT, Part

STEM = convolution(4, 3, (3, 3), padding=1)
BRANCH = convolution(4, 4, (3, 3), padding=1)
SQUEEZE = convolution(4, 4, (1, 1))
HEAD = Dense(kernel((5, 8)), kernel((5,)))
# The path, the layer, what it takes.
GRAPH = [
    ("stem", STEM, [INPUT]),
    ("relu", Activation("relu"), ["stem"]),
    ("branch", BRANCH, ["relu"]),
    ("add", Add(), ["relu", "branch"]),
    ("depth", Dropout(0.25, images=True), ["add"]),
    ("mean", GlobalPool("average", keepdims=False), ["depth"]),
    ("pool", Unflatten(), ["mean"]),
    ("squeeze", SQUEEZE, ["pool"]),
    ("sigmoid", Activation("sigmoid"), ["squeeze"]),
    ("half", Affine(0.5, 0.25), ["sigmoid"]),
    ("scaled", Multiply(), ["add", "half"]),
    ("both", Concatenate(), ["scaled", "stem"]),
    ("means", GlobalPool("average", keepdims=False), ["both"]),
    ("head", HEAD, ["means"]),
]
PARTS = [Part(path, None, layer, layer.kind, tuple(inputs), path) for path, layer, inputs in GRAPH]
X = np.random.default_rng(5).normal(size=(2, 3, 9, 8)).astype("float32")


def model(name, graph=GRAPH):
    return net(name, graph)


def convolved(x, layer):
    pad = (layer.kernel.shape[2] - 1) // 2
    wide = np.pad(x.astype(float), ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    pairs = [[zip(image, weights, strict=True) for weights in layer.kernel] for image in wide]
    sums = [[sum(correlate2d(channel, k, "valid") for channel, k in each) for each in several] for several in pairs]
    return np.array(sums) + layer.bias.reshape(-1, 1, 1)


def by_hand(x):
    """The result in float64, by SciPy."""
    stem = convolved(x, STEM)
    relu = np.maximum(stem, 0)
    both = relu + convolved(relu, BRANCH)
    share = 1 / (1 + np.exp(-convolved(both.mean((2, 3), keepdims=True), SQUEEZE)))
    channels = np.concatenate([both * (0.5 * share + 0.25), stem], axis=1)
    return channels.mean((2, 3)) @ HEAD.kernel.T.astype(float) + HEAD.bias


def test_a_graph_is_ported_whole(giver, taker):
    ported = port(model(giver), to=taker)
    assert ported.evidence.same
    assert ported.untouched == {}
    assert run(taker, ported.model, X) == pytest.approx(by_hand(X), rel=1e-5, abs=1e-5)
    again = port(ported, to=giver)
    assert np.array_equal(run(giver, again.model, X), run(giver, model(giver), X))


def test_a_file_of_a_graph(framework, tmp_path):
    path, again = tmp_path / "model.safetensors", tmp_path / "again.safetensors"
    save(model(framework), path)
    write_parts(PARTS, again)
    assert path.read_bytes() == again.read_bytes()
    assert run(framework, load(path, backend=framework), X) == pytest.approx(by_hand(X), rel=1e-5, abs=1e-5)


def changed(**layers):
    return [(path, layers.get(path, layer), inputs) for path, layer, inputs in GRAPH]


def rewired(path, *inputs):
    return [(other, layer, [*inputs] if other == path else before) for other, layer, before in GRAPH]


@pytest.mark.parametrize(
    ("graph", "path", "words"),
    [
        (changed(branch=convolution(4, 4, (3, 3), padding=1, padding_mode="zeros", bias=False)), "branch", "bias"),
        (changed(half=Affine(0.5, 0.0)), "half", "[Ss]hift is 0.25 in the first, 0.0 in the second"),
        (changed(relu=Activation("silu")), "relu", "[Ff]unction is relu in the first, silu in the second"),
        (
            rewired("both", "stem", "scaled"),
            "both",
            "[Ss]wapped inputs: the first takes the results of 'scaled',",
        ),
        (rewired("branch", "stem"), "branch", "[Oo]ther inputs: the first takes the results of 'relu', the second"),
    ],
    ids=["a bias", "a number", "a function", "swapped", "another input"],
)
def test_what_differs_is_found_behind_branches(framework, graph, path, words):
    comparison = compare(model(framework), model(framework, graph))
    assert comparison.same is False
    assert comparison.first.a.split("/")[-1] == path
    said = " ".join(str(comparison).split())
    assert re.search(words, said), said


def test_the_order_of_a_sum_is_no_difference(framework):
    assert compare(model(framework), model(framework, rewired("add", "branch", "relu"))).same


def test_a_file_whose_layers_dont_go_together_isnt_written(tmp_path):
    path = tmp_path / "model.safetensors"
    parts = [replace(part, inputs=(INPUT, "stem")) if part.path == "relu" else part for part in PARTS]
    with pytest.raises(ModelFileError, match=r"layers\[1\].inputs: got 2 values, expected one"):
        write_parts(parts, path)
    assert not path.exists()


@pytest.mark.parametrize("layer", [Subtract(), BroadcastLike()])
@pytest.mark.parametrize("inputs", [("stem",), ("stem", INPUT, "stem")])
def test_a_difference_takes_two_values(tmp_path, layer, inputs):
    parts = [PARTS[0], Part("two", None, layer, layer.kind, inputs, "two")]
    with pytest.raises(ModelFileError, match=rf"layers\[1\].inputs: got {len(inputs)} values?, expected two"):
        write_parts(parts, tmp_path / "model.safetensors")


def test_what_a_file_says_of_branches(tmp_path):
    path = tmp_path / "model.safetensors"
    write_parts(PARTS, path)
    with safe_open(path, "numpy") as file:
        about = json.loads(file.metadata()["convlab"])
    assert about["version"] == 2
    said = {record["path"]: record.get("inputs") for record in about["layers"]}
    # Those that take the result of the layer before them alone don't say so.
    named = {path: inputs for path, inputs in said.items() if inputs}
    assert named == {"3": ["1", "2"], "10": ["3", "9"], "11": ["10", "0"]}
    assert [part.inputs for part in read_parts(path)][:4] == [("input",), ("0",), ("1",), ("1", "2")]


@pytest.mark.parametrize(
    ("number", "inputs", "expected"),
    [
        (3, ["1", "9"], "got '9', expected 'input' or the path of a layer before it"),
        (3, "1", "got '1', expected a list of 1 to 1000 paths"),
        (3, [1, 2], r"got \[1, 2\], expected a list"),
        (1, ["0", "0"], "got 2 values, expected one"),
        (8, ["3", "10"], "expected 'input' or the path"),
        (9, ["11", "0"], "expected 'input' or the path"),
    ],
)
def test_branches_of_a_hostile_file_are_refused(tmp_path, number, inputs, expected):
    path = tmp_path / "model.safetensors"
    write_parts(PARTS, path)
    with safe_open(path, "numpy") as file:
        about = json.loads(file.metadata()["convlab"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # it is no dict
    about["layers"][number]["inputs"] = inputs
    save_file(tensors, path, {"convlab": json.dumps(about)})
    with pytest.raises(ModelFileError, match=expected):
        read_parts(path)
