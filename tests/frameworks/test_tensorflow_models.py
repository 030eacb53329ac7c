"""Keras's models: read, assembled and run, with their weights, files and gradients."""

from __future__ import annotations

import itertools

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl

import convlab
from convlab import errors
from convlab.models import adapters
from convlab.models.files import foreign
from convlab.models.layers.activations import Activation
from convlab.models.layers.layer import BatchNorm, Convolution, Dense, Dropout, Flatten, Pad
from convlab.models.layers.pooling import GlobalPool, Pool
from convlab.truth.bounds import error_ratios, gradient_bounds
from convlab.truth.oracle import oracle_gradients
from convlab_tensorflow.models.read import gelu_tanh

models = adapters.models_of("tensorflow")
rng = np.random.default_rng(0)
SIZES = [(9, 8), (7, 11), (10, 10)]


def images(size, channels=4, dtype="float32"):
    x = rng.standard_normal((2, channels, *size))
    return tf.cast(tf.cast(x, dtype), tf.float64).numpy()


def right(natives, layer, x, dtype="float32") -> None:
    y = models.run(natives, x, dtype)
    true = layer.reference(x)
    assert y.shape == true.shape
    assert error_ratios(y, true, layer.error(x, 0 * x, dtype)).max(initial=0) <= 1


def randomly(layer, shape=(None, None, None, 4)):
    """A built layer with random numbers in it."""
    layer.build(shape)
    layer.set_weights([rng.uniform(0.5, 1.5, each.shape) for each in layer.weights])
    return layer


def only(model):
    (part,) = models.read(model).parts
    assert part.layer is not None, part.note
    return part


def same(layer, other, x, dtype) -> None:
    assert type(layer) is type(other)
    np.testing.assert_allclose(
        layer.reference(x), other.reference(x), rtol=0, atol=1e-300 + 1e-12 * np.abs(other.reference(x)).max()
    )


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


@pytest.mark.parametrize(
    "options", [{}, {"groups": 2, "padding": "same"}, {"strides": 2}, {"dilation_rate": 2, "dtype": "float64"}]
)
def test_channels_first(options) -> None:
    # Keras 3.15 adds the bias along the rows where they are as long as there are filters.
    conv = randomly(kl.Conv2D(12, 3, data_format="channels_first", **options), (None, 4, None, None))
    part, dtype = only(conv), options.get("dtype", "float32")
    for size in SIZES:
        right([conv], part.layer, images(size, dtype=dtype), dtype)
    row = convlab.port(conv, to="numpy").evidence.rows[0]
    assert {"gradient of X", "gradient of K", "gradient of bias"} < set(row.own)
    assert max(row.own.values()) <= 1


def test_models_of_channels_first(tmp_path) -> None:
    first = {"data_format": "channels_first"}
    model = keras.Sequential(
        [
            keras.Input((3, 12, 12)),
            kl.Conv2D(8, 3, activation="relu", **first),
            kl.BatchNormalization(axis=1),
            kl.MaxPooling2D(**first),
            kl.Conv2D(4, 3, strides=2, use_bias=False, **first),
        ]
    )
    ported = convlab.port(model, to="tensorflow").model
    assert {each.data_format for each in ported.layers if hasattr(each, "data_format")} == {"channels_last"}
    assert convlab.compare(ported, model).whole_model_errors == (0, 0)
    convlab.save(model, tmp_path / "model.safetensors")
    assert convlab.compare(model, convlab.load(tmp_path / "model.safetensors", backend="tensorflow"))


