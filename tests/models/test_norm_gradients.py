"""The gradients of norms, scales for channels and PReLUs, which a proof holds to bounds that count their roundings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from making import built, kernel

from convlab import compare, port
from convlab.models.adapters import models_of, read
from convlab.models.layers.activations import PReLU
from convlab.models.layers.flattening import Flatten
from convlab.models.layers.layer import BatchNorm
from convlab.models.layers.norms import ChannelAffine, GroupNorm, LayerNorm
from convlab.models.layers.steps import steps
from convlab.truth.bounds import worst_ratio
from convlab.truth.precision import rounded

SCALE, SHIFT, MEAN = 3 * kernel((6,), 1), kernel((6,), 2), kernel((6,), 3)
LAYERS = {
    "batch": BatchNorm(MEAN, MEAN**2 + np.float32(0.1), SCALE, SHIFT, 1e-3, 0.9),
    "group": GroupNorm(SCALE, SHIFT, 2, 1e-5),
    "instance": GroupNorm(SCALE, SHIFT, 6, 1e-3),
    "layer": LayerNorm(SCALE, SHIFT, 2.0**-20),
    "both": ChannelAffine(SCALE, SHIFT, trained=True),
    "scale": ChannelAffine(SCALE, None, trained=True),
    "shift": ChannelAffine(None, SHIFT, trained=True),
    "constants": ChannelAffine(SCALE, SHIFT),
    "slopes": PReLU(SCALE),
    "slope": PReLU(SCALE[:1]),
}
SHAPE = 3, 6, 5, 7


def names_of(name):
    alone = {"scale": ["scale"], "shift": ["shift"], "slope": ["slope"], "slopes": ["slope"], "constants": []}
    return {"X", *alone.get(name, ["scale", "shift"])}


def by_differences(layer, x, dy, name):
    """A gradient of sum(dy * layer.reference(x)) by central differences."""
    start = x if name == "X" else np.asarray(getattr(layer, name), float)
    slopes = np.zeros(start.shape)
    for place in np.ndindex(start.shape):
        ends = []
        for step in (1e-4, -1e-4):
            moved = start.copy()
            moved[place] += step
            y = layer.reference(moved) if name == "X" else replace(layer, **{name: moved}).reference(x)
            ends.append((dy * y).sum())
        slopes[place] = (ends[0] - ends[1]) / 2e-4
    return slopes


@pytest.mark.parametrize("rows", [False, True], ids=["images", "rows"])
@pytest.mark.parametrize("name", LAYERS)
def test_true_gradients_are_slopes(name, rows) -> None:
    layer, rng = LAYERS[name], np.random.default_rng(4)
    shape = (4, 6) if rows else (2, 6, 2, 3)
    x, dy = rng.normal(size=shape), rng.normal(size=shape)
    x += 0.01 * np.sign(x)  # none of them is so near to 0 that a step leads beyond it
    true, bounds = layer.gradients(x, dy, "float32")
    assert set(true) == set(bounds) == names_of(name)
    for each, gradient in true.items():
        np.testing.assert_allclose(gradient, by_differences(layer, x, dy, each), rtol=1e-5, atol=1e-5)
        assert gradient.shape == bounds[each].shape == (x if each == "X" else getattr(layer, each)).shape


def test_a_gradient_by_hand() -> None:
    """Of two numbers, 1 and 5, the mean is 3 and the variance 4; with epsilon 0, x normalised is -1 and 1."""
    layer = LayerNorm(np.array([2.0, 4.0]), np.zeros(2), 0.0)
    true, _ = layer.gradients(np.array([[1.0, 5.0]]), np.array([[3.0, 1.0]]), "float64")
    np.testing.assert_array_equal(true["scale"], [-3, 1])
    np.testing.assert_array_equal(true["shift"], [3, 1])
    np.testing.assert_allclose(true["X"], [[0, 0]], atol=1e-15)  # x normalised is -1 and 1 whatever x is
    true, _ = replace(layer, epsilon=12.0).gradients(np.array([[1.0, 5.0]]), np.array([[3.0, 1.0]]), "float64")
    # 1 / sqrt(16) = 1 / 4; dy * scale is 6 and 4, 1 from its mean; the bend is 1 / 64 * mean(6 * -2, 4 * 2) = -1 / 32.
    np.testing.assert_allclose(true["X"], [[1 / 4 - 2 / 32, -1 / 4 + 2 / 32]], rtol=1e-14)


def images(rng, dtype, mean, scale):
    x = scale * (rng.normal(size=SHAPE) + mean)
    x[rng.random(SHAPE) < 0.1] *= mean != 0  # some zeros, as behind a ReLU
    return rounded(x, dtype), rounded(rng.normal(size=SHAPE), dtype)


@pytest.mark.parametrize("name", LAYERS)
def test_the_frameworks_gradients(framework, name) -> None:
    """They are within the bounds, for small and large images, also where the variance is lost beside the mean."""
    models = models_of(framework)
    for dtype in ("float32", "float64"):
        layer = replace(LAYERS[name], dtype=dtype, **{n: a.astype(dtype) for n, a in arrays_of(LAYERS[name]).items()})
        natives = models.build(layer, "builtin")
        rng = np.random.default_rng(5)
        for mean, scale in ((0, 1), (0, 1e-3), (1, 300), (1e3, 1), (1e5, 0.1)):
            x, dy = images(rng, dtype, mean, scale)
            true, bounds = layer.gradients(x, dy, dtype)
            computed = models.gradients(natives, x, dy, dtype)
            assert names_of(name) <= set(computed)
            ratios = {each: worst_ratio(computed[each], true[each], bounds[each]) for each in true}
            assert max(ratios.values()) <= 1, (dtype, mean, scale, ratios)
            assert all(computed[each].shape == true[each].shape for each in true)


def arrays_of(layer):
    return {name: getattr(layer, name) for name in layer.arrays if getattr(layer, name) is not None}


@pytest.mark.parametrize("name", LAYERS)
def test_the_bounds_say_something(name) -> None:
    x, dy = images(np.random.default_rng(6), "float32", 0.5, 1)
    true, bounds = LAYERS[name].gradients(x, np.abs(dy), "float32")
    for each in true:
        assert bounds[each][np.isfinite(bounds[each])].max() < 1e-3 * np.abs(true[each]).max()


def one_after_another(x):
    """The sum along the last axis in its dtype, in order: NumPy's own adds up pairs, and errs less."""
    return np.add.accumulate(x, axis=-1)[..., -1:]


