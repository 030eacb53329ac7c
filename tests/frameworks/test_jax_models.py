"""Flax's layers as users write them, linen and nnx: read, ported, compared."""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from making import built, convolution

from convlab import compare, port, port_weights, save
from convlab import jax as lab
from convlab.errors import ModelError, PartialPortWarning
from convlab.models.adapters import models_of, read
from convlab.models.layers.layer import BatchNorm, Dropout
from convlab.testing import oracle_gradients, worst_ratio
from convlab.truth.bounds import gradient_bounds

X = np.random.default_rng(0).normal(scale=2, size=(2, 4, 9, 8)).astype("float32").astype(float)
FUNCTIONS = [
    nn.relu,
    jax.nn.relu6,
    nn.leaky_relu,
    partial(nn.leaky_relu, negative_slope=0.3),
    nn.elu,
    partial(nn.elu, alpha=0.5),
    nn.sigmoid,
    nn.tanh,
    jnp.tanh,
    nn.softplus,
    nn.silu,
    nn.swish,
    nn.gelu,
    partial(nn.gelu, approximate=False),
    partial(nn.max_pool, window_shape=(2, 2)),
    partial(nn.max_pool, window_shape=(3, 2), strides=(2, 2), padding="SAME"),
    partial(partial(nn.max_pool, window_shape=(3, 3)), strides=(2, 1), padding=((1, 0), (0, 1))),
    partial(nn.avg_pool, window_shape=(3, 3), strides=(2, 2), padding="SAME"),
    partial(nn.avg_pool, window_shape=(3, 3), strides=(2, 2), padding="SAME", count_include_pad=False),
    partial(nn.avg_pool, window_shape=(2, 2), strides=(2, 2), padding=((1, 1), (0, 1))),
    partial(jnp.mean, axis=(1, 2)),
    partial(jnp.max, axis=(-2, -3), keepdims=True),
    partial(jnp.pad, pad_width=((0, 0), (1, 2), (0, 3), (0, 0)), mode="reflect"),
]


@pytest.mark.parametrize("number", range(len(FUNCTIONS)))
def test_a_function_is_what_it_is_read_as(number):
    function = FUNCTIONS[number]
    (part,) = read(nn.Sequential([function]).bind({})).parts
    y = np.asarray(function(jnp.asarray(X.transpose(0, 2, 3, 1), "float32")))
    y = y.transpose(0, 3, 1, 2) if y.ndim == 4 else y
    assert worst_ratio(y, part.layer.reference(X), part.layer.error(X, 0 * X, "float32")) <= 1
    again = port(nn.Sequential([function]).bind({}), to="jax").model
    assert np.array_equal(read(again).parts[0].layer.reference(X), part.layer.reference(X))


@pytest.mark.parametrize(
    "function", [lambda x: x, partial(jnp.add, 1.0), partial(jnp.mean, axis=1), partial(nn.avg_pool, window_shape=(2,))]
)
def test_what_has_no_counterpart_is_named_and_left(function):
    with pytest.warns(PartialPortWarning, match="layers_1"):
        ported = port(bound(nn.Sequential([nn.Conv(2, (1, 1)), function])), to="jax")
    assert list(ported.untouched) == ["layers_1"]


def test_a_function_is_ported_beside_one_that_isnt():
    with pytest.warns(PartialPortWarning, match="layers_1"):
        ported = port(bound(nn.Sequential([nn.Conv(2, (1, 1)), lambda x: x, nn.relu])), to="jax.nnx")
    assert ported.layers["layers_2"] == [nn.relu]


def bound(module, x=X):
    images = jnp.asarray(x.transpose(0, 2, 3, 1), "float32")
    return module.bind(module.init(jax.random.key(0), images))


