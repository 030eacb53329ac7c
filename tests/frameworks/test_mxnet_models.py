"""Gluon's models: read, assembled and run, with their weights, files and gradients."""

from __future__ import annotations

import numpy as np
import pytest
from gluon_layers import images, models, randomly, right, rng, semantics
from making import nodes_of

import convlab
from convlab import errors
from convlab import mxnet as lab
from convlab.models import adapters
from convlab.models.layers.activations import Activation
from convlab.models.layers.flattening import Flatten
from convlab.models.layers.layer import Convolution, Dense, Pad
from convlab.models.layers.pooling import Pool
from convlab.truth.bounds import error_ratios, gradient_bounds
from convlab.truth.oracle import oracle_gradients

import mxnet as mx  # isort: skip (an ordinary import, after convlab's)
from mxnet.gluon import nn  # isort: skip


@pytest.fixture(params=["nd", "np"])
def numpy(request):
    """Whether NumPy's semantics hold."""
    with semantics(request.param == "np"):
        yield request.param == "np"


# Models.


def chain():
    inner = nn.HybridSequential()
    inner.add(nn.Conv2D(3, 3, in_channels=2, activation="relu"), nn.BatchNorm(in_channels=3))
    net = nn.HybridSequential()
    net.register_child(inner)
    net.add(mx.gluon.contrib.nn.Identity(), nn.GlobalAvgPool2D(), nn.Dense(4, in_units=3), nn.Dense(2, in_units=4))
    return randomly(net)


def test_a_chain() -> None:
    net = chain()
    reading = models.read(net)
    assert (reading.backend, reading.whole, reading.native is net) == ("mxnet", True, True)
    assert [part.path for part in reading.parts] == ["0.0", "0.0", "0.1", "2", "3", "3", "4"]
    assert [part.note for part in reading.parts[4:]] == ["Dense: it flattens", "Dense", "Dense"]
    x = images((8, 9), 2)
    y = x
    for part in reading.parts:
        right([part.native], part.layer, y)
        y = models.run([part.native], y, "float32").astype(np.float64)
    np.testing.assert_allclose(y, models.run([net], x, "float32"), rtol=1e-6)


def test_a_dense_layer_without_flattening_after_images() -> None:
    net = nn.HybridSequential()
    net.add(nn.MaxPool2D(), randomly(nn.Dense(2, flatten=False, in_units=4)))
    assert models.read(net).parts[1].note == "Dense: it is applied to each row of pixels"


class Residual(nn.HybridSequential):
    def hybrid_forward(self, F, x):
        return x + super().hybrid_forward(F, x)


class Other(mx.gluon.HybridBlock):
    def __init__(self) -> None:
        super().__init__()
        self.first = randomly(nn.Conv2D(2, 1, in_channels=2))
        self.rest = nn.HybridSequential()
        self.rest.add(nn.Activation("relu"))

    def hybrid_forward(self, F, x):
        return self.rest(self.first(x)) + 1


class Sorted(mx.gluon.nn.HybridSequential):
    def hybrid_forward(self, F, x):
        return F.sort(x)


def test_models_that_are_no_chains() -> None:
    residual = Residual()
    residual.add(nn.Activation("relu"))
    reading = models.read(residual)
    assert (reading.whole, [part.layer.kind for part in reading.parts]) == (True, ["activation", "add"])
    reading = models.read(Other())
    assert (reading.whole, [part.path for part in reading.parts]) == (True, ["first", "rest.0", "plusscalar0"])
    unknown = Sorted()
    unknown.add(nn.Activation("relu"))
    assert models.read(unknown).loose == {
        "hybrid_forward()": "Sorted has a hybrid_forward of its own, whose operations between layers (sort0: convlab "
        "doesn't know the operator sort) are not carried"
    }


def test_assembled(numpy) -> None:
    convolution = Convolution.of(images((3, 3), 2), np.ones(2), "float32", padding=((1, 0), (0, 1)))
    dense = Dense(images((3, 24), 1)[0, 0], None)
    neutral = [convolution, Activation("relu"), Pool("max", (2, 2), (2, 2)), Flatten("CHW"), dense]
    natives = [native for layer in neutral for native in models.build(layer, "builtin")]
    net = models.assemble(nodes_of((f"steps.{n // 2}", native) for n, native in enumerate(natives)))
    assert list(net._children) == ["steps.0", "steps.0_1", "steps.1", "steps.1_1", "steps.2", "steps.2_1"]
    x = images((9, 8), 2)
    y = models.run(natives, x, "float32")
    np.testing.assert_array_equal(models.run([net], x, "float32"), y)
    reading = models.read(net)
    assert reading.whole
    assert [type(part.layer) for part in reading.parts] == [Pad, *map(type, neutral)]
    net.hybridize()
    np.testing.assert_allclose(models.run([net], x, "float32"), y, rtol=1e-5)


# Weights.