def in_its_dtype(x, g, epsilon, way):
    """x normalised along its last axis and the gradient of sum(g * that) by x, in three ways that frameworks take.

    "formula" is the shortest; "centred" differentiates a variance of centred numbers step by step, and "squares" one
    that is the mean of squares less the square of the mean, or else 0, with x and the mean multiplied before they are
    subtracted.
    """
    n, one = x.dtype.type(x.shape[-1]), x.dtype.type(1)
    mean = one_after_another(x) / n
    centred = x - mean
    if way != "squares":
        factor = one / np.sqrt(one_after_another(centred * centred) / n + x.dtype.type(epsilon))
        y = centred * factor
        if way == "formula":
            return y, factor * (g - one_after_another(g) / n - y * (one_after_another(g * y) / n))
        by_variance = -one_after_another(g * centred) * factor * factor * factor / 2
        by_centred = g * factor + 2 * by_variance * centred / n
        return y, by_centred - one_after_another(by_centred) / n
    variance = one_after_another(x * x) / n - mean * mean
    factor = one / np.sqrt(np.maximum(variance, 0) + x.dtype.type(epsilon))
    by_factor = one_after_another(g * x) - mean * one_after_another(g)
    by_variance = -by_factor * factor * factor * factor / 2 * (variance > 0)
    by_mean = -one_after_another(g * factor) - 2 * mean * by_variance
    return x * factor - mean * factor, g * factor + by_mean / n + 2 * x * by_variance / n