@pytest.mark.parametrize("data_format", ["NCHW", "NHWC"])
@pytest.mark.parametrize(
    "options", [{"padding_mode": "circular", "padding": 1}, {"padding": "same_lower", "stride": 2}]
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
    first, second = models.read(randomly(kl.Dense(3, activation="softmax"), (None, 4))).parts
    assert isinstance(first.layer, Dense)
    assert (second.layer, second.note) == (None, "Activation: convlab doesn't know the function softmax")


# What isn't known.


class OfItsOwn(kl.Conv2D):
    def call(self, x):
        return 2 * super().call(x)


@pytest.mark.parametrize(
    ("native", "note"),
    [
        (randomly(kl.Conv2DTranspose(4, 3)), "Conv2DTranspose"),
        (randomly(kl.SeparableConv2D(4, 3)), "SeparableConv2D"),
        (randomly(OfItsOwn(4, 3)), "OfItsOwn: it is a Conv2D with a call of its own"),
        (kl.Softmax(), "Softmax"),
        (kl.Activation("softmax"), "Activation: convlab doesn't know the function softmax"),
        (kl.ReLU(5.0), "ReLU: only Keras has a ReLU with its threshold or max_value"),
        (kl.Dropout(0.5, noise_shape=(None, 1)), "Dropout: only Keras has a dropout with noise_shape"),
        (kl.SpatialDropout2D(0.5), "SpatialDropout2D: it is a Dropout with a call of its own"),
        (
            randomly(kl.BatchNormalization(axis=2), (None, 4, 4, 4)),
            "BatchNormalization: it normalises axis 2, which isn't that of the channels",
        ),
        (randomly(kl.Dense(3)), "Dense: it is applied to each pixel and not to whole images"),
    ],
)
def test_notes(native, note) -> None:
    (part,) = models.read(native).parts
    assert (part.layer, part.note) == (None, note)


def test_lora() -> None:
    conv = randomly(kl.Conv2D(4, 3))
    conv.enable_lora(2)
    assert models.read(conv).parts[0].layer is None


# Models.


def chain() -> keras.Sequential:
    inner = keras.Sequential([kl.Conv2D(3, 3, activation="relu", name="conv"), kl.BatchNormalization(name="norm")])
    inner.name = "inner"
    steps = [keras.Input((8, 9, 2)), inner, kl.Identity(), kl.Flatten(name="flat"), kl.Dense(4, name="dense")]
    return keras.Sequential([*steps, kl.Activation("linear")])


def paths(model) -> list[str]:
    return [part.path for part in models.read(model).parts]


def test_a_chain() -> None:
    model = chain()
    reading = models.read(model)
    assert (reading.backend, reading.whole, reading.native is model) == ("tensorflow", True, True)
    assert paths(model) == ["inner/conv", "inner/conv", "inner/norm", "flat", "dense"]
    x = images((8, 9), 2)
    by_parts = models.run([part.native for part in reading.parts], x, "float32")
    np.testing.assert_allclose(by_parts, models.run([model], x, "float32"), rtol=1e-6)


def test_functional_models() -> None:
    inputs = keras.Input((8, 8, 2))
    y = kl.Conv2D(2, 3, padding="same", name="conv")(inputs)
    straight = keras.Model(inputs, kl.ReLU(name="relu")(y))
    assert (models.read(straight).whole, paths(straight)) == (True, ["conv", "relu"])
    others = [kl.Add()([inputs, y]), keras.ops.relu(y), kl.Dropout(0.5)(y, training=True), [y, kl.ReLU()(y)]]
    twice = kl.ReLU()
    for outputs in (*others, twice(twice(y))):
        assert not models.read(keras.Model(inputs, outputs)).whole


class Subclassed(keras.Model):
    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.first = kl.Conv2D(2, 3, name="first")
        self.rest = keras.Sequential([kl.ReLU(name="relu"), kl.Conv2D(2, 1, name="last")], name="rest")

    def call(self, x):
        return self.rest(self.first(x)) + 1


def test_a_subclassed_model() -> None:
    model = Subclassed()
    model(np.ones((1, 5, 5, 2), "float32"))
    assert (models.read(model).whole, paths(model)) == (False, ["first", "rest/relu", "rest/last"])
    changed = models.with_weights(model, [0 * each for each in model.get_weights()])
    assert (changed(np.ones((1, 5, 5, 2), "float32")).numpy() == 1).all()


def test_two_layouts_are_no_chain() -> None:
    model = keras.Sequential([kl.MaxPooling2D(), kl.MaxPooling2D(data_format="channels_first")])
    assert not models.read(model).whole


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_assembled(dtype) -> None:
    kernel = np.asarray(images((3, 3), 2, dtype))
    convolution = Convolution.of(kernel.astype("float64"), np.ones(2), dtype, padding=((1, 0), (0, 1)))
    dense = Dense(np.asarray(images((3, 24), 1, dtype)[0, 0]), None, dtype)
    neutral = [convolution, Activation("relu"), Pool("max", (2, 2), (2, 2)), Flatten("HWC"), dense]
    natives = [native for layer in neutral for native in models.build(layer, "builtin")]
    model = models.assemble([(f"steps.{n // 2}", native) for n, native in enumerate(natives)])
    assert [each.name for each in model.layers] == [
        "steps_0",
        "steps_0_1",
        "steps_1",
        "steps_1_1",
        "steps_2",
        "steps_2_1",
    ]
    x = images((9, 8), 2, dtype)
    np.testing.assert_array_equal(models.run([model], x, dtype), models.run(natives, x, dtype))
    assert [type(part.layer) for part in models.read(model).parts] == [Pad, *map(type, neutral)]
    assert models.read(model).whole


@pytest.mark.parametrize(
    "layers", [[Activation("relu")], [Flatten("HWC"), Dense(np.ones((2, 12)))], [GlobalPool("max"), Flatten("HWC")]]
)
def test_assembled_without_a_convolution(layers) -> None:
    model = models.assemble([("x", native) for layer in layers for native in models.build(layer, "builtin")])
    assert models.run([model], images((2, 2), 3), "float32").shape[0] == 2
    assert len(models.read(model).parts) == len(layers)


# Weights.


@pytest.mark.parametrize("make", [chain, lambda: randomly(kl.Conv2D(3, 3, dtype="bfloat16"))])
def test_weights_and_files(make, tmp_path) -> None:
    model = make()
    before = models.weights(model)
    changed = models.with_weights(model, {path: each + 1 for path, each in before.items()})
    for path, array in models.weights(model).items():
        np.testing.assert_array_equal(array, before[path])
    for array, old in zip(changed.get_weights(), before.values(), strict=True):
        np.testing.assert_array_equal(array, old + 1)
    file = tmp_path / "x.weights.h5"
    models.save(changed, file)
    loaded = models.load(file, model)
    assert list(loaded) == list(before)
    for path, array in loaded.items():
        np.testing.assert_array_equal(array, before[path] + 1)
    np.testing.assert_array_equal(models.with_weights(model, loaded).get_weights()[0], changed.get_weights()[0])


def test_an_assembled_model_is_copied_and_saved(tmp_path) -> None:
    natives = models.build(Convolution.of(rng.standard_normal((2, 3, 3, 3)), None, "float64"), "convlab")
    model = models.assemble([("conv", natives[0]), ("act", models.build(Activation("gelu_tanh"), "builtin")[0])])
    models.save(model, tmp_path / "x.weights.h5")
    other = models.with_weights(model, models.load(tmp_path / "x.weights.h5", model))
    x = images((5, 5), 3)
    np.testing.assert_array_equal(models.run([model], x, "float64"), models.run([other], x, "float64"))


# Gradients.


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": "same", "stride": 2},
        {"stride": (3, 2)},
        {"dilation": 2, "padding": 1},
        {"groups": 2, "stride": 2},
        {"groups": 4, "padding": ((1, 0), (0, 2))},
        {"groups": 4, "stride": 2},
        {"groups": 4, "stride": (2, 1)},
    ],
)
def test_gradients(options, dtype) -> None:
    groups = options.get("groups", 1)
    kernel = rng.standard_normal((8, 4 // groups, 3, 2)).astype(dtype)
    layer = Convolution.of(kernel.astype("float64"), np.ones(8), dtype, **options)
    x = images((8, 9), dtype=dtype)
    dy = rng.standard_normal(layer.reference(x).shape).astype(dtype)
    true = oracle_gradients(x, kernel, dy, **layer.spec.geometry)
    bounds = gradient_bounds(x, kernel, dy, dtype, **layer.spec.geometry)
    for style in adapters.STYLES:
        gradients = models.gradients(models.build(layer, style), x, dy, dtype)
        assert set(gradients) == {"X", "K", "bias"}
        for name, array in gradients.items():
            assert error_ratios(array, getattr(true, name), getattr(bounds, name)).max() <= 1, (style, name)


def test_gradients_without_a_convolution_and_with_one_that_is_frozen() -> None:
    x = images((4, 4))
    gradients = models.gradients([kl.ReLU()], x, np.ones_like(x), "float32")
    np.testing.assert_array_equal(gradients["X"], x > 0)
    conv = randomly(kl.Conv2D(4, 1, use_bias=False, trainable=False))
    assert set(models.gradients([conv], x, np.ones_like(x), "float32")) == {"X", "K"}


# What Keras lacks.


@pytest.mark.parametrize(
    "options",
    [
        {"padding": 1, "padding_mode": "reflect"},
        {"padding": "same", "padding_mode": "circular"},
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
        Flatten("CHW"),
        Pad(((1, 1), (1, 1)), "reflect"),
        Pool("max", (3, 3), (2, 2), ((1, 1), (1, 1))),
        Pool("max", (3, 3), (2, 2), ceil=True),
        Pool("average", (3, 3), (2, 2), "same", count_padding=True),
        Pool("average", (3, 3), (2, 2), "same_lower"),
    ],
)
def test_layers_that_keras_lacks(layer) -> None:
    with pytest.raises(errors.UnsupportedError):
        models.build(layer, "builtin")


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


def test_a_mixed_policy_is_read_as_what_it_computes() -> None:
    conv = kl.Conv2D(4, 3, dtype="mixed_bfloat16")
    conv.build((None, None, None, 3))
    assert only(conv).layer.spec.dtype == "bfloat16"
    ported = convlab.port(conv, to="tensorflow")
    assert ported.model.kernel.dtype == "bfloat16"


def test_weights_go_by_the_models() -> None:
    def make() -> keras.Sequential:
        return keras.Sequential(
            [
                keras.Input((9, 8, 4)),
                kl.Conv2D(4, 3, activation="relu", name="first"),
                kl.DepthwiseConv2D(3, depth_multiplier=2, name="second"),
                kl.BatchNormalization(name="third"),
                kl.GlobalAveragePooling2D(),
                kl.Dense(2, name="fourth"),
            ]
        )

    a, b = make(), make()
    assert not convlab.compare(a, b)
    kept = b.get_weights()
    filled = models.with_weights(b, convlab.port_weights(None, a, b))
    assert convlab.compare(a, filled).same
    assert all(np.array_equal(one, two) for one, two in zip(kept, b.get_weights(), strict=True))
    again = models.with_weights(b, convlab.port_weights(models.weights(a), a, b))
    assert convlab.compare(filled, again).same


@pytest.mark.parametrize("layer", [kl.Conv2D(4, 3), kl.Dense(4), kl.BatchNormalization()])
def test_a_layer_must_be_built(layer) -> None:
    with pytest.raises(errors.ModelError, match="whose parameters have no values yet"):
        convlab.port(layer, to="tensorflow")


def test_hdf5_that_claims_more_than_it_is_or_leads_elsewhere(tmp_path):
    path = tmp_path / "model.weights.h5"
    with h5py.File(path, "w") as file:
        file.create_group("layers/conv")["0"] = np.zeros(100)
    foreign.check_claimed_sizes(path, ".weights.h5")
    with h5py.File(path, "a") as file:
        file.create_dataset("layers/conv/1", (2**40,), "f4", chunks=True)
    with pytest.raises(ValueError, match="it claims"):
        foreign.check_claimed_sizes(path, ".weights.h5")
    for link in (h5py.ExternalLink("/etc/hostname", "/"), h5py.SoftLink("/layers")):
        with h5py.File(path, "w") as file:
            file["layers"] = link
        with pytest.raises(ValueError, match="elsewhere"):
            foreign.check_claimed_sizes(path, ".weights.h5")
    with h5py.File(path, "w") as file:
        file.create_dataset("0", (4,), "u1", external=[(tmp_path / "secret", 0, 4)])
    with pytest.raises(ValueError, match="another file"):
        foreign.check_claimed_sizes(path, ".weights.h5")
    with h5py.File(path, "w") as file:
        file["a/b/c"] = file["/"]
    with pytest.raises(ValueError, match="in two places"):
        foreign.check_claimed_sizes(path, ".weights.h5")
    with h5py.File(path, "w") as file:  # forty levels of two links each: 2 ** 40 ways down
        groups = [file.create_group(f"g{i}") for i in range(40)]
        for one, two in itertools.pairwise(groups):
            one["a"] = one["b"] = two
    with pytest.raises(ValueError, match="in two places"):
        foreign.check_claimed_sizes(path, ".weights.h5")
