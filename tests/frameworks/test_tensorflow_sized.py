"""A Keras model whose `call` decides by its images' size."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as kl

from convlab import port
from convlab.errors import PartialPortWarning


class Halving(keras.Model):
    """It halves images of more than 40 rows."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (kl.Conv2D(4, 3, padding="same") for _ in range(2))
        self.pool = kl.MaxPooling2D(2)

    def call(self, x):
        y = self.first(x)
        if x.shape[1] is not None and x.shape[1] > 40:
            y = self.pool(y)
        return self.second(y)


def halving(size: int | None) -> Halving:
    keras.utils.set_random_seed(0)
    model = Halving()
    model(keras.Input((size, size, 3)))
    return model


@pytest.mark.parametrize("size", [None, 32, 64])
def test_what_is_for_some_sizes_needs_one(size):
    with pytest.warns(PartialPortWarning, match="images of other sizes"):
        ported = port(halving(size), to="tensorflow")
    assert "Hint: give input_size=" in ported.untouched["call()"]


@pytest.mark.parametrize("size", [32, 64])
def test_for_images_of_a_size(size):
    model = halving(None)
    ported = port(model, to="tensorflow", input_size=size)
    assert (ported.evidence.same, ported.size) == (True, (size, size))
    x = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype("float32")
    np.testing.assert_allclose(ported.model(x), model(x), rtol=1e-5, atol=1e-6)


class Conditioned(Halving):
    """A row of numbers tells by how much each channel is scaled."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = kl.Dense(4)

    def call(self, x, row):
        return super().call(x) * self.dense(row)[:, None, None, :]


@pytest.mark.parametrize("size", [32, 64])
def test_an_image_of_a_size_and_a_row(size):
    keras.utils.set_random_seed(0)
    model, rng = Conditioned(), np.random.default_rng(0)
    x, row = rng.normal(size=(2, size, size, 3)).astype("float32"), rng.normal(size=(2, 5)).astype("float32")
    expected = model(x, row)
    with pytest.warns(PartialPortWarning, match="its input's shape isn't known. Hint: give inputs="):
        port(model, to="tensorflow")
    ported = port(model, to="tensorflow", inputs=(x.transpose(0, 3, 1, 2), row))
    assert (ported.evidence.same, ported.size) == (True, (size, size))
    np.testing.assert_allclose(ported.model([x, row]), expected, rtol=1e-5, atol=1e-6)
