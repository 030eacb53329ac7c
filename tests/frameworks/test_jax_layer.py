"""convlab's layers as users of `flax.linen.Conv` and `flax.nnx.Conv` know theirs, with the same weights."""

from __future__ import annotations

import copy

import flax.linen as nn
import jax
import jax.numpy as jnp
import native_arguments
import numpy as np
import pytest
from flax import nnx

import convlab
from convlab import errors
from convlab import jax as lab
from convlab_jax import layers
from convlab_jax import nnx as nnx_layers

KEY = jax.random.key(0)
X = jnp.asarray(np.random.default_rng(0).standard_normal((2, 9, 8, 4)), "float32")
OPTIONS = (
    {
        "strides": 2,
        "padding": 1,
        "kernel_init": nn.initializers.he_normal(),
        "bias_init": nn.initializers.ones,
    },
    {"feature_group_count": 2, "kernel_dilation": (2, 1), "padding": 0, "use_bias": False},
    {"padding": 1, "param_dtype": jnp.bfloat16, "kernel_init": nn.initializers.constant(0.5)},
    {
        "padding": 1,
        "dtype": jnp.float16,
        "param_dtype": jnp.float32,
        "kernel_init": nn.initializers.lecun_normal(),
        "bias_init": nn.initializers.normal(),
        "mask": None,
        "precision": None,
        "input_dilation": 1,
        "strides": None,
    },
)


def close(found, expected) -> None:
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(np.float32(found), np.float32(expected), rtol=1e-5, atol=1e-6)


def test_every_argument_of_flaxs_is_known() -> None:
    for native, theirs in ((layers.NATIVE, nn.Conv), (nnx_layers.NATIVE, nnx.Conv.__init__)):
        assert native_arguments.unknown_arguments(native, theirs) == []
    assert [n for n in native_arguments.positional(nn.Conv) if n not in ("parent", "name")] == list(layers.NATIVE.order)
    positional = native_arguments.positional(nnx.Conv.__init__)
    assert positional == list(nnx_layers.NATIVE.order[: len(positional)])


@pytest.mark.parametrize("data_format", ["NHWC", "NCHW"])
@pytest.mark.parametrize("options", OPTIONS)
def test_linens_arguments(options, data_format) -> None:
    theirs = nn.Conv(6, (3, 3), **options)
    ours = lab.Conv2D(6, (3, 3), data_format=data_format, **options)
    expected = theirs.init(KEY, X)
    last = data_format == "NHWC"
    x = X if last else X.transpose(0, 3, 1, 2)
    drawn = ours.init(KEY, x)["params"]
    kernel, bias = expected["params"]["kernel"], expected["params"].get("bias")
    assert drawn["weight"].dtype == kernel.dtype
    assert drawn["weight"].shape == (kernel.shape if last else kernel.transpose(3, 2, 0, 1).shape)
    if "bias_init" in options:
        assert float(np.abs(drawn["bias"]).min()) > 0
    parameters = {"weight": kernel if last else kernel.transpose(3, 2, 0, 1)}
    parameters |= {} if bias is None else {"bias": bias}
    y = ours.apply({"params": parameters}, x)
    close(y if last else y.transpose(0, 2, 3, 1), theirs.apply(expected, X))
    assert convlab.compare(theirs.bind(expected), ours.bind({"params": parameters})).same


@pytest.mark.parametrize("options", OPTIONS)
def test_nnxs_arguments(options) -> None:
    """The same initial values from the same Rngs, where an initialiser is given."""
    theirs = nnx.Conv(4, 6, (3, 3), rngs=nnx.Rngs(0), **options)
    ours = lab.nnx.Conv2D(4, 6, (3, 3), data_format="NHWC", rngs=nnx.Rngs(0), **options)
    if "kernel_init" in options:
        np.testing.assert_array_equal(ours.weight[...], theirs.kernel[...])
    if "bias_init" in options:
        np.testing.assert_array_equal(ours.bias[...], theirs.bias[...])
    ours.weight[...] = theirs.kernel[...]
    close(ours(X), theirs(X))
    assert convlab.compare(theirs, ours).same


def test_metadata_of_nnx() -> None:
    layer = lab.nnx.Conv2D(4, 6, 3, seed=0, kernel_metadata={"tag": "k"}, bias_metadata={"tag": "b"})
    assert (layer.weight.tag, layer.bias.tag) == ("k", "b")


