"""Single layers of gluon, read and built: each computes what its reading says, and so does what is built from that."""

from __future__ import annotations

import numpy as np
import pytest
from gluon_layers import SIZES, images, models, only, randomly, right, rng, same, semantics

from convlab import errors
from convlab import mxnet as lab
from convlab.models import adapters
from convlab.models.layers.activations import Activation
from convlab.models.layers.layer import BatchNorm, Convolution, Dense, Dropout, Pad
from convlab.models.layers.norms import LayerNorm
from convlab.models.layers.pooling import GlobalPool, Pool
from convlab_mxnet.blocks import Pad2D, ReLU6

import mxnet as mx  # isort: skip (an ordinary import, after convlab's)
from mxnet.gluon import nn  # isort: skip


@pytest.fixture(params=["nd", "np"])
def numpy(request):
    """Whether NumPy's semantics hold."""
    with semantics(request.param == "np"):
        yield request.param == "np"


CONVOLUTIONS = [
    {"channels": 6, "kernel_size": 3},
    {"channels": 6, "kernel_size": (3, 2), "strides": (1, 2), "padding": (1, 0), "use_bias": False},
    {"channels": 6, "kernel_size": 3, "dilation": (2, 1), "padding": 2, "groups": 2},
    {"channels": 8, "kernel_size": 3, "strides": 2, "groups": 4},
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", CONVOLUTIONS)
def test_convolutions(options, dtype, numpy) -> None:
    conv = randomly(nn.Conv2D(in_channels=4, **options), dtype)
    part = only(conv)
    assert (part.path, part.note, part.native is conv, part.layer.spec.dtype) == ("", "Conv2D", True, dtype)
    for size in SIZES:
        right([conv], part.layer, images(size, dtype=dtype), dtype)
    for style in adapters.STYLES:
        natives = models.build(part.layer, style)
        assert isinstance(natives[0].weight.data(), mx.np.ndarray) == numpy
        right(natives, part.layer, images(SIZES[0], dtype=dtype), dtype)
        same(only(natives[0]).layer, part.layer, images(SIZES[0]))


@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize("used", [False, True])
def test_both_kinds_of_arrays_run_whatever_holds(built, used) -> None:
    with semantics(built):
        net = nn.HybridSequential()
        net.add(randomly(nn.Conv2D(3, 3, in_channels=4, activation="relu")), randomly(nn.BatchNorm(in_channels=3)))
        net.add(nn.MaxPool2D(), nn.Swish(), nn.GlobalAvgPool2D(), nn.Flatten())
    with semantics(used):
        natives = [part.native for part in models.read(net).parts]
        x = images(SIZES[0])
        np.testing.assert_array_equal(models.run(natives, x, "float32"), models.run([net], x, "float32"))
        models.gradients(natives, x, np.ones((2, 3)), "float32")
        assert mx.util.is_np_array() == used
    assert not mx.util.is_np_array()
    assert not mx.util.is_np_shape()


@pytest.mark.parametrize("data_format", ["NCHW", "NHWC"])
@pytest.mark.parametrize(
    "options", [{"padding_mode": "circular", "padding": 1}, {"padding": "same_lower", "stride": 2}]
)
def test_convlabs_own(options, data_format, numpy) -> None:
    conv = lab.Conv2D(3, in_channels=4, out_channels=4, groups=2, data_format=data_format, seed=0, **options)
    with pytest.raises(errors.ModelError, match="whose parameters have no values yet"):
        models.read(conv)
    conv.initialize()
    layer = only(conv).layer
    right([conv], layer, images((9, 8)))
    (built,) = models.build(layer, "convlab")
    right([built], layer, images((9, 8)))
    with pytest.raises(errors.UnsupportedError):
        models.build(layer, "builtin")


def test_convlabs_own_in_half_precision() -> None:
    layer = Convolution.of(images((3, 3), dtype="float16"), None, "float16")
    right(models.build(layer, "convlab"), layer, images((9, 8), dtype="float16"), "float16")


POOLS = [
    {"pool_size": 2},
    {"pool_size": (3, 2), "strides": (1, 2), "padding": (1, 0)},
    {"pool_size": 3, "strides": 2, "padding": 1},
    {"pool_size": 3, "strides": 2, "ceil_mode": True},
    {"pool_size": 3, "strides": 2, "padding": 1, "ceil_mode": True},
]


@pytest.mark.parametrize("options", POOLS)
@pytest.mark.parametrize("function", ["max", "average", "average without padding"])
def test_pools(function, options, numpy) -> None:
    if function == "max":
        pool = nn.MaxPool2D(**options)
    else:
        pool = nn.AvgPool2D(**options, count_include_pad=function == "average")
    layer = only(pool).layer
    for size in SIZES:
        right([pool], layer, images(size))
        natives = models.build(layer, "builtin")
        right(natives, layer, images(size, dtype="float64"), "float64")
        same(only(natives[0]).layer, layer, images(size))


OTHERS = [
    nn.GlobalMaxPool2D,
    nn.GlobalAvgPool2D,
    nn.Flatten,
    lambda: nn.Dropout(0.5),
    lambda: nn.ReflectionPad2D(2),
    lambda: Pad2D(((1, 0), (2, 3))),
    lambda: Pad2D(((1, 0), (2, 3)), "edge"),
    lambda: randomly(nn.BatchNorm(in_channels=4)),
    lambda: randomly(nn.BatchNorm(in_channels=4, epsilon=0.1, scale=False, center=False)),
    lambda: nn.Activation("relu"),
    lambda: nn.Activation("sigmoid"),
    lambda: nn.Activation("tanh"),
    lambda: nn.Activation("softrelu"),
    lambda: nn.LeakyReLU(0.1),
    lambda: nn.ELU(0.5),
    nn.GELU,
    nn.Swish,
    ReLU6,
    mx.gluon.model_zoo.vision.mobilenet.RELU6,
]


@pytest.mark.parametrize("make", OTHERS)
def test_other_layers(make, numpy) -> None:
    native = make()
    part = only(native)
    for size in SIZES:
        right([native], part.layer, 4 * images(size))
    natives = models.build(part.layer, "builtin")
    x = images(SIZES[1])
    right(natives, part.layer, x)
    # MXNet computes these two in float32, whatever it is given.
    if not isinstance(part.layer, BatchNorm) and getattr(part.layer, "function", "") not in ("leaky_relu", "gelu"):
        right(natives, part.layer, images(SIZES[1], dtype="float64"), "float64")
    same(only(natives[0]).layer, part.layer, x)


def test_batch_norm_in_double_precision(numpy) -> None:
    part = only(randomly(nn.BatchNorm(in_channels=4), "float64"))
    for natives in ([part.native], models.build(part.layer, "builtin")):
        right(natives, part.layer, images(SIZES[0], dtype="float64"), "float64")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("use_bias", [False, True])
def test_dense(dtype, use_bias, numpy) -> None:
    dense = randomly(nn.Dense(3, use_bias=use_bias, in_units=7), dtype)
    layer = only(dense).layer
    x = rng.standard_normal((5, 7)).astype(dtype).astype(np.float64)
    right([dense], layer, x, dtype)
    natives = models.build(layer, "builtin")
    right(natives, layer, x, dtype)
    same(only(natives[0]).layer, layer, x)


@pytest.mark.parametrize("hybridized", [False, True])
@pytest.mark.parametrize("kind", ["conv", "dense"])
def test_an_activation_inside_is_a_part(kind, hybridized, numpy) -> None:
    layer = nn.Conv2D(4, 3, in_channels=4, activation="relu") if kind == "conv" else nn.Dense(3, "tanh", in_units=4)
    randomly(layer)
    x = images(SIZES[0]) if kind == "conv" else rng.standard_normal((2, 4))
    if hybridized:
        layer.hybridize()
    whole = models.run([layer], x, "float32")
    first, second = models.read(layer).parts
    assert (first.path, second.path, isinstance(second.layer, Activation)) == ("", "", True)
    right([first.native], first.layer, x)
    np.testing.assert_array_equal(models.run([first.native, second.native], x, "float32"), whole)
    np.testing.assert_array_equal(models.run([layer], x, "float32"), whole)
    assert first.native.weight is layer.weight


class OfItsOwn(nn.Conv2D):
    def hybrid_forward(self, F, x, weight, bias=None):
        return 2 * super().hybrid_forward(F, x, weight, bias)


NOTES = [
    (lambda: randomly(OfItsOwn(4, 3, in_channels=2)), "OfItsOwn: it is a Conv2D with a hybrid_forward of its own"),
    (
        lambda: randomly(nn.BatchNorm(axis=3, in_channels=2)),
        "BatchNorm: it normalises axis 3, which isn't that of the channels",
    ),
    (lambda: nn.MaxPool2D(layout="NHWC"), "MaxPool2D: its layout is NHWC"),
    (
        lambda: nn.MaxPool2D(2, 2, 1, ceil_mode=True),
        "MaxPool2D: with its ceil_mode, windows may begin beyond the image",
    ),
    (lambda: nn.Swish(2), "Swish: only MXNet has a swish with beta 2"),
    (
        lambda: nn.Dropout(0.5, axes=(1,)),
        "Dropout: it drops along the axes (1,), expected none, (2, 3) for channels, or (1, 2, 3) for images",
    ),
]


@pytest.mark.parametrize(("make", "note"), NOTES)
def test_notes(make, note) -> None:
    (part,) = models.read(make()).parts
    assert (part.layer, part.note) == (None, note)


# What MXNet lacks.


@pytest.mark.parametrize(
    "layer",
    [
        Convolution.of(np.ones((2, 2, 3, 3)), None, "float32", padding=1, padding_mode="circular"),
        Convolution.of(np.ones((2, 2, 3, 3)), None, "float32", padding="same", stride=2),
        Convolution.of(np.ones((2, 2, 3, 3)), None, "float16"),
        Convolution.of(np.ones((2, 2, 3, 3)), None, "bfloat16"),
        Dense(np.ones((2, 2)), None, "float16"),
        Pad(((1, 1), (1, 1)), "circular"),
        Pool("max", (3, 3), (2, 2), "same"),
        Pool("max", (3, 3), (2, 2), ((1, 0), (1, 1))),
        Pool("max", (2, 2), (2, 2), ((1, 1), (1, 1)), ceil=True),
        Activation("leaky_relu", -1.0),
    ],
)
def test_layers_that_mxnet_lacks(layer) -> None:
    with pytest.raises(errors.UnsupportedError, match=r"MXNet|depends on the image"):
        models.build(layer, "builtin")


def test_dtypes_that_mxnet_lacks() -> None:
    with pytest.raises(errors.UnsupportedError, match="MXNet has no convolution in float16"):
        models.run([randomly(nn.Conv2D(4, 3, in_channels=4), "float16")], images((5, 5)), "float16")
    with pytest.raises(errors.UnsupportedError, match="MXNet has no layer in bfloat16"):
        models.run([nn.Activation("relu")], images((5, 5)), "bfloat16")
    with pytest.raises(errors.ConvlabError):
        models.build(Convolution.of(np.ones((2, 2, 3, 3)), None, "bfloat16"), "convlab")


@pytest.mark.parametrize(
    "layer",
    [
        Pool("max", (3, 3), (1, 1), "same"),
        Pool("average", (2, 2), (2, 2), "valid", count_padding=True),
        GlobalPool("max", keepdims=False),
        Dropout(0.0),
    ],
)
def test_layers_that_mxnet_names_otherwise(layer) -> None:
    for size in SIZES:
        right(models.build(layer, "builtin"), layer, images(size))


def _layer_norm(epsilon):
    return LayerNorm(np.linspace(0.5, 2, 4), np.linspace(-1, 1, 4), epsilon, "float64")


def test_the_epsilon_of_a_layer_norm_in_float64_is_read_as_it_counts() -> None:
    natives = models.build(_layer_norm(1e-3), "builtin")
    assert only(natives[0]).layer.epsilon == np.float32(1e-3)
    right(natives, only(natives[0]).layer, images(SIZES[0], dtype="float64"), "float64")


@pytest.mark.xfail(strict=True, reason="MXNet's operator LayerNorm holds its epsilon in float32, whatever the dtype")
def test_a_layer_norm_in_float64_has_any_epsilon() -> None:
    right(models.build(_layer_norm(1e-3), "builtin"), _layer_norm(1e-3), images(SIZES[0], dtype="float64"), "float64")
