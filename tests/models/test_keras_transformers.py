"""Vision transformers as Keras's users write them: patches, tokens, attention, and images made of tokens again."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl
from keras import ops

from convlab import port, port_weights
from convlab.errors import ModelError, PartialPortWarning
from convlab.models.adapters import read

IMAGES = np.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype("float32")


class Patches(kl.Layer):
    """Those of the keras.io example on ViTs."""

    def call(self, images):
        n, height, width, channels = ops.shape(images)
        patches = ops.image.extract_patches(images, size=2)
        return ops.reshape(patches, (n, (height // 2) * (width // 2), 4 * channels))


class PatchEncoder(kl.Layer):
    """A dense layer and the positions, likewise."""

    def __init__(self) -> None:
        super().__init__()
        self.projection, self.position_embedding = kl.Dense(8), kl.Embedding(16, 8)

    def call(self, patches):
        positions = ops.expand_dims(ops.arange(0, 16, 1), axis=0)
        return self.projection(patches) + self.position_embedding(positions)


class Token(kl.Layer):
    """A class token by operations of Keras's."""

    def build(self, shape):
        self.token = self.add_weight(shape=(1, 1, shape[-1]))

    def call(self, x):
        return ops.concatenate([ops.broadcast_to(self.token, (ops.shape(x)[0], 1, x.shape[-1])), x], axis=1)


class TiledToken(Token):
    """The same by TensorFlow's, which take no symbolic tensors of Keras's."""

    def call(self, x):
        return tf.concat([tf.tile(self.token, [tf.shape(x)[0], 1, 1]), x], 1)


class Positions(kl.Layer):
    """A weight for the positions."""

    def build(self, shape):
        self.positions = self.add_weight(shape=(1, *shape[1:]))

    def call(self, x):
        return tf.add(x, self.positions)


class TokenAndPositions(kl.Layer):
    """Both, and the patches, in one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.projection = kl.Conv2D(8, 2, 2)

    def build(self, shape):
        self.token, self.positions = self.add_weight(shape=(1, 1, 8)), self.add_weight(shape=(1, 17, 8))

    def call(self, x):
        n = ops.shape(x)[0]
        x = ops.reshape(self.projection(x), (n, 16, 8))
        return ops.concatenate([ops.tile(self.token, (n, 1, 1)), x], axis=1) + self.positions


def block(x, key_dim=4, **options):
    """A block of arXiv:2010.11929."""
    y = kl.LayerNormalization(epsilon=1e-6)(x)
    x = kl.Add()([kl.MultiHeadAttention(2, key_dim, dropout=0.1, **options)(y, y), x])
    y = kl.Dense(12, activation=keras.activations.gelu)(kl.LayerNormalization(epsilon=1e-6)(x))
    return x + kl.Dropout(0.1)(kl.Dense(8)(y))


def of_conv(x):
    return kl.Reshape((16, 8))(kl.Conv2D(8, 2, 2)(x))


def with_token(kind):
    return lambda x: Positions()(kind()(of_conv(x)))


TOKENS = {
    "keras.io": lambda x: PatchEncoder()(Patches()(x)),
    "token": with_token(Token),
    "TensorFlow's token": with_token(TiledToken),
    "one layer": lambda x: TokenAndPositions()(x),
    "sequential": lambda x: keras.Sequential([kl.Conv2D(8, 2, 2), kl.Reshape((-1, 8)), kl.LayerNormalization()])(x),
}
ROWS = {
    "flat": kl.Flatten(),
    "mean": kl.GlobalAveragePooling1D(),
    "ops.mean": lambda x: ops.mean(x, axis=1),
    "first": lambda x: x[:, 0],
    "lambda": kl.Lambda(lambda x: x[:, 0, :]),
}


def vit(tokens, rows, **options):
    image = keras.Input((8, 8, 3))
    return shaken(keras.Model(image, kl.Dense(5)(rows(block(tokens(image), **options)))))


def shaken(model):
    """The model with random weights."""
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(size=each.shape, scale=0.4).astype("float32") for each in model.get_weights()])
    return model


def result(model, images=IMAGES):
    """A Keras model's result for images NCHW."""
    y = np.asarray(model(images.transpose(0, 2, 3, 1)))
    return y.transpose(0, 3, 1, 2) if y.ndim == 4 else y


def check(model, to="torch"):
    """The port computes what Keras computes; it comes back with the same bits."""
    expected, ported = result(model), port(model, to=to)
    assert ported.evidence.same
    assert not ported.untouched
    back = port(ported.model, to="tensorflow", input_size=IMAGES.shape[2:])
    assert back.evidence.same
    ours, theirs = ([np.sort(each.ravel()) for each in m.get_weights()] for m in (back.model, model))
    assert sum(each.size for each in ours) == sum(each.size for each in theirs)
    np.testing.assert_array_equal(np.sort(np.concatenate(ours)), np.sort(np.concatenate(theirs)))
    np.testing.assert_allclose(result(back.model), expected, atol=2e-5)


