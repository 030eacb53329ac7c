"""Functions of each number, quotients, and one learned number for all: built, read, written and saved."""

from __future__ import annotations

import numpy as np
import pytest
from making import built, convolution, run
from sources import check, net

from convlab import load, port, save
from convlab.models.files.neutral import read_layers, write_layers
from convlab.models.layers.activations import Activation, Clip
from convlab.models.layers.joining import Divide, Maximum, Minimum
from convlab.models.layers.layer import Convolution
from convlab.models.layers.norms import ChannelAffine
from convlab.models.layers.pooling import Pool
from convlab.models.layers.reading import INPUT

X = np.random.default_rng(0).normal(size=(2, 3, 7, 6)).astype("float32")
LEARNED = ChannelAffine(np.float32([1.5]), np.float32([-0.25]), trained=True)
# max(sqrt(|a|) / b, 1 / b, log(b)), no more than b and than 3, and limits at one end alone, where
# a = 1.5 * convolution(x) - 0.25 and b = exp(max(min(a, 1), -2)).
GRAPH = [
    ("conv", convolution(4, 3, (3, 3)), [INPUT]),
    ("learned", LEARNED, ["conv"]),
    ("size", Activation("abs"), ["learned"]),
    ("root", Activation("sqrt"), ["size"]),
    ("limits", Clip(-2.0, 1.0), ["learned"]),
    ("power", Activation("exp"), ["limits"]),
    ("quotient", Divide(), ["root", "power"]),
    ("inverse", Activation("reciprocal"), ["power"]),
    ("logarithm", Activation("log"), ["power"]),
    ("greatest", Maximum(), ["quotient", "inverse", "logarithm"]),
    ("least", Minimum(), ["greatest", "power"]),
    ("below", Clip(0.1), ["least"]),
    ("above", Clip(most=0.75), ["below"]),
    ("last", convolution(2, 4, (1, 1)), ["above"]),
]


def by_hand(x):
    """What the graph computes, written anew."""
    a = GRAPH[0][1].reference(x.astype(float)) * 1.5 - 0.25
    b = np.exp(np.clip(a, -2, 1))
    y = np.minimum(np.maximum(np.maximum(np.sqrt(np.abs(a)) / b, 1 / b), np.log(b)), b)
    return GRAPH[-1][1].reference(np.clip(y, 0.1, 0.75))


def test_models_are_ported_written_and_saved(framework, backends, tmp_path) -> None:
    others = [name for name in backends if name != "numpy"]
    giver, taker = framework, others[(others.index(framework.partition(".")[0]) + 1) % len(others)]
    model, expected = net(giver, GRAPH), by_hand(X)
    ported = port(model, to=taker, inputs=X)
    assert ported.evidence.same
    assert not ported.untouched
    assert np.abs(run(taker, ported.model, X) - expected).max() < 1e-5
    save(model, a := tmp_path / "a.safetensors")
    save(ported, b := tmp_path / "b.safetensors")
    assert a.read_bytes() == b.read_bytes()
    assert np.abs(run(giver, load(a, backend=giver), X) - expected).max() < 1e-5
    check(taker, ported, tmp_path, X)


def test_onnx(framework, tmp_path) -> None:
    pytest.importorskip("onnxruntime")
    save(net(framework, GRAPH), path := tmp_path / "m.onnx")  # which onnxruntime has run, too
    loaded = load(path, backend=framework)
    assert np.abs(run(framework, loaded, X) - by_hand(X)).max() < 1e-5


@pytest.mark.parametrize("layer", [*map(Activation, ("abs", "sqrt", "exp", "log", "reciprocal")), Clip(-0.5, 2)])
def test_an_input_that_is_off_stays_within_the_error(layer) -> None:
    rng, root = np.random.default_rng(1), getattr(layer, "function", "") in ("sqrt", "log")
    x = np.abs(X.astype(float)) if root else X.astype(float)
    for size in (1e-6, 1e-2, 0.3):
        moved = x + size * rng.normal(size=x.shape)
        moved = np.abs(moved) if root else moved
        off = np.abs(moved - x)
        assert (np.abs(layer.reference(moved) - layer.reference(x)) <= layer.error(x, off, "float64")).all()