def test_an_initialiser_sees_the_channels_in_either_layout() -> None:
    """LeCun's variance is 1 / (9 * 64)."""
    layer = lab.Conv2D(features=64, kernel_size=(3, 3), kernel_init=nn.initializers.lecun_normal())
    weight = layer.init(KEY, jnp.ones((1, 64, 5, 5)))["params"]["weight"]
    assert weight.shape == (64, 64, 3, 3)
    assert float(weight.std()) == pytest.approx(1 / 24, rel=0.02)


def test_linens_modules() -> None:
    layer = lab.Conv2D(5, kernel_size=[3, 2], name="mine")
    assert layer.clone() == layer == copy.deepcopy(layer)
    assert hash(layer.clone()) == hash(layer)
    assert layer.copy(stride=2).stride == 2

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return lab.Conv2D(3, out_channels=2)(lab.Conv2D(features=3, kernel_size=(3, 3), name="first")(x))

    shapes = jax.tree.map(jnp.shape, Net().init(KEY, jnp.ones((1, 4, 9, 9))))["params"]
    assert {name: part["weight"] for name, part in shapes.items()} == {
        "first": (3, 4, 3, 3),
        "Conv2D_0": (2, 3, 3, 3),
    }


class Scaled(lab.Conv2D):
    """A layer of a user's, with a field of its own."""

    scale: float = 1.0

    @nn.compact
    def __call__(self, X):
        return super().__call__(X) * self.scale


@pytest.mark.parametrize("layer", [lab.Conv2D, nn.remat(lab.Conv2D), Scaled])
@pytest.mark.parametrize("arguments", [((3,), {"out_channels": 6}), ((6, (3, 3)), {}), ((), {"features": 6})])
def test_classes_made_of_the_layer(layer, arguments) -> None:
    positional, options = arguments
    options = {
        **options,
        **({} if positional else {"kernel_size": [3, 3]}),
        **({"scale": 2.0} if layer is Scaled else {}),
    }
    ours = layer(*positional, **options, data_format="NHWC")
    theirs = nn.Conv(6, (3, 3), padding="VALID")
    variables = theirs.init(KEY, X)
    parameters = {"weight": variables["params"]["kernel"], "bias": variables["params"]["bias"]}
    y = ours.apply({"params": parameters}, X)
    close(y, theirs.apply(variables, X) * (2 if layer is Scaled else 1))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: lab.Conv2D(8, (3, 3), input_dilation=2), errors.UnsupportedError, "input_dilation: got 2"),
        (lambda: lab.Conv2D(8, (3, 3), mask=np.ones((3, 3))), errors.UnsupportedError, "mask: got"),
        (lambda: lab.Conv2D(8, (3, 3), precision="high"), errors.UnsupportedError, "precision: got 'high'"),
        (lambda: lab.Conv2D(8, (3,)), errors.GeometryError, "kernel_size: got"),
        (lambda: lab.Conv2D(3, filters=3), errors.OptionError, "Hint: write out_channels=3"),
        (lambda: lab.Conv2D(3, seed=0, kernel_init=nn.initializers.ones), errors.OptionError, "seed, kernel_init"),
        (lambda: lab.nnx.Conv2D(3, 8), errors.OptionError, "kernel_size: got none"),
    ],
)
def test_what_is_refused(call, error, message) -> None:
    with pytest.raises(error, match=message):
        call()


def test_an_image_that_looks_channels_last() -> None:
    with pytest.warns(errors.LayoutWarning, match=r"X: got shape \(16, 16, 3\), which looks like \(H, W, C\)"):
        lab.Conv2D(3, out_channels=2).init(KEY, jnp.ones((16, 16, 3)))
    lab.Conv2D(3, out_channels=2, data_format="NCHW").init(KEY, jnp.ones((16, 16, 3)))


def test_unsigned_integers_of_64_bits() -> None:
    """JAX makes uint32 of them without its x64 flag, which would drop the upper half."""
    array = lab.asarray(np.array([2**40 + 3], "uint64"))
    assert (lab.ops.dtype(array), np.asarray(array).tolist()) == ("uint64", [2**40 + 3])
