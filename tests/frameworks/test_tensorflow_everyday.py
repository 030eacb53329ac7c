"""What Keras's users write between layers: slices, splits, powers, quotients, and functions in a `Lambda`."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as kl
from keras import ops
from making import port_parts

from convlab import port

X = np.random.default_rng(0).normal(size=(2, 8, 12, 3)).astype("float32")


class Sides(kl.Layer):
    """Code of its own, of slices."""

    def call(self, x):
        return ops.maximum(x, 0.1 * x) * x[:, :1, 2:3]


def model_of(code):
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 12, 3))
    return keras.Model(image, code(kl.Conv2D(4, 1)(image)))


def slices(x):
    first, second = ops.split(x, 2, axis=-1)
    ends = ops.split(x, [1, 3], axis=3)
    y = first * second + x[..., :2] - x[:, :, :, 2:] + x[..., 3:] + ops.concatenate([ends[2], ends[0]], axis=-1)
    inner = ops.pad(y[:, 1:-1, 2:], ((0, 0), (1, 1), (0, 2), (0, 0)))
    return ops.concatenate([inner, Sides()(x), kl.Maximum()([x, y[..., 1:]])], axis=-1)[:, ::2, 1::2]


def functions(x):
    y = kl.Lambda(lambda x: 2 * x**2 - 1)(x) + x**3 + ops.square(x) - ops.negative(x)
    size = ops.abs(x) + 1
    y = ops.minimum(y, 1 / size) + 2 / size + size**0.5 + ops.rsqrt(size) + ops.log(size) + ops.reciprocal(size)
    return y * ops.mean(x, axis=(1, 2))[:, None, None, :] + x[:, 0, 0][:, None, None]


def statistics(x):
    """Norms, variances and the cosine of two rows."""
    y = (x - ops.mean(x, axis=(1, 2), keepdims=True)) / (ops.std(x, axis=(1, 2), keepdims=True) + 0.1)
    y = ops.normalize(y + ops.var(x, axis=-1, keepdims=True))
    rows, others = kl.Flatten()(y), kl.Dense(384)(kl.GlobalAveragePooling2D()(x))
    shares = ops.concatenate([kl.Dot(1)([rows, others]), kl.Dot(-1, normalize=True)([rows, others])], axis=-1)
    return ops.concatenate([shares, ops.norm(rows, axis=-1, keepdims=True), kl.UnitNormalization()(others)], axis=-1)


@pytest.mark.parametrize("code", [slices, functions, statistics])
def test_it_is_ported(code) -> None:
    model = model_of(code)
    ported = port(model, to="tensorflow")
    assert ported.evidence.same
    assert not ported.untouched
    np.testing.assert_allclose(ported.model(X), model(X), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (lambda x: ops.normalize(x, order=1), "its order is 1, expected 2"),
        (lambda x: kl.Dot((3, 3))([x, x]), r"its axes are \(3, 3\), expected 1 of rows"),
        (lambda x: ops.split(x, 2, axis=1)[0], "split: it splits axis 1, expected -1"),
        (lambda x: x[:, :4:2], "getitem: it takes each so many pixels up to a place"),
        (lambda x: x[..., ::2], "getitem: it takes each so many channels"),
        (lambda x: x[:, 3], "getitem: it takes another part"),
        (lambda x: x**2.5, "power: its exponent is 2.5"),
        (lambda x: ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect"), "pad: it pads by .* 'reflect'"),
    ],
)
def test_what_is_something_else_is_named(code, why) -> None:
    port_parts(model_of(code), why, to="tensorflow")
