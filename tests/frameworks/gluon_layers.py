"""What the tests of gluon's layers share: images, blocks of random numbers, and whether results are right."""

from __future__ import annotations

import contextlib

import numpy as np

from convlab.models import adapters
from convlab.truth.bounds import error_ratios
from convlab_mxnet.ops import mx

models = adapters.models_of("mxnet")
rng = np.random.default_rng(0)
SIZES = [(9, 8), (7, 11), (10, 10)]


@contextlib.contextmanager
def semantics(numpy: bool):
    """As `npx.set_np()`, for a while."""
    if not numpy:
        yield
        return
    with mx.util.np_shape(True), mx.util.np_array(True):
        yield


def images(size, channels=4, dtype="float32"):
    return rng.standard_normal((2, channels, *size)).astype(dtype).astype(np.float64)


def right(natives, layer, x, dtype="float32") -> None:
    y = models.run(natives, x, dtype)
    true = layer.reference(x)
    assert y.shape == true.shape
    assert error_ratios(y, true, layer.error(x, 0 * x, dtype)).max(initial=0) <= 1


def randomly(block, dtype="float32"):
    """An initialised layer with random numbers in it."""
    block.cast(dtype)
    block.initialize(mx.init.Zero())
    for parameter in block.collect_params().values():
        array = rng.uniform(0.5, 1.5, parameter.shape)
        parameter.set_data((mx.np if mx.util.is_np_array() else mx.nd).array(array, dtype=dtype))
    return block


def only(model):
    (part,) = models.read(model).parts
    assert part.layer is not None, part.note
    return part


def same(layer, other, x) -> None:
    assert type(layer) is type(other)
    true = other.reference(x)
    np.testing.assert_allclose(layer.reference(x), true, rtol=0, atol=1e-12 * np.abs(true).max())
