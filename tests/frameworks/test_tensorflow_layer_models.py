"""Single layers of Keras, read and built: each computes what its reading says, and so does what is built from that."""

from __future__ import annotations

import itertools
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl
from keras_layers import SIZES, images, models, only, randomly, right, rng, same

import convlab
from convlab import errors
from convlab.models import adapters
from convlab.models.adapters import Node
from convlab.models.layers.activations import Activation
from convlab.models.layers.flattening import Flatten
from convlab.models.layers.layer import BatchNorm, Convolution, Dense, Dropout, Pad
from convlab.models.layers.pooling import Pool
from convlab.models.layers.reading import INPUT
from convlab.truth.bounds import error_ratios
from convlab_tensorflow.models.activations import gelu_tanh

# Reading: the native layer computes what its reading says, and so does what is built from it.

CONVOLUTIONS = [
    {},
    {"padding": "same"},
    {"padding": "same", "strides": 2},
    {"strides": (1, 2), "use_bias": False},
    {"dilation_rate": 2},
    {"padding": "same", "dilation_rate": (1, 2)},
    {"groups": 2},
    {"groups": 2, "strides": 2, "padding": "same"},
    {"groups": 4, "strides": (2, 1)},
]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("options", CONVOLUTIONS)
def test_convolutions(options, dtype) -> None:
    conv = randomly(kl.Conv2D(8, (3, 2), dtype=dtype, **options))
    part = only(conv)
    assert (part.path, part.note, part.native is conv) == ("", "Conv2D", True)
    assert part.layer.spec.dtype == dtype
    for size in SIZES[:2]:
        x = images(size, dtype=dtype)
        right([part.native], part.layer, x, dtype)
    for style in adapters.STYLES:
        natives = models.build(part.layer, style)
        right(natives, part.layer, x, dtype)
        same(only(natives[0]).layer, part.layer, x, dtype)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"depth_multiplier": 3, "padding": "same"},
        {"strides": 2, "padding": "same", "use_bias": False},
        {"dilation_rate": (2, 1)},
        {"depth_multiplier": 2, "data_format": "channels_first"},
    ],
)
def test_depthwise_convolutions(options) -> None:
    first = options.get("data_format") == "channels_first"
    conv = randomly(kl.DepthwiseConv2D((3, 2), **options), (None, 4, None, None) if first else (None, None, None, 4))
    layer = only(conv).layer
    assert layer.spec.groups == 4
    for size in SIZES:
        right([conv], layer, images(size), "float32")
    (built,) = models.build(layer, "builtin")
    assert isinstance(built, kl.DepthwiseConv2D)
    right([built], layer, images(SIZES[0]))
    same(only(built).layer, layer, images(SIZES[0]), "float32")


@pytest.mark.parametrize("data_format", ["NCHW", "NHWC"])
@pytest.mark.parametrize(
    "options",
    [{"padding_mode": "circular", "padding": "same", "stride": 2}, {"padding": "same_lower", "stride": 2}],
)
def test_convlabs_own(options, data_format) -> None:
    lab = convlab.tensorflow
    conv = lab.Conv2D(3, in_channels=4, out_channels=4, groups=2, data_format=data_format, seed=0, **options)
    with pytest.raises(errors.ModelError, match="whose parameters have no values yet"):
        models.read(conv)
    conv.build((None, 4, 9, 8) if data_format == "NCHW" else (None, 9, 8, 4))
    layer = only(conv).layer
    right([conv], layer, images((9, 8)))
    (built,) = models.build(layer, "convlab")
    right([built], layer, images((9, 8)))
    with pytest.raises(errors.UnsupportedError):
        models.build(layer, "builtin")


@pytest.mark.parametrize("function", ["max", "average"])
@pytest.mark.parametrize(
    "options", [{}, {"strides": (1, 2)}, {"padding": "same"}, {"padding": "same", "strides": 1}, {"strides": 3}]
)
def test_pools(function, options) -> None:
    kind = kl.MaxPooling2D if function == "max" else kl.AveragePooling2D
    for data_format in ("channels_last", "channels_first"):
        pool = kind((3, 2), data_format=data_format, **options)
        layer = only(pool).layer
        for size in SIZES:
            right([pool], layer, images(size))
    natives = models.build(layer, "builtin")
    right(natives, layer, images(SIZES[0], dtype="float64"), "float64")
    same(only(natives[0]).layer, layer, images(SIZES[0]), "float32")


