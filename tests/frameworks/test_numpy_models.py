"""convlab's own layer for NumPy, read and built."""

from __future__ import annotations

import numpy as np
import pytest
from making import nodes_of

import convlab
from convlab import errors
from convlab.models import adapters
from convlab.models.layers.activations import Activation
from convlab.models.layers.layer import Convolution
from convlab.truth.bounds import error_ratios

models = adapters.models_of("numpy")
rng = np.random.default_rng(0)


def right(natives, layer, x, dtype) -> None:
    assert error_ratios(models.run(natives, x, dtype), layer.reference(x), layer.error(x, 0 * x, dtype)).max() <= 1


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("data_format", ["NCHW", "NHWC"])
@pytest.mark.parametrize(
    "options", [{}, {"padding": "same", "stride": 2, "groups": 2}, {"padding": 2, "padding_mode": "circular"}]
)
def test_the_layer(options, data_format, dtype) -> None:
    layer = convlab.numpy.Conv2D(3, in_channels=4, out_channels=6, data_format=data_format, dtype=dtype, **options)
    reading = adapters.read(layer)
    (part,) = reading.parts
    assert (reading.backend, reading.whole, part.path, part.note) == ("numpy", True, "", "Conv2D")
    assert part.layer.spec.dtype == dtype
    x = rng.standard_normal((2, 4, 7, 8)).astype(dtype).astype(np.float64)
    state = np.random.get_state()[1].copy()
    for natives in ([layer], models.build(part.layer, "builtin"), models.build(part.layer, "convlab")):
        right(natives, part.layer, x, dtype)
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    assert models.gradients([layer], x, x, dtype) == {}


def test_the_chapters_layer() -> None:
    layer = convlab.numpy.Conv2D((1, 2), seed=0)
    right([layer], adapters.read(layer).parts[0].layer, rng.standard_normal((2, 1, 4, 5)).astype("float32"), "float32")


def test_bfloat16_needs_ml_dtypes(monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    layer = Convolution.of(np.ones((2, 3, 3, 3), "float32"), None, "bfloat16")
    with pytest.raises(errors.UnsupportedError, match="bfloat16"):
        models.build(layer, "convlab")


def test_a_layer_without_values() -> None:
    with pytest.raises(errors.ModelError, match=r"whose parameters have no values yet.*call it once"):
        adapters.read(convlab.numpy.Conv2D(3, out_channels=2))


def test_weights() -> None:
    layer = convlab.numpy.Conv2D(3, use_bias=False)
    before = layer.weight.copy()
    other = models.with_weights(layer, {name: array + 1 for name, array in models.weights(layer).items()})
    assert other.bias is None
    np.testing.assert_array_equal(other.weight, before + 1)
    np.testing.assert_array_equal(layer.weight, before)


def test_what_numpy_lacks(tmp_path) -> None:
    layer = convlab.numpy.Conv2D(3)
    assert models.assemble(nodes_of([("x", layer)])) is layer
    for refused in (
        lambda: models.build(Activation("relu"), "convlab"),
        lambda: models.assemble(nodes_of([("x", layer), ("y", layer)])),
        lambda: models.save(layer, tmp_path / "x"),
        lambda: models.load(tmp_path / "x", layer),
    ):
        with pytest.raises(errors.UnsupportedError, match="NumPy has no"):
            refused()