@pytest.mark.parametrize("hybridized", [False, True])
@pytest.mark.parametrize("make", [chain, lambda: randomly(lab.Conv2D(3, in_channels=2, out_channels=4))])
def test_weights_and_files(make, hybridized, numpy, tmp_path) -> None:
    net, x = make(), images((6, 5), 2)
    if hybridized and not isinstance(net, nn.HybridSequential):
        net.hybridize()
    y = models.run([net], x, "float32")
    before = {name: each.asnumpy() for name, each in models.weights(net).items()}
    changed = models.with_weights(net, {name: 0 * each for name, each in models.weights(net).items()})
    assert not models.run([changed], x, "float32").any()
    np.testing.assert_array_equal(models.run([net], x, "float32"), y)
    models.save(net, tmp_path / "x.params")
    loaded = models.load(tmp_path / "x.params", changed)
    assert set(loaded) == set(before)
    for name, array in loaded.items():
        np.testing.assert_array_equal(array.asnumpy(), before[name])
    np.testing.assert_array_equal(models.run([models.with_weights(changed, loaded)], x, "float32"), y)


# Gradients.


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": "same"},
        {"stride": (3, 2)},
        {"dilation": 2, "padding": 1, "stride": 2},
        {"groups": 2, "stride": 2},
        {"groups": 4, "padding": ((1, 0), (0, 2))},
        {"padding": 1, "padding_mode": "reflect"},
        {"padding": ((0, 2), (1, 0)), "padding_mode": "replicate"},
    ],
)
def test_gradients(options, dtype, numpy) -> None:
    groups = options.get("groups", 1)
    kernel = rng.standard_normal((8, 4 // groups, 3, 2)).astype(dtype).astype(np.float64)
    layer = Convolution.of(kernel, np.ones(8), dtype, **options)
    x = images((8, 9), dtype=dtype)
    dy = rng.standard_normal(layer.reference(x).shape).astype(dtype).astype(np.float64)
    true = oracle_gradients(x, kernel, dy, **layer.spec.geometry)
    bounds = gradient_bounds(x, kernel, dy, dtype, **layer.spec.geometry)
    for style in adapters.STYLES:
        natives = models.build(layer, style)
        right(natives, layer, x, dtype)
        gradients = models.gradients(natives, x, dy, dtype)
        assert set(gradients) == {"X", "K", "bias"}
        for name, array in gradients.items():
            assert error_ratios(array, getattr(true, name), getattr(bounds, name)).max() <= 1, (style, name)


def test_gradients_leave_the_layers_own_alone() -> None:
    conv = randomly(nn.Conv2D(4, 1, in_channels=4, use_bias=False))
    conv.weight.grad()[:] = 7
    x = images((4, 4))
    assert set(models.gradients([conv, nn.Dropout(0.5)], x, np.ones_like(x), "float32")) == {"X", "K"}
    assert (conv.weight.grad().asnumpy() == 7).all()
    np.testing.assert_array_equal(models.gradients([nn.Activation("relu")], x, np.ones_like(x), "float32")["X"], x > 0)


def test_a_layer_must_be_initialised() -> None:
    net = nn.HybridSequential()
    net.add(randomly(nn.Conv2D(4, 3, in_channels=2)), nn.Conv2D(4, 3))
    with pytest.raises(errors.ModelError, match=r"^1: got a Conv2D whose parameters have no values yet.*initialise it"):
        convlab.port(net, to="mxnet")


def test_weights_go_by_the_models() -> None:
    a, b = chain(), chain()
    b = models.with_weights(b, {name: 2 * each for name, each in models.weights(b).items()})
    assert not convlab.compare(a, b)
    filled = models.with_weights(b, convlab.port_weights(None, a, b))
    assert convlab.compare(a, filled).same
    again = models.with_weights(b, convlab.port_weights(models.weights(a), b, b))
    assert convlab.compare(a, again).same


def test_a_filled_copy_trains(tmp_path) -> None:
    """Even if the model that it was copied from had a trainer."""
    net = nn.HybridSequential()
    net.add(nn.Dense(2, in_units=3, use_bias=False))
    net.initialize()
    rows = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 7.0]], "float32")
    x = mx.nd.array(rows)

    def step(model) -> np.ndarray:
        before = model[0].weight.data().asnumpy().copy()
        trainer = mx.gluon.Trainer(model.collect_params(), "sgd", {"learning_rate": 0.5})
        with mx.autograd.record():
            loss = model(x).sum()
        loss.backward()
        trainer.step(1)
        return model[0].weight.data().asnumpy() - before

    expected = np.tile(-0.5 * rows.sum(0), (2, 1))
    np.testing.assert_allclose(step(net), expected, rtol=1e-6)
    convlab.save(net, tmp_path / "net.safetensors")
    own = net[0].weight.data().asnumpy().copy()
    np.testing.assert_allclose(step(convlab.load(tmp_path / "net.safetensors", into=net)), expected, rtol=1e-6)
    np.testing.assert_array_equal(net[0].weight.data().asnumpy(), own)