CONVS = [
    {"features": 3, "kernel_size": (3, 3)},
    {"features": 3, "kernel_size": (3, 2), "strides": 2},
    {"features": 3, "kernel_size": (4, 3), "strides": (1, 2), "padding": "VALID"},
    {"features": 3, "kernel_size": (3, 3), "padding": "CIRCULAR"},
    {"features": 3, "kernel_size": (4, 3), "padding": "REFLECT", "kernel_dilation": (1, 2)},
    {"features": 3, "kernel_size": (3, 3), "padding": 1, "kernel_dilation": 2},
    {"features": 3, "kernel_size": (3, 3), "padding": (1, 2)},
    {"features": 3, "kernel_size": (3, 3), "padding": ((0, 2), (1, 0)), "use_bias": False},
    {"features": 4, "kernel_size": (3, 3), "feature_group_count": 2},
]


@pytest.mark.parametrize("number", range(len(CONVS)))
def test_a_convolution_is_what_it_is_read_as(number):
    options = CONVS[number]
    linen = bound(nn.Conv(**options))
    other = {name: each for name, each in options.items() if name != "features"}
    modern = nnx.Conv(4, options["features"], **other, rngs=nnx.Rngs(0))
    for module in (linen, modern):
        (part,) = read(module).parts
        y = np.asarray(module(jnp.asarray(X.transpose(0, 2, 3, 1), "float32"))).transpose(0, 3, 1, 2)
        assert worst_ratio(y, part.layer.reference(X), part.layer.error(X, 0 * X, "float32")) <= 1
        gradients = models_of(read(module).backend).gradients([part.native], X, y, "float32")
        geometry = part.layer.spec.geometry
        true = oracle_gradients(X, part.layer.kernel, y, **geometry)._asdict()
        bounds = gradient_bounds(X, part.layer.kernel, y, "float32", **geometry)._asdict()
        assert set(gradients) == {"X", "K", *(["bias"] if part.layer.bias is not None else [])}
        assert all(worst_ratio(gradients[name], true[name], bounds[name]) <= 1 for name in gradients)
    assert port(linen, to="jax.nnx").evidence.same
    assert port(modern, to="jax").evidence.same


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv(3, (3, 3), input_dilation=2, padding=1),
        nn.Conv(3, (3, 3), mask=jnp.ones((3, 3, 4, 3))),
        nn.ConvTranspose(3, (3, 3), padding="CIRCULAR"),
        nn.ConvLocal(3, (3, 3)),
    ],
)
def test_a_convolution_of_flaxs_alone_is_refused(conv):
    with pytest.raises(ModelError, match=type(conv).__name__):
        port(bound(conv), to="jax.nnx", inputs=X)


def test_a_module_goes_with_its_variables():
    with pytest.raises(ModelError, match=r"without its variables.*Hint: \(module, variables\), or module\.bind"):
        port(nn.Conv(3, (3, 3)), to="jax.nnx")
    with pytest.raises(ModelError, match=r"^the layer: got a Conv whose parameters have no values yet"):
        port(nn.Conv(3, (3, 3)).bind({}), to="jax.nnx")


def test_a_module_that_computes_in_another_dtype_is_read_as_what_it_computes():
    conv = bound(nn.Conv(3, (3, 3), dtype=jnp.bfloat16))
    ported = port(conv, to="jax.nnx")
    assert read(ported.model).parts[0].layer.spec.dtype == "bfloat16"


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train=True):
        x = nn.Conv(4, (3, 3), name="stem")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return Block()(x) + x


class Block(nn.Module):
    def setup(self):
        self.conv = nn.Conv(4, (1, 1))

    def __call__(self, x):
        return self.conv(nn.relu(self.conv(x)))


def test_a_module_of_ones_own_shows_its_layers_when_it_runs():
    model = bound(Net())
    ported = port(model, to="jax.nnx")
    assert ported.evidence.same is True
    assert list(ported.layers) == ["stem", "BatchNorm_0", "relu", "Dropout_0", *BLOCK, "add"]
    assert compare(model, ported.model, X).same is True


BLOCK = ["Block_0/conv", "Block_0/relu"]