def test_a_quotient_stays_within_its_error_and_may_be_anything_at_0() -> None:
    rng, a, b = np.random.default_rng(1), X.astype(float), X[::-1].astype(float)
    off = [0.2 * rng.random(a.shape), np.full(a.shape, 0.1)]
    error = Divide().error([a, b], off, "float64")
    assert np.isinf(error[np.abs(b) <= 0.1]).all()
    with np.errstate(divide="ignore"):
        moved = (a + off[0] * np.sign(a)) / (b - off[1] * np.sign(b))
    assert (np.abs(moved - a / b) <= error)[np.abs(b) > 0.1].all()
    assert np.isfinite(error[np.abs(b) > 0.1]).all()


@pytest.mark.parametrize("layer", [Maximum(), Minimum()])
def test_the_greatest_of_inputs_that_are_off_stays_within_the_error(layer) -> None:
    rng = np.random.default_rng(1)
    a, b = X.astype(float), X[::-1, :, :1, :1].astype(float)
    moved = [a + 0.3 * rng.normal(size=a.shape), b + 0.2 * rng.normal(size=b.shape)]
    off = [np.abs(moved[0] - a), np.abs(moved[1] - b)]
    error = layer.error([a, b], off, "float64")
    assert error.shape == a.shape
    assert (np.abs(layer.reference(*moved) - layer.reference(a, b)) <= error * (1 + 1e-12)).all()


def test_a_logarithm_and_a_reciprocal_may_be_anything_where_their_input_may_be_0() -> None:
    x, off = np.array([-1.0, 0.1, 0.1, 2.0]), np.array([0.0, 0.1, 0.05, 0.0])
    assert np.isinf(Activation("log").error(x, off, "float32")).tolist() == [True, True, False, False]
    assert np.isinf(Activation("reciprocal").error(x, off, "float32")).tolist() == [False, True, False, False]


def test_gradients_of_one_number_for_all(framework) -> None:
    """They are sums over all channels, held to their bounds by the comparison."""
    ported = port(net(framework, GRAPH[:2]), to=framework, inputs=X)
    (row,) = [row for row in ported.evidence.rows if row.a == "learned"]
    assert {"gradient of scale", "gradient of shift"} <= set(row.errors)
    dy = np.random.default_rng(2).normal(size=X.shape)
    slopes, bounds = LEARNED.gradients(X.astype(float), dy, "float32")
    np.testing.assert_allclose([slopes["scale"][0], slopes["shift"][0]], [(dy * X).sum(), dy.sum()], rtol=1e-12)
    assert slopes["X"].shape == bounds["X"].shape == X.shape


def test_files_leave_out_limits_that_arent_there(tmp_path) -> None:
    layers = [Clip(-1.0, 0.5), Clip(0.25), Clip(most=3.0), LEARNED, Activation("exp")]
    write_layers(layers, path := tmp_path / "m.safetensors")
    read = read_layers(path)
    assert [each.limits for each in read[:3]] == [each.limits for each in layers[:3]]
    assert read[3].count == 1
    assert b"Infinity" not in path.read_bytes()


def test_subnormal_numbers_may_count_as_zero(framework) -> None:
    """Some frameworks know none: neither a result nor what a large kernel makes of it is held to them."""
    kernel, large = np.zeros((2, 3, 1, 1), "float32"), np.full((2, 2, 1, 1), 1e34, "float32")
    layers = [
        Convolution.of(kernel, np.full(2, 2.0**-125, "float32"), "float32"),
        Pool("average", (8, 8), (8, 8), ((4, 4), (4, 4)), True),
        Convolution.of(large, None, "float32"),
    ]
    mean = layers[1].reference(np.full((1, 1, 8, 8), 2.0**-125))
    assert 0 < mean.min() < np.finfo("float32").tiny
    assert port(built(framework, *layers), to=framework).evidence.same
