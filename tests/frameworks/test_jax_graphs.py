"""Flax's models with a `__call__` of their own, linen's and nnx's: read as graphs of layers, and ported whole."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax_nets import NETS, ResNet, SENet, inferred, linen, modern

from convlab import compare, load, port, port_weights, save
from convlab.errors import ModelError, PartialPortWarning
from convlab.models.adapters import models_of, read

X = np.random.default_rng(0).normal(size=(2, 3, 18, 16)).astype("float32")
NHWC = X.transpose(0, 2, 3, 1)


def near(a, b):
    return np.allclose(a, b, rtol=1e-4, atol=1e-5)


# The others are ported to the other frameworks by `tests/models/test_jax_ported.py`.
@pytest.mark.parametrize("name", ["resnet", "senet of rows", "mobilenet", "unet"])
def test_a_whole_net_goes_to_the_other_flax_and_back(name):
    model = NETS[name]()
    expected = inferred(model, NHWC)
    assert expected.std() > 1e-3
    to = "jax" if isinstance(model, nnx.Module) else "jax.nnx"
    there = port(model, to=to)
    back = port(there, to="jax.nnx" if to == "jax" else "jax", inputs=X)
    assert there.untouched == back.untouched == {}
    assert there.evidence.same is back.evidence.same is True
    assert near(there.model(jnp.asarray(NHWC)), expected)
    assert near(back.model(jnp.asarray(NHWC)), expected)


def test_parts_have_the_paths_and_inputs_of_the_code():
    parts = read(linen(ResNet())).parts
    by_path = {part.path: part for part in parts}
    assert [part.path for part in parts[:5]] == ["stem", "stem_bn", "relu", "max_pool", "layer1/conv1"]
    assert by_path["layer1/add"].inputs == (by_path["layer1/bn2"].value, by_path["max_pool"].value)
    assert by_path["layer2/downsample"].inputs == by_path["layer2/conv1"].inputs
    assert parts[-1].path == "head"
    paths = [part.path for part in read(modern(lambda rngs: NETS["mobilenet"]())).parts]
    assert paths[3:7] == ["blocks/0/expand", "blocks/0/norms/0", "blocks/0/relu6", "blocks/0/depthwise"]
    assert paths[-4:] == ["average_of_window", "flatten", "dropout", "head"]


class Around(nn.Module):
    """A function between two convolutions."""

    function: object

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3), name="before")(x)
        return nn.Conv(2, (1, 1), name="after")(self.function(x))


def around(function):
    return linen(Around(function))


def padded(mode, **options):
    return lambda x: jnp.pad(x, ((0, 0), (1, 2), (2, 2), (0, 0)), mode, **options)


def squares(x):
    return x.reshape(*x.shape[:3], 2, 2, 1).transpose(0, 1, 3, 2, 4, 5)


FUNCTIONS = {
    "relu": lambda x: jnp.maximum(0, x),
    "relu6": lambda x: jnp.clip(x, 0, 6),
    "silu": lambda x: x * jax.nn.sigmoid(x),
    "tanh": jnp.tanh,
    "softplus": nn.softplus,
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "elu": lambda x: nn.elu(x, 0.5),
    "hard_silu": lambda x: x * nn.hard_sigmoid(x),
    "mish": jax.nn.mish,
    "selu": jax.nn.selu,
    "leaky_relu": lambda x: nn.leaky_relu(x, 0.3),
    "softmax": nn.softmax,
    "abs": jnp.abs,
    "exp": jnp.exp,
    "clip": lambda x: jnp.clip(x, -1, 0.5),
    "max_pool": lambda x: nn.max_pool(x, (2, 2), (2, 2), "SAME"),
    "avg_pool": lambda x: nn.avg_pool(x, (3, 3), (2, 2), "SAME", count_include_pad=False),
    "pad": padded("constant", constant_values=2),
    "max": lambda x: x.max(axis=(1, 2), keepdims=True),
    "pixel_shuffle": lambda x: squares(x).reshape(len(x), 2 * x.shape[1], 2 * x.shape[2], 1),
    "channel_affine": lambda x: x / np.arange(1, 5).astype(x.dtype),
    "average_of_window": lambda x: nn.avg_pool(x, x.shape[1:3]),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_in_a_models_code_is_read_as_what_it_is(name):
    model = around(FUNCTIONS[name])
    assert [part.path for part in read(model).parts] == ["before", name, "after"]
    ported = port(model, to="jax.nnx")
    assert ported.evidence.same is True
    assert near(ported.model(jnp.asarray(NHWC)), model(jnp.asarray(NHWC)))


class Normalised(nn.Module):
    """The mean and the deviation of a data set in a model's code."""

    mean: float = 0.5

    @nn.compact
    def __call__(self, x):
        mean, deviation = np.array([self.mean, 0.4, 0.3], "float32"), jnp.array([0.2, 0.3, 0.4])
        return nn.Conv(2, (3, 3))((x - mean) / deviation)