class Flattening(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(nn.Conv(4, (3, 3))(x).reshape(x.shape[0], -1))


def test_a_module_that_takes_an_uncommon_size_asks_for_an_image():
    model = bound(Flattening())
    with pytest.raises(ModelError, match=r"no image .* goes through all layers.*Hint: give inputs="):
        port(model, to="jax.nnx")
    assert port(model, to="jax.nnx", inputs=X).evidence.same is True


class Modern(nnx.Module):
    def __init__(self):
        self.stem = nnx.Conv(4, 3, (3, 3), rngs=nnx.Rngs(0))
        self.blocks = nnx.List([nnx.Linear(3, 2, rngs=nnx.Rngs(1))])


def test_an_nnx_module_of_ones_own():
    with pytest.warns(PartialPortWarning, match="Modern has a __call__ of its own"):
        ported = port(Modern(), to="jax")
    assert list(ported.layers) == ["blocks/0", "stem"] or list(ported.layers) == ["stem", "blocks/0"]


def test_nested_sequences_keep_their_paths():
    model = bound(nn.Sequential([nn.Conv(3, (3, 3)), nn.Sequential([nn.relu, nn.Conv(2, (1, 1))])]))
    assert [part.path for part in read(model).parts] == ["layers_0", "layers_1/layers_0", "layers_1/layers_1"]
    ported = port(model, to="jax.nnx").model
    x = jnp.asarray(X.transpose(0, 2, 3, 1), "float32")
    assert jnp.allclose(ported(x), model(x), atol=1e-5)
    inner = nnx.Sequential(nnx.relu, getattr(getattr(ported, "1"), "1"))
    back = port(nnx.Sequential(getattr(ported, "0"), inner), to="jax").model
    assert set(back.variables["params"]) == {"0", "1.1"}
    assert jnp.allclose(back(x), model(x), atol=1e-5)


def test_convlabs_layers_in_either_layout():
    for data_format in ("NCHW", "NHWC"):
        layer = lab.Conv2D(3, out_channels=2, padding="same", data_format=data_format, seed=0)
        x = X if data_format == "NCHW" else X.transpose(0, 2, 3, 1)
        model = layer.bind(layer.init(jax.random.key(0), jnp.asarray(x, "float32")))
        again = port(model, to="jax.nnx", layers="convlab")
        assert again.evidence.same
        assert compare(model, again.model).same


@pytest.mark.parametrize("flavour", ["jax", "jax.nnx"])
def test_weights_go_by_the_models(flavour):
    def make(seed):
        if flavour == "jax":
            module = nn.Sequential([nn.Conv(3, (3, 3)), nn.BatchNorm(use_running_average=True), nn.relu])
            return module.bind(module.init(jax.random.key(seed), jnp.ones((1, 9, 8, 4))))
        rngs = nnx.Rngs(seed)
        return nnx.Sequential(nnx.Conv(4, 3, (3, 3), rngs=rngs), nnx.BatchNorm(3, rngs=rngs), nnx.relu)

    models = models_of(flavour)
    a, b = make(0), make(1)
    assert not compare(a, b)
    assert compare(a, models.with_weights(b, port_weights(None, a, b))).same
    assert compare(a, models.with_weights(b, port_weights(models.weights(a), b, b))).same
    other = nn.Conv(3, (5, 5)).init(jax.random.key(0), jnp.ones((1, 9, 8, 4)))
    with pytest.raises(ModelError, match="another model's"):
        models.with_weights(a, other)


class Residual(nn.Sequential):
    def __call__(self, x):
        return x + super().__call__(x)


class ModernResidual(nnx.Sequential):
    def __call__(self, x):
        return x + super().__call__(x)


def test_a_sequence_with_a_call_of_its_own_is_no_chain():
    x = jnp.asarray(X.transpose(0, 2, 3, 1), "float32")
    for model in (bound(Residual([nn.Conv(4, (3, 3))])), ModernResidual(nnx.Conv(4, 4, (3, 3), rngs=nnx.Rngs(0)))):
        ported = port(model, to="jax", inputs=X)
        assert list(ported.layers)[1:] == ["add"]
        assert jnp.allclose(ported.model(x), model(x), atol=1e-5)


class Asking(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        return nn.Conv(3, (3, 3))(x)


def test_what_cant_be_run_is_said_so():
    asking = Asking()
    asking = asking.bind(asking.init(jax.random.key(0), jnp.ones((1, 9, 8, 4)), True))
    with pytest.raises(ModelError, match=r"it takes 2 arguments \(x, train\).*Hint: give what it takes"):
        port(asking, to="jax", inputs=X)
    wrong = nn.Conv(3, (3, 3)).bind({"params": {"kernel": jnp.ones((3, 5, 4, 3)), "bias": jnp.ones(3)}})
    with pytest.raises(ModelError, match="it can't be run on an image"):
        port(wrong, to="jax")


def test_dense_and_batch_norm_in_another_dtype():
    dense = nn.Dense(3, dtype=jnp.bfloat16)
    dense = dense.bind(dense.init(jax.random.key(0), jnp.ones((1, 5))))
    assert read(port(dense, to="jax.nnx").model).parts[0].layer.dtype == "bfloat16"
    norm = bound(nn.BatchNorm(use_running_average=True, dtype=jnp.bfloat16))
    with pytest.raises(ModelError, match="keeps float32 and computes in bfloat16"):
        port(norm, to="jax.nnx")


def trainable():
    rng = np.random.default_rng(0)
    statistics = [rng.uniform(0.5, 2, 4).astype("float32") for _ in range(4)]
    return [convolution(4, 3, (3, 3)), BatchNorm(*statistics, epsilon=1e-3, momentum=0.9), Dropout(0.5)]


def test_a_linen_chain_is_told_whether_it_trains():
    module, variables = port(built("jax", *trainable()), to="jax").model.unbind()
    x = np.random.default_rng(1).normal(size=(2, 6, 6, 3)).astype("float32")
    inferred = module.apply(variables, x)
    assert np.array_equal(module.apply(variables, x, train=False), inferred)
    keys = {"dropout": jax.random.key(0)}
    trained, updates = module.apply(variables, x, train=True, mutable=["batch_stats"], rngs=keys)
    zeros = float((trained == 0).mean())
    assert 0.3 < zeros < 0.7
    assert set(updates) == {"batch_stats"}
    assert not np.array_equal(updates["batch_stats"]["layers_1"]["mean"], variables["batch_stats"]["layers_1"]["mean"])
    # What isn't dropped is doubled, so that its mean stays.
    module, variables = port(built("jax", convolution(4, 3, (3, 3)), Dropout(0.5)), to="jax").model.unbind()
    trained, kept = module.apply(variables, x, train=True, rngs=keys), module.apply(variables, x)
    assert np.array_equal(trained, np.where(trained == 0, 0, 2 * kept))


def test_a_pair_of_a_module_and_its_variables_is_a_model(tmp_path):
    pair = port(built("jax", *trainable()), to="jax").model.unbind()
    bound = pair[0].bind(pair[1])
    assert compare(pair, bound).same
    assert port(pair, to="jax").evidence.same
    save(pair, tmp_path / "pair.safetensors")
    save(bound, tmp_path / "bound.safetensors")
    assert (tmp_path / "pair.safetensors").read_bytes() == (tmp_path / "bound.safetensors").read_bytes()
    assert jax.tree.all(jax.tree.map(np.array_equal, port_weights(None, pair, pair), pair[1]))
    for strange in ((1, {}), (pair[0], 3), (pair[0],), (nnx.Conv(1, 1, (1, 1), rngs=nnx.Rngs(0)), {})):
        with pytest.raises(ModelError, match="expected a layer or a model"):
            compare(strange, pair)


def test_a_ported_chain_takes_linens_own_switches() -> None:
    """`use_running_average` and `deterministic` overrule `train`, each for its own layers."""
    norm = nn.BatchNorm(momentum=0.9)
    from convlab_jax.models.sequential import Sequential

    model = Sequential([norm, nn.Dropout(0.5)])
    x = jnp.arange(8.0).reshape(1, 2, 2, 2)
    variables = model.init(jax.random.key(0), x)
    inference = model.apply(variables, x)
    np.testing.assert_array_equal(model.apply(variables, x, use_running_average=True, deterministic=True), inference)
    y, updates = model.apply(variables, x, use_running_average=False, mutable=["batch_stats"])
    expected = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5)
    np.testing.assert_allclose(y, expected, atol=1e-6)
    np.testing.assert_allclose(updates["batch_stats"]["layers_0"]["mean"], [0.3, 0.4], atol=1e-6)