@pytest.mark.parametrize(
    "native",
    [
        *(kl.GlobalMaxPooling2D(keepdims=keepdims) for keepdims in (True, False)),
        *(kl.GlobalAveragePooling2D(keepdims=keepdims) for keepdims in (True, False)),
        kl.GlobalAveragePooling2D(data_format="channels_first", keepdims=True),
        kl.ZeroPadding2D(((1, 0), (2, 3))),
        kl.ZeroPadding2D(2, data_format="channels_first"),
        kl.Flatten(),
        kl.Flatten(data_format="channels_first"),
        kl.Dropout(0.5),
        randomly(kl.BatchNormalization()),
        randomly(kl.BatchNormalization(epsilon=0.1, scale=False)),
        randomly(kl.BatchNormalization(center=False, momentum=0.5)),
        randomly(kl.BatchNormalization(axis=1), (None, 4, None, None)),
        kl.ReLU(),
        kl.ReLU(6.0),
        kl.ReLU(negative_slope=0.25),
        kl.LeakyReLU(),
        kl.ELU(0.5),
        *map(kl.Activation, ("relu", "gelu", "silu", "swish", "sigmoid", "tanh", "softplus", "relu6", "leaky_relu")),
        *map(kl.Activation, ("elu", tf.nn.relu, tf.nn.leaky_relu, tf.nn.gelu, tf.sigmoid, kl.LeakyReLU(0.1))),
        *map(kl.Activation, (keras.ops.gelu, keras.ops.elu, gelu_tanh)),
    ],
    ids=lambda native: native.name,
)
def test_other_layers(native) -> None:
    part = only(native)
    for size in SIZES:
        right([native], part.layer, 4 * images(size))
    natives = models.build(part.layer, "builtin")
    x = images(SIZES[1])
    right(natives, part.layer, x)
    if not isinstance(part.layer, BatchNorm) and getattr(part.layer, "function", "")[:4] != "gelu":
        right(natives, part.layer, x, "float64")  # TensorFlow's GELU has constants of float32
    same(only(natives[0]).layer, part.layer, x, "float32")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_batch_norm_of_other_dtypes(dtype) -> None:
    part = only(randomly(kl.BatchNormalization(dtype=dtype)))
    assert part.layer.dtype == dtype
    right([part.native], part.layer, images(SIZES[0], dtype=dtype), dtype)
    right(models.build(part.layer, "builtin"), part.layer, images(SIZES[0], dtype=dtype), dtype)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("use_bias", [False, True])
def test_dense(dtype, use_bias) -> None:
    dense = randomly(kl.Dense(3, use_bias=use_bias, dtype=dtype), (None, 7))
    layer = only(dense).layer
    x = rng.standard_normal((5, 7)).astype(dtype).astype(np.float64)
    right([dense], layer, x, dtype)
    natives = models.build(layer, "builtin")
    right(natives, layer, x, dtype)
    same(only(natives[0]).layer, layer, x, dtype)


# An activation inside.


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", kl.LeakyReLU(0.1), tf.nn.elu])
@pytest.mark.parametrize("kind", ["conv", "depthwise", "dense"])
def test_an_activation_inside_is_a_part(kind, activation) -> None:
    if kind == "conv":
        layer = randomly(kl.Conv2D(4, 3, activation=activation))
    elif kind == "depthwise":
        layer = randomly(kl.DepthwiseConv2D(3, activation=activation))
    else:
        layer = randomly(kl.Dense(3, activation=activation), (None, 4))
    first, second = models.read(layer).parts
    assert (first.path, second.path, isinstance(second.layer, Activation)) == ("", "", True)
    assert type(first.native) is type(layer)
    x = rng.standard_normal((2, 4)) if kind == "dense" else images(SIZES[0])
    right([first.native], first.layer, x)
    np.testing.assert_array_equal(
        models.run([first.native, second.native], x, "float32"), models.run([layer], x, "float32")
    )


def test_a_dtype_policy_is_kept() -> None:
    layer = randomly(kl.Conv2D(4, 3, activation="relu", dtype="mixed_bfloat16"))
    first = models.read(layer).parts[0]
    assert (first.native.dtype_policy.name, first.layer.spec.dtype) == ("mixed_bfloat16", "bfloat16")


def test_an_unknown_activation_inside() -> None:
    first, second = models.read(randomly(kl.Dense(3, activation=keras.ops.sin), (None, 4))).parts
    assert isinstance(first.layer, Dense)
    assert (second.layer, second.note) == (None, "Activation: convlab doesn't know the function sin")


# What isn't known.


class OfItsOwn(kl.Conv2D):
    def call(self, x):
        return 2 * super().call(x)