def test_numbers_for_each_channel_in_a_models_code(tmp_path):
    model = linen(Normalised())
    ported = port(model, to="jax.nnx")
    assert ported.evidence.same is True
    assert not ported.untouched
    assert near(ported.model(jnp.asarray(NHWC)), model(jnp.asarray(NHWC)))
    save(ported, tmp_path / "m.safetensors")
    assert compare(load(tmp_path / "m.safetensors", into=model), model).same is True
    with pytest.raises(ModelError, match="other numbers than those in the model's code"):
        load(tmp_path / "m.safetensors", into=linen(Normalised(0.6)))


NUMBERS = [lambda x: 2 * x, lambda x: x + 0.5, lambda x: 0.5 + x, lambda x: x - 0.1, lambda x: x / 255]


@pytest.mark.parametrize("number", range(len(NUMBERS)))
def test_numbers_between_layers(number):
    model = around(NUMBERS[number])
    assert [part.path for part in read(model).parts] == ["before", "affine", "after"]
    assert near(port(model, to="jax.nnx", inputs=X).model(jnp.asarray(NHWC)), model(jnp.asarray(NHWC)))


def test_operations_on_each_number():
    model = around(lambda x: jnp.sqrt(jnp.maximum(x, 0.1)) / jnp.exp(x) + x**2)
    names = sorted(part.path for part in read(model).parts)
    assert names == ["add", "after", "before", "clip", "divide", "exp", "multiply", "sqrt"]
    assert near(port(model, to="jax.nnx").model(jnp.asarray(NHWC)), model(jnp.asarray(NHWC)))


@pytest.mark.parametrize("mode", ["reflect", "symmetric", "edge", "wrap"])
def test_borders_of_repeated_pixels(mode):
    model = around(padded(mode))
    ported = port(model, to="jax.nnx", layers="convlab", inputs=X).model
    assert near(ported(jnp.asarray(NHWC)), model(jnp.asarray(NHWC)))


def test_functions_that_share_what_they_compute_are_functions_each():
    model = around(lambda x: nn.silu(x) + nn.sigmoid(x) * nn.leaky_relu(x) + nn.leaky_relu(x, 0.3))
    names = [part.path for part in read(model).parts]
    assert sorted(names[1:-1]) == ["add", "add", "leaky_relu", "leaky_relu", "multiply", "sigmoid", "silu"]
    assert near(port(model, to="jax.nnx").model(jnp.asarray(NHWC)), model(jnp.asarray(NHWC)))


