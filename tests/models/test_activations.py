"""Activations that some frameworks lack: held to numbers by hand, read from each framework's own code, and written."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from making import built, convolution, run
from sources import check_text
from torch import nn
from torch.nn import functional as F

from convlab import load, port, save
from convlab.errors import ModelError, UnsupportedError
from convlab.models.adapters import models_of, read
from convlab.models.files.neutral import read_layers, write_layers
from convlab.models.layers.across_channels import GatedLinearUnit
from convlab.models.layers.activations import Activation, celu, softplus, threshold

X = np.concatenate([np.linspace(-9, 9, 89), [-0.5, 0.0, 0.5, -80.0, 80.0, 0.3, -1.0]]).astype("float32")
X = X.reshape(2, 6, 4, 2)
LAYERS = {
    "gelu_tanh": Activation("gelu_tanh"),
    "celu": Activation("celu", 0.3),
    "softplus": Activation("softplus", 2.5),
    "softsign": Activation("softsign"),
    "log_sigmoid": Activation("log_sigmoid"),
    "soft_shrink": Activation("soft_shrink", 0.3),
    "soft_shrink, Keras's": Activation("soft_shrink", 0.5),
    "hard_shrink": Activation("hard_shrink", 0.3),
    "tanh_shrink": Activation("tanh_shrink"),
    "threshold": Activation("threshold", 0.3),
    "squareplus": Activation("squareplus", 2.0),
    "sparse_plus": Activation("sparse_plus"),
    "sparse_sigmoid": Activation("sparse_sigmoid"),
    "glu": GatedLinearUnit(),
}
EXPORTED = [name for name in LAYERS if name not in ("softplus", "squareplus", "sparse_plus", "sparse_sigmoid")]


def of_number(function: str, x: float, a: float) -> float:
    """What a function computes of one number, by its definition."""
    match function:
        case "gelu_tanh":
            return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        case "celu":
            return max(0, x) + min(0, a * (math.exp(x / a) - 1))
        case "softplus":
            return math.log1p(math.exp(a * x)) / a
        case "softsign":
            return x / (1 + abs(x))
        case "log_sigmoid":
            return -math.log1p(math.exp(-x))
        case "soft_shrink":
            return x - a if x > a else x + a if x < -a else 0.0
        case "hard_shrink":
            return x if abs(x) > a else 0.0
        case "tanh_shrink":
            return x - math.tanh(x)
        case "threshold":
            return x if x > a else 0.0
        case "squareplus":
            return (x + math.sqrt(x**2 + a)) / 2
        case "sparse_plus":
            return 0.0 if x <= -1 else x if x >= 1 else (x + 1) ** 2 / 4
        case _:
            assert function == "sparse_sigmoid"
            return 0.0 if x <= -1 else 1.0 if x >= 1 else (x + 1) / 2


def by_hand(layer, x):
    x = x.astype(float)
    if isinstance(layer, GatedLinearUnit):
        return x[:, :3] / (1 + np.exp(-x[:, 3:]))
    return np.vectorize(lambda number: of_number(layer.function, number, layer.parameter), otypes=[float])(x)


@pytest.mark.parametrize("name", LAYERS)
def test_each_framework_has_it(framework, name, tmp_path) -> None:
    layer, models = LAYERS[name], models_of(framework)
    expected = by_hand(layer, X)
    np.testing.assert_allclose(layer.reference(X.astype(float)), expected, rtol=1e-9, atol=1e-15)
    write_layers([layer], tmp_path / "x.safetensors")
    again = read_layers(tmp_path / "x.safetensors")
    natives = models.build(layer, "builtin")
    error = layer.error(X.astype(float), np.zeros(X.shape), "float32")
    assert (np.abs(models.run(natives, X, "float32") - expected) <= error).all()
    assert np.median(error) < 1e-4  # beside a step it is the step
    again += [part.layer for part in models.read(natives[0]).parts]
    assert len(again) == 2
    for other in again:
        assert type(other) is type(layer)
        assert vars(other) == pytest.approx(vars(layer))


def test_the_source(framework, tmp_path) -> None:
    model = built(framework, convolution(6, 6, (1, 1)), *LAYERS.values())
    check_text(framework, models_of(framework).source(read(model).parts, None), model, tmp_path, X)


def test_onnx(framework, tmp_path) -> None:
    pytest.importorskip("onnxruntime")
    layers = [convolution(6, 6, (1, 1)), *(LAYERS[name] for name in EXPORTED)]
    save(built(framework, *layers), path := tmp_path / "m.onnx")  # which onnxruntime has run, too
    loaded = load(path, backend=framework)
    assert np.abs(run(framework, loaded, X) - run(framework, built(framework, *layers), X)).max() < 1e-5
    kinds = [part.layer.kind for part in read(loaded).parts]
    assert sorted(kinds) == sorted(["conv2d", *["activation"] * (len(layers) - 1), *["chunk"] * 2, "multiply"])
    with pytest.raises(ModelError, match=r"layer \d, activation: got squareplus with the parameter 2\.0"):
        save(built(framework, layers[0], LAYERS["squareplus"]), tmp_path / "n.onnx")


class Functions(nn.Module):
    """PyTorch's functions, and modules with other arguments than their defaults."""

    def __init__(self) -> None:
        super().__init__()
        self.random, self.beta, self.gates = nn.RReLU(0.1, 0.5), nn.Softplus(3.0, 30.0), nn.GLU(1)

    def forward(self, x):
        x = F.celu(F.logsigmoid(x), 0.4) + F.softsign(x) - F.tanhshrink(x)
        x = F.softshrink(x, 0.1) * F.hardshrink(x) + F.threshold(x, -0.2, 0.0) + F.threshold(x, 0.1, 0.1)
        x = self.random(x) - F.rrelu(x, training=self.training)
        return F.glu(torch.cat([self.gates(x), self.beta(x)[:, :3]], 1), dim=1)