@pytest.mark.parametrize("way", ["formula", "centred", "squares"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_each_way_to_normalise_is_within_the_bounds(way, dtype) -> None:
    rng, worst = np.random.default_rng(7), {"y": 0.0, "dx": 0.0}
    for n in (2, 5, 60):
        layer = LayerNorm(np.ones(n, dtype), np.zeros(n, dtype), 1e-3, dtype)
        for mean in (0, 1, 10, 100, 3000) if dtype == "float32" else (0, 1, 5):
            for scale in (1e-3, 0.03, 1):
                x, g = (
                    each.astype(dtype) for each in (scale * (rng.normal(size=(40, n)) + mean), rng.normal(size=(40, n)))
                )
                y, dx = in_its_dtype(x, g, 1e-3, way)
                wide = x.astype(float)
                true, bounds = layer.gradients(wide, g.astype(float), dtype)
                assert y.dtype == dx.dtype == dtype
                ratio = worst_ratio(y, layer.reference(wide), layer.error(wide, 0 * wide, dtype))
                worst["y"] = max(worst["y"], ratio)
                worst["dx"] = max(worst["dx"], worst_ratio(dx, true["X"], bounds["X"]))
    assert max(worst.values()) <= 1


def test_a_variance_that_vanishes_beside_the_mean_has_no_gradient() -> None:
    """The mean of squares less the square of the mean may come out as 0; then its part of 1e-4 of the slope is lost."""
    x = (40 + 0.01 * np.random.default_rng(10).choice((-1, 1), (200, 4))).astype("float32")
    g = np.tile(np.array([1, -1, 0, 0], "float32"), (200, 1))
    layer = LayerNorm(np.ones(4, "float32"), np.zeros(4, "float32"), 1.0)
    true, bounds = layer.gradients(x.astype(float), g.astype(float), "float32")
    _, dx = in_its_dtype(x, g, 1.0, "squares")
    lost = (dx[:, 2] == 0) & (np.abs(true["X"][:, 2]) > 1e-5)
    assert lost.any()
    assert worst_ratio(dx, true["X"], bounds["X"]) <= 1


def test_at_0_a_prelu_has_no_derivative() -> None:
    x, dy = np.array([[0.0, -2.0, 3.0]]), np.ones((1, 3))
    true, bounds = PReLU(np.array([0.25])).gradients(x, dy, "float32")
    for at_zero in (0.0, 0.25, 1.0):
        assert worst_ratio(np.array([[at_zero, 0.25, 1.0]]), true["X"], bounds["X"]) == 0
    assert worst_ratio(np.array([[np.nan, 0.25, 1.0]]), true["X"], bounds["X"]) == np.inf
    assert worst_ratio(np.array([[0.0, 0.25, 0.9]]), true["X"], bounds["X"]) > 1
    assert true["slope"] == -2


@pytest.mark.parametrize(
    "after", [BatchNorm(*(kernel((12,), seed) ** 2 + np.float32(1) for seed in range(4)), 1e-3, 0.9, rank=0)]
)
def test_behind_a_flattening(after) -> None:
    model = built("torch", Flatten("CHW"), after)
    (step,) = steps(read(model))
    x, dy = np.random.default_rng(8).normal(size=(2, 3, 2, 2)), np.random.default_rng(9).normal(size=(2, 12))
    true, bounds = step.gradients(x, dy, "float32")
    by_row, _ = after.gradients(x.reshape(2, 12), dy, "float32")
    np.testing.assert_array_equal(true["X"], by_row["X"].reshape(x.shape))
    computed = models_of("torch").gradients(step.natives, x.astype("float32"), dy.astype("float32"), "float32")
    assert worst_ratio(computed["scale"], true["scale"], 2 * bounds["scale"]) <= 1
    ported = port(model, to="mxnet", input_size=(2, 2))
    assert ported.evidence.same
    assert {"gradient of X", "gradient of scale", "gradient of shift"} <= set(ported.evidence.rows[0].errors)


def test_a_proof_shows_them(framework) -> None:
    ported = port(built("torch", LAYERS["batch"], LAYERS["slopes"]), to=framework)
    norm, prelu = ported.evidence.rows
    assert [*norm.errors] == ["result", "gradient of X", "gradient of scale", "gradient of shift"]
    assert [*prelu.errors] == ["result", "gradient of X", "gradient of slope"]
    assert 0 < norm.worst("gradient") <= 1
    assert ported.evidence.same


def test_a_wrong_gradient_of_a_norm_is_found() -> None:
    model, copy = (built("torch", LAYERS["batch"], LAYERS["layer"]) for _ in range(2))
    copy[1].register_full_backward_hook(lambda module, slopes, seeds: (1.001 * slopes[0],))
    comparison = compare(model, copy)
    assert comparison.same is False
    assert [row.worst("gradient") > 1 for row in comparison.rows] == [False, True]
    assert "The gradients differ" in str(comparison)


def test_a_gamma_that_is_1_has_no_gradient() -> None:
    """Gluon keeps one nevertheless, and its gradient is 0."""
    import mxnet as mx

    norm = mx.gluon.nn.BatchNorm(scale=False, in_channels=6)
    norm.initialize()
    x, dy = images(np.random.default_rng(1), "float32", 0, 1)
    assert set(models_of("mxnet").gradients([norm], x, dy, "float32")) == {"X", "shift"}