def test_same_padding_is_told_from_integers_deep_in_a_model():
    """At 32 pixels, as at every power of 2, SAME pads the last pooling as ((0, 1), (0, 1)) does."""
    for padding in ("SAME", ((0, 1), (0, 1))):

        def pools(x, padding=padding):
            x = nn.max_pool(nn.max_pool(x, (2, 2), (2, 2)), (2, 2), (2, 2))
            return nn.max_pool(x, (3, 3), (2, 2), padding)

        model = around(pools)
        assert [part.layer.padding for part in read(model).parts[1:-1]][2] == ("same" if padding == "SAME" else padding)
        assert port(model, to="jax.nnx").evidence.same is True


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (lambda x: x + jnp.ones((x.shape[1], 1, 1)), r"add: it takes an array of shape \(1, 32, 1, 1\)"),
        (lambda x: jnp.sin(x), "sin"),
        (lambda x: jnp.moveaxis(x, 1, 2), "transpose"),
        (lambda x: nn.avg_pool(x, (x.shape[1] // 2, 2)), "avg_pool, whose arguments depend on the image's size"),
        (lambda x: nn.Conv(4, (3, 3), name="more")(x[None])[0], "more, called with an array of 5 axes"),
    ],
)
def test_what_isnt_known_is_named(function, named):
    model = around(function)
    with pytest.warns(PartialPortWarning, match=named):
        ported = port(model, to="jax.nnx")
    assert ported.evidence.same is None
    assert {"before", "after"} <= set(ported.layers)
    assert "__call__()" in ported.untouched


class Scaled(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(4, 4, (3, 3), rngs=rngs)
        self.scale = nnx.Param(jnp.full(4, 2.0))

    def __call__(self, x):
        return jnp.sin(self.conv(x) * self.scale) + x


def test_code_is_named_by_the_module_that_it_is_of():
    model = nnx.Sequential(nnx.Conv(3, 4, (3, 3), rngs=nnx.Rngs(0)), nnx.relu, Scaled(nnx.Rngs(1)))
    with pytest.warns(PartialPortWarning):
        ported = port(model, to="jax")
    assert list(ported.untouched) == ["layers/2/scale", "layers/2/__call__()"]
    assert ported.untouched["layers/2/__call__()"].startswith("Scaled has a __call__ of its own")


class Twice(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.Dict(conv=nnx.Conv(3, 3, (3, 3), rngs=rngs))

    def __call__(self, x):
        conv = self.layers["conv"]
        return conv(nnx.relu(conv(x))) + x.astype(jnp.float32)


def test_a_layer_that_is_called_twice_is_two():
    model = Twice(nnx.Rngs(0))
    assert [part.path for part in read(model).parts] == ["layers/conv", "relu", "layers/conv", "add"]
    ported = port(model, to="jax").model
    assert near(ported(jnp.asarray(NHWC)), model(jnp.asarray(NHWC)))


def test_a_layer_that_computes_something_else_than_it_says_is_found():
    class Doubling(nnx.Conv):
        def __call__(self, x):
            return 2 * super().__call__(x)

    model = Twice(nnx.Rngs(0))
    model.layers["conv"] = Doubling(3, 3, (3, 3), rngs=nnx.Rngs(0))
    with pytest.warns(PartialPortWarning, match="Doubling: it is a Conv with a __call__ of its own"):
        assert port(model, to="jax", inputs=X).evidence.same is None
    hooked = Twice(nnx.Rngs(0))
    plain = port(hooked, to="jax").model
    hooked.layers["conv"].kernel_dilation = (2, 2)
    assert compare(plain, hooked).same is False


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_nets_of_other_dtypes(dtype):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            y = nn.relu(nn.Conv(3, (3, 3), param_dtype=dtype)(x))
            return y + x

    with jax.enable_x64(dtype == "float64"):
        model = Net().bind(Net().init(jax.random.key(0), jnp.ones((1, 8, 8, 3), dtype)))
        ported = port(model, to="jax.nnx")
    assert ported.evidence.same is True
    assert read(ported.model).parts[0].layer.spec.dtype == dtype


def test_weights_and_files_of_nets(tmp_path):
    model, other = linen(SENet()), SENet()
    other = other.bind(other.init(jax.random.key(1), jnp.ones((1, 16, 16, 3))))
    assert compare(model, other).same is False
    again = other.unbind()[0].bind(port_weights(None, model, other))
    assert np.array_equal(again(jnp.asarray(NHWC)), model(jnp.asarray(NHWC)))
    ported = port(model, to="jax.nnx").model
    for each, suffix in ((model, "msgpack"), (ported, "msgpack")):
        save(each, tmp_path / f"weights.{suffix}")
        loaded = load(tmp_path / f"weights.{suffix}", into=each)
        assert np.array_equal(loaded(jnp.asarray(NHWC)), each(jnp.asarray(NHWC)))


def test_the_layers_of_a_network_are_its_modules():
    """A module that is put in the place of another is read."""
    network = port(linen(ResNet()), to="jax.nnx").model
    network.head = nnx.Linear(6, 7, rngs=nnx.Rngs(0))
    assert len(read(network).parts[-1].layer.kernel) == 7
    assert models_of("jax.nnx").run([network], X, "float32").shape == (2, 7)


class Resized(nnx.Module):
    """An image that is made as large as another one: of images of one size that would be nothing."""

    def __init__(self):
        self.conv, self.other = (nnx.Conv(3, 4, (3, 3), rngs=nnx.Rngs(seed)) for seed in range(2))

    def __call__(self, left, right):
        return self.conv(jax.image.resize(left, (*right.shape[:3], 3), "nearest")) + self.other(right)


def test_inputs_of_different_sizes_are_tried():
    with pytest.warns(PartialPortWarning, match="what depends on the image's size"):
        assert port(Resized(), to="jax.nnx").evidence.same is None