@pytest.mark.parametrize(
    ("tokens", "rows"), [*((each, "first") for each in TOKENS), *(("sequential", each) for each in ROWS)]
)
def test_a_transformer_is_ported(tokens, rows) -> None:
    check(vit(TOKENS[tokens], ROWS[rows]))


@pytest.mark.parametrize(
    "options", [{"key_dim": 8}, {"key_dim": 3, "value_dim": 5, "use_bias": False}, {"output_shape": 8}]
)
def test_options_of_attention(options) -> None:
    check(vit(TOKENS["keras.io"], ROWS["flat"], **options))


class Model(keras.Model):
    """A transformer with a `call` of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.norm, self.head = TokenAndPositions(), kl.LayerNormalization(), kl.Dense(5)
        self.attention = kl.MultiHeadAttention(num_heads=2, key_dim=4)

    def call(self, x):
        x = self.tokens(x)
        y = self.norm(x)
        x = x + self.attention(query=y, value=y)
        return self.head(x[:, 0])


def test_a_model_with_a_call_of_its_own() -> None:
    model = Model()
    model(np.zeros((2, 8, 8, 3)))
    check(shaken(model))


def hybrid(form, back=(4, 4, 8)):
    """Attention between convolutions, of tokens or of pixels in other rows: arXiv:2110.02178."""
    image = keras.Input((8, 8, 3))
    x = kl.Conv2D(8, 3, 2, "same")(image)
    y = block(kl.Reshape(form)(x))
    y = kl.Reshape(back)(y)
    return shaken(keras.Model(image, kl.Conv2D(4, 3, padding="same")(kl.Concatenate()([x, y]))))


@pytest.mark.parametrize("form", [(16, 8), (4, 4, 8), (2, 8, 8)])
def test_attention_between_convolutions(form) -> None:
    check(hybrid(form))


def test_weights_come_into_a_users_transformer() -> None:
    source, target = (vit(lambda x: Token()(of_conv(x)), ROWS["first"]) for _ in range(2))
    target.set_weights([0 * each for each in target.get_weights()])
    ported = port(source, to="torch")
    filled = port_weights(None, ported.model, target, inputs=IMAGES)
    target.set_weights([*filled.values()])
    np.testing.assert_allclose(result(target), result(source), atol=1e-6)


def of_tokens(change):
    image = keras.Input((8, 8, 3))
    return keras.Model(image, change(of_conv(image)))


def attended(**call):
    return lambda x: kl.Flatten()(kl.MultiHeadAttention(2, 4)(x, x, **call))


def made(**options):
    return lambda x: kl.Flatten()(kl.MultiHeadAttention(2, 4, **options)(x, x))


REFUSED = {
    "causal": (attended(use_causal_mask=True), "called with use_causal_mask"),
    "mask": (attended(attention_mask=np.tril(np.ones((1, 16, 16)))), "called with attention_mask"),
    "across": (lambda x: kl.Flatten()(kl.MultiHeadAttention(2, 4)(x, x * 2.0)), "isn't of tokens to themselves"),
    "other channels": (made(output_shape=6), "it gives 6 channels, expected 8"),
    "result": (lambda x: kl.Reshape((2, 8, 8))(x), "the model's result is an image's pixels in other rows"),
    "rows": (lambda x: kl.Conv2D(4, 3, padding="same")(kl.Reshape((2, 8, 8))(x)), "heeds which ones are side by side"),
    "order": (lambda x: kl.Flatten()(kl.Conv1D(4, 3, activation="relu")(x)), "heeds which ones are side by side"),
    "second": (lambda x: x[:, 1], "another part than the first"),
    "mixer": (lambda x: kl.Flatten()(kl.Dense(16)(kl.Permute((2, 1))(x))), "know Permute"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_isnt_read_is_refused_by_name(name) -> None:
    change, words = REFUSED[name]
    model = of_tokens(change)
    with pytest.warns(PartialPortWarning, match="parts of the model"):
        ported = port(model, to="torch")
    assert words in " ".join(ported.untouched.values())


def test_attention_along_one_axis_is_refused() -> None:
    image = keras.Input((4, 4, 8))
    model = keras.Model(image, kl.MultiHeadAttention(2, 4, attention_axes=(2,))(image, image))
    part = next(part for part in read(model).parts if "MultiHead" in part.note)
    assert part.layer is None
    assert "its attention_axes are (2,), expected (1, 2)" in part.note


def test_attention_alone_takes_no_images() -> None:
    attention = kl.MultiHeadAttention(2, 4)
    attention(np.ones((1, 5, 8)), np.ones((1, 5, 8)))
    with pytest.raises(ModelError, match="alone it takes queries and values"):
        port(attention, to="torch")


def test_tokens_are_a_result() -> None:
    check(shaken(of_tokens(lambda x: kl.Dense(4)(x))))


def test_a_layer_that_joins_numbers_is_refused() -> None:
    image = keras.Input((4, 4, 8))
    x = kl.Reshape((16, 8))(kl.Conv2D(8, 1)(image))
    model = keras.Model(image, kl.Flatten()(keras.ops.concatenate([x, np.ones((1, 1, 8), "float32"), x], axis=1)))
    with pytest.warns(PartialPortWarning, match="parts of the model"):
        port(model, to="torch")
