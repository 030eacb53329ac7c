"""What the tests of Keras's layers share: images, layers of random numbers, and whether results are right."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from convlab.models import adapters
from convlab.truth.bounds import error_ratios

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