def test_pytorchs_own(framework) -> None:
    model = Functions().eval()
    with torch.no_grad():
        expected = model(torch.from_numpy(X / 4)).numpy()
    ported = port(model, to=framework, inputs=X / 4)
    assert ported.evidence.same
    assert np.abs(run(framework, ported.model, X / 4) - expected).max() < 1e-4


def test_kerass_own(backends) -> None:
    keras = pytest.importorskip("keras")
    a, ops = keras.activations, keras.ops
    image = keras.Input((None, None, 6))
    x = keras.layers.Conv2D(4, 1, activation="celu")(image)
    x = a.celu(a.log_sigmoid(x), 0.4) + a.softsign(x) - a.tanh_shrink(x)
    x = a.soft_shrink(x) * a.hard_shrink(x, 0.2) + a.threshold(x, -0.2, 0.0) + ops.threshold(x, 0.1, 0.1)
    x = a.squareplus(x) + ops.squareplus(x, 1.0) - a.sparse_plus(a.hard_tanh(x)) * a.sparse_sigmoid(x)
    x = keras.layers.Activation("hard_shrink")(keras.layers.ReLU(threshold=0.3)(x)) + ops.soft_shrink(x, 0.7)
    model = keras.Model(image, a.glu(x))
    expected = model((X / 20).transpose(0, 2, 3, 1)).numpy().transpose(0, 3, 1, 2)
    ported = port(model, to="torch", inputs=X / 20)
    assert ported.evidence.same
    assert np.abs(run("torch", ported.model, X / 20) - expected).max() < 1e-4


def test_jaxs_own(backends) -> None:
    pytest.importorskip("flax")
    import flax.linen as linen
    import jax
    import jax.numpy as jnp

    class Own(linen.Module):
        @linen.compact
        def __call__(self, x):
            x = linen.Conv(4, (1, 1))(x)
            x = jax.nn.celu(jax.nn.log_sigmoid(x), 0.4) + jax.nn.soft_sign(x) - (x - jnp.tanh(x))
            x = jnp.where(jnp.abs(x) > 0.2, x, jnp.zeros_like(x)) * (jax.nn.softplus(2.0 * x) / 2.0)
            x = jax.nn.squareplus(x) + jax.nn.squareplus(x, 1.0) - jax.nn.sparse_plus(jax.nn.hard_tanh(x))
            first, second = jnp.split(x * jax.nn.sparse_sigmoid(x), 2, axis=-1)
            return jax.nn.glu(jnp.concatenate([first, second], axis=-1))

    last = (X / 20).transpose(0, 2, 3, 1)
    bound = Own().bind(Own().init(jax.random.key(0), last))
    ported = port(bound, to="torch", inputs=X / 20)
    assert ported.evidence.same
    assert np.abs(run("torch", ported.model, X / 20) - np.asarray(bound(last)).transpose(0, 3, 1, 2)).max() < 1e-4


@pytest.mark.parametrize("name", LAYERS)
def test_an_input_that_is_off_stays_within_the_error(name) -> None:
    layer, rng, x = LAYERS[name], np.random.default_rng(1), X.astype(float)
    for size in (1e-6, 1e-2, 0.3):
        moved = x + size * rng.normal(size=x.shape)
        error = layer.error(x, np.abs(moved - x), "float64")
        assert (np.abs(layer.reference(moved) - layer.reference(x)) <= error).all()


def test_what_is_another_function_and_what_none_is() -> None:
    assert celu(1.0).function == "elu"
    assert softplus(1.0).parameter == 0
    assert threshold(0.25, 0.25).limits == (0.25, math.inf)
    with pytest.raises(UnsupportedError, match=r"up to 0\.1 it gives 20, expected 0 or 0\.1"):
        threshold(0.1, 20)
    with pytest.raises(UnsupportedError, match=r"beta 1\.0 and threshold 5"):
        softplus(1.0, 5)
    with pytest.raises(UnsupportedError, match=r"got 0\.0 for the parameter of celu"):
        celu(0.0)
