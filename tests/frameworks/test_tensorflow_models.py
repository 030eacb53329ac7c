"""Keras's models: read, assembled and run, with their weights, files and gradients."""

from __future__ import annotations

import itertools

import h5py
import keras
import numpy as np
import pytest
from keras import layers as kl
from keras_layers import SIZES, images, models, only, randomly, right, rng
from making import nodes_of

import convlab
from convlab import errors
from convlab.models import adapters
from convlab.models.files import foreign
from convlab.models.layers.activations import Activation
from convlab.models.layers.flattening import Flatten
from convlab.models.layers.layer import Convolution, Dense, Pad
from convlab.models.layers.pooling import GlobalPool, Pool
from convlab.truth.bounds import error_ratios, gradient_bounds
from convlab.truth.oracle import oracle_gradients


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
    for outputs in (kl.Dropout(0.5)(y, training=True), keras.ops.flip(y)):
        assert not models.read(keras.Model(inputs, outputs)).whole
    twice = kl.ReLU()
    for outputs in (kl.Add()([inputs, y]), [y, [kl.ReLU()(y)]], keras.ops.relu(y), twice(twice(y))):
        reading = models.read(keras.Model(inputs, outputs))
        assert reading.whole
        assert all(part.layer is not None for part in reading.parts)


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
    assert (models.read(model).whole, paths(model)) == (True, ["first", "rest/relu", "rest/last", "add"])
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
    model = models.assemble(nodes_of((f"steps.{n // 2}", native) for n, native in enumerate(natives)))
    assert [each.name for each in model.layers] == [
        "steps.0",
        "steps.0_1",
        "steps.1",
        "steps.1_1",
        "steps.2",
        "steps.2_1",
    ]
    x = images((9, 8), 2, dtype)
    np.testing.assert_array_equal(models.run([model], x, dtype), models.run(natives, x, dtype))
    assert [type(part.layer) for part in models.read(model).parts] == [Pad, *map(type, neutral)]
    assert models.read(model).whole


@pytest.mark.parametrize(
    "layers", [[Activation("relu")], [Flatten("HWC"), Dense(np.ones((2, 12)))], [GlobalPool("max"), Flatten("HWC")]]
)
def test_assembled_without_a_convolution(layers) -> None:
    model = models.assemble(nodes_of(("x", native) for layer in layers for native in models.build(layer, "builtin")))
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
    model = models.assemble(
        nodes_of([("conv", natives[0]), ("act", models.build(Activation("gelu_tanh"), "builtin")[0])])
    )
    models.save(model, tmp_path / "x.weights.h5")
    other = models.with_weights(model, models.load(tmp_path / "x.weights.h5", model))
    x = images((5, 5), 3)
    np.testing.assert_array_equal(models.run([model], x, "float64"), models.run([other], x, "float64"))


def test_names_with_dots_stay_in_files(tmp_path) -> None:
    convolution = Convolution.of(rng.standard_normal((3, 3, 1, 1)).astype("float32"), None, "float32")
    first, second, *others = (models.build(convolution, "builtin")[0] for _ in range(4))
    chain = models.assemble(nodes_of([("layer1.0.conv1", first), ("layer1.0.conv2", second)]))
    nodes = nodes_of([("layer1.0.conv1", others[0]), ("layer1.0.conv2", others[1])])
    branches = models.assemble([*nodes, adapters.Node("layer1.0.add", kl.Add(), ("0", "1"), "2")])
    x = images((4, 5), 3).astype("float32").transpose(0, 2, 3, 1)
    for model in (chain, branches):
        expected = model.predict(x, verbose=0)
        model.save(tmp_path / "model.keras")
        model.save_weights(tmp_path / "model.weights.h5")
        cloned = keras.models.clone_model(model)
        cloned.load_weights(tmp_path / "model.weights.h5")
        for other in (keras.models.load_model(tmp_path / "model.keras"), cloned):
            assert [layer.name for layer in other.layers][-2:] == [layer.name for layer in model.layers][-2:]
            np.testing.assert_array_equal(other.predict(x, verbose=0), expected)


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