@pytest.mark.parametrize(
    ("native", "note"),
    [
        (kl.RepeatVector(2), "RepeatVector"),
        (randomly(OfItsOwn(4, 3)), "OfItsOwn: it is a Conv2D with a call of its own"),
        (kl.Softmax(axis=1), "Softmax: its axis is 1, expected -1, the channels"),
        (kl.Activation(keras.ops.sin), "Activation: convlab doesn't know the function sin"),
        (kl.Rescaling([[1.0], [2.0]]), "Rescaling: its scale and offset have the shapes (2, 1) and ()"),
        (
            kl.ReLU(5.0, 0.1),
            "ReLU: only Keras has a ReLU with several of a threshold, a max_value and a negative_slope",
        ),
        (
            kl.Dropout(0.5, noise_shape=(None, 1)),
            "Dropout: it drops along the axes (1,), expected none, (1, 2) for channels, or (1, 2, 3) for images",
        ),
        (
            randomly(kl.BatchNormalization(axis=2), (None, 4, 4, 4)),
            "BatchNormalization: it normalises axis 2, which isn't that of the channels",
        ),
        (
            randomly(kl.Dense(3), (None, 4, 4, 4, 4, 4)),
            "Dense: it is applied to arrays of 6 axes, expected rows of numbers or images",
        ),
    ],
)
def test_notes(native, note) -> None:
    (part,) = models.read(native).parts
    assert (part.layer, part.note) == (None, note)


def test_lora() -> None:
    conv = randomly(kl.Conv2D(4, 3))
    conv.enable_lora(2)
    assert models.read(conv).parts[0].layer is None


# What Keras lacks.


@pytest.mark.parametrize(
    "options",
    [
        {"padding": "same", "stride": 2, "padding_mode": "circular"},
        {"padding": "same_lower", "stride": (1, 2)},
        {"stride": 2, "dilation": 2},
    ],
)
def test_convolutions_that_keras_lacks(options) -> None:
    layer = Convolution.of(np.ones((2, 2, 3, 3)), None, "float32", **options)
    with pytest.raises(errors.UnsupportedError, match='Hint: layers="convlab" has it'):
        models.build(layer, "builtin")
    right(models.build(layer, "convlab"), layer, images((9, 8), 2))


@pytest.mark.parametrize(
    "options",
    [
        {"padding_mode": "reflect"},
        {"padding": "same_lower"},
        {"padding": "full", "stride": 2},
        {"padding": "valid"},
        {"padding": 1},
        {"padding": 1, "stride": 2},
        {"padding": ((0, 1), (2, 0))},
    ],
)
def test_paddings_that_keras_names_otherwise(options) -> None:
    layer = Convolution.of(images((3, 3))[:, :, :3, :3], None, "float32", **options)
    natives = models.build(layer, "builtin")
    for size in SIZES:
        y, true = models.run(natives, x := images(size), "float32"), layer.reference(x)
        assert error_ratios(y, true, layer.error(x, 0 * x, "float32")).max() <= 1
    assert (natives[-1].padding == "same") == (options in ({"padding": 1}, {"padding": "same_lower"}))


@pytest.mark.parametrize(
    "layer",
    [
        Pool("max", (3, 3), (2, 2), ((1, 1), (1, 1))),
        Pool("max", (3, 3), (2, 2), ceil=True),
        Pool("average", (3, 3), (2, 2), "same_lower"),
    ],
)
def test_layers_that_keras_lacks(layer) -> None:
    with pytest.raises(errors.UnsupportedError):
        models.build(layer, "builtin")


@pytest.mark.parametrize("layer", [Flatten("CHW"), Pad(((1, 1), (1, 1)), "reflect"), Pad(((0, 2), (1, 0)), "circular")])
def test_what_convlab_or_two_layers_do(layer) -> None:
    right(models.build(layer, "builtin"), layer, images((9, 8), 2))


@pytest.mark.parametrize(
    "layer",
    [
        Pool("max", (3, 3), (1, 1), ((1, 1), (1, 1))),
        Pool("average", (3, 3), (2, 2), count_padding=True),
        Pool("average", (3, 3), (2, 2), "valid", count_padding=True),
        Pool("average", (3, 3), (2, 2), ((1, 0), (1, 1)), count_padding=True),
        Pool("average", (3, 3), (1, 1), ((1, 1), (1, 1))),
        Dropout(0.5),
    ],
)
def test_pools_that_keras_names_otherwise(layer) -> None:
    for size in SIZES:
        right(models.build(layer, "builtin"), layer, images(size))


def test_more_layers_behind_one_another_than_python_allows_calls() -> None:
    """EfficientNetV2-L is such a model."""
    values = [INPUT, *map(str, range(sys.getrecursionlimit() + 100))]
    shifts = [Node(value, kl.Rescaling(1.0, 1.0), (before,), value) for before, value in itertools.pairwise(values)]
    model = models.assemble([*shifts, Node("sum", kl.Add(), (INPUT, values[-1]), "sum")])
    filled = models.fill(models.read(model), {})
    for each in (model, filled):
        assert float(each(np.full((1, 1, 1, 1), 3.0))[0, 0, 0, 0]) == 6.0 + len(shifts)
    assert len(values) > sys.getrecursionlimit()
