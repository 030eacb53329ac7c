"""Borders, their names, and where the kernel lies: SciPy's results, on every backend."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal

import convlab
from convlab.errors import LayoutWarning, OptionError
from convlab.geometry.names import PADDING_MODE_ALIASES
from convlab.testing import error_bound, gradient_bounds, gradients, oracle, oracle_gradients
from convlab.truth.oracle import reproducible_gradients

# convlab's name by SciPy's.
SCIPY = {
    "reflect": "symmetric",
    "mirror": "reflect",
    "nearest": "replicate",
    "wrap": "circular",
    "constant": "zeros",
}
OPTIONS = {
    "symmetric": ((9, 8), (3, 4), {"padding": ((2, 3), (1, 9)), "padding_mode": "symmetric"}),
    "symmetric, strided": ((2, 3, 9, 8), (4, 3, 3, 3), {"padding": 1, "padding_mode": "symmetric", "stride": 2}),
    "value": ((9, 8), (3, 4), {"padding": ((2, 3), (1, 9)), "padding_value": -2.5}),
    "value, channels last": (
        (2, 9, 8, 4),
        (3, 3, 2, 4),
        {"padding": "same", "padding_value": 0.1, "stride": 2, "groups": 2, "data_format": "NHWC"},
    ),
    "each channel": ((2, 9, 8, 3), (3, 2), {"padding": 1, "data_format": "NHWC"}),
    "each channel, value": ((9, 8, 3), (3, 2), {"padding": "full", "data_format": "NHWC", "padding_value": 0.3}),
    "origin": ((9, 8), (4, 5), {"padding": "same", "origin": (1, -2), "padding_mode": "replicate", "dilation": (1, 2)}),
}


@pytest.mark.parametrize("mode", SCIPY)
@pytest.mark.parametrize(("size", "origin"), [((3, 3), 0), ((4, 2), 0), ((2, 5), (-1, 2)), ((6, 6), (2, -3))])
def test_scipys_correlate_and_convolve(lab, mode, size, origin) -> None:
    """Integers: equal. The image is smaller than the larger kernels' borders."""
    rng = np.random.default_rng(0)
    X, K = rng.integers(-9, 10, (5, 7)).astype(float), rng.integers(-5, 6, size).astype(float)
    value = 3.0 if mode == "constant" else 0.0
    options = {"padding": "same", "padding_mode": SCIPY[mode], "padding_value": value, "origin": origin}
    y = lab.corr2d(lab.asarray(X, "float32"), lab.asarray(K, "float32"), **options)
    theirs = scipy.ndimage.correlate(X, K, mode=mode, cval=value, origin=origin)
    np.testing.assert_array_equal(lab.to_numpy(y), theirs)
    if origin == 0:
        y = lab.conv2d(lab.asarray(X, "float32"), lab.asarray(K, "float32"), **options)
        theirs = scipy.ndimage.convolve(X, K, mode=mode, cval=value)
        np.testing.assert_array_equal(lab.to_numpy(y), theirs)


def test_scipys_convolve_with_an_origin() -> None:
    for size, origin in itertools.product([(3, 4), (5, 2)], [(0, 0), (1, -1), (-1, 0)]):
        X, K = np.arange(30.0).reshape(5, 6) ** 2, np.arange(float(size[0] * size[1])).reshape(size)
        y = convlab.conv2d(X, K, padding="same", padding_mode="wrap", origin=origin)
        np.testing.assert_array_equal(y, scipy.ndimage.convolve(X, K, mode="wrap", origin=origin))


def test_origins_are_integers_of_any_kind() -> None:
    X, K = np.arange(30.0).reshape(5, 6) ** 2, np.arange(6.0).reshape(3, 2)
    y = convlab.corr2d(X, K, padding="same", origin=(np.int64(1), np.int32(-1)))
    np.testing.assert_array_equal(y, scipy.ndimage.correlate(X, K, mode="constant", origin=(1, -1)))


@pytest.mark.parametrize(("option", "part"), [("mode", "padding='same' or 'full'"), ("cval", "it is padding_value")])
def test_scipys_arguments_of_conv2d(option, part) -> None:
    with pytest.raises(OptionError, match=f"{option}: got an argument that conv2d doesn't have. Hint: .*{part}"):
        convlab.conv2d(np.ones((3, 3)), np.ones((2, 2)), **{option: "same"})


def test_large_integers_beside_floats(lab) -> None:
    """They are no integers any more, so that int64 need not hold them."""
    y = lab.corr2d(np.array([[2**63, 1]], "uint64"), lab.asarray([[1.0, 0.0]], "float32"))
    assert lab.to_numpy(y).tolist() == [[2.0**63]]


@pytest.mark.parametrize("boundary", ["fill", "symm", "wrap"])
def test_scipy_signals_boundaries(lab, boundary) -> None:
    X, K = np.arange(30.0).reshape(5, 6) ** 2, np.array([[1.0, 2.0, -1.0], [3.0, 5.0, 0.0]])
    value = 2 if boundary == "fill" else 0
    theirs = scipy.signal.correlate2d(X, K, "full", boundary, value)
    y = lab.corr2d(lab.asarray(X), lab.asarray(K), padding="full", padding_mode=boundary, padding_value=value)
    np.testing.assert_array_equal(lab.to_numpy(y), theirs)


def test_names_of_other_libraries() -> None:
    X, K = np.arange(12.0).reshape(3, 4), np.ones((3, 3))
    for own, aliases in PADDING_MODE_ALIASES.items():
        y = convlab.corr2d(X, K, padding=1, padding_mode=own)
        for alias in (*aliases, *map(str.upper, aliases), own.upper()):
            np.testing.assert_array_equal(convlab.corr2d(X, K, padding=1, padding_mode=alias), y)
    # Each by NumPy's definition.
    for mode, theirs in {"edge": "edge", "wrap": "wrap", "symm": "symmetric", "mirror": "reflect"}.items():
        padded = np.pad(X, 1, mode=theirs)
        np.testing.assert_array_equal(
            convlab.corr2d(X, K, padding=1, padding_mode=mode), scipy.signal.correlate2d(padded, K, "valid")
        )
    np.testing.assert_array_equal(convlab.corr2d(X, K, padding="SAME_UPPER"), convlab.corr2d(X, K, padding="same"))
    layer = np.ones((1, 3, 3, 2)), np.ones((2, 2, 2, 1))
    last = convlab.corr2d(*layer, data_format="channels_last")
    np.testing.assert_array_equal(last, convlab.corr2d(*layer, data_format="NHWC"))


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("algorithm", ["auto", "native", "taps"])
def test_within_the_bound(lab, name, algorithm) -> None:
    shape, kernel, options = OPTIONS[name]
    rng = np.random.default_rng(0)
    X, K = rng.standard_normal(shape).astype("float32"), rng.standard_normal(kernel).astype("float32")
    y = lab.to_numpy(lab.corr2d(lab.asarray(X), lab.asarray(K), algorithm=algorithm, **options))
    np.testing.assert_array_less(np.abs(y - oracle(X, K, **options)), error_bound(X, K, **options))


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("reproducible", [False, True])
def test_gradients(lab, name, reproducible) -> None:
    if not lab.adapter.autograd:
        return
    shape, kernel, options = OPTIONS[name]
    rng = np.random.default_rng(1)
    X, K = rng.standard_normal(shape).astype("float32"), rng.standard_normal(kernel).astype("float32")
    dY = rng.standard_normal(oracle(X, K, **options).shape).astype("float32")
    bias = np.zeros(1 if len(kernel) == 2 else kernel[3 if "data_format" in options else 0], "float32")
    slopes = gradients(lab, X, K, bias, dY, **options, **({"reproducible": True} if reproducible else {}))
    if reproducible:
        for slope, expected in zip(slopes, reproducible_gradients(X, K, dY, **options), strict=True):
            np.testing.assert_array_equal(slope, expected)
        return
    expected, bounds = oracle_gradients(X, K, dY, **options), gradient_bounds(X, K, dY, "float32", **options)
    for slope, true, bound in zip(slopes, expected, bounds, strict=True):
        assert (np.abs(slope - true) <= bound).all()


@pytest.mark.parametrize("name", OPTIONS)
def test_reproducible(lab, name) -> None:
    shape, kernel, options = OPTIONS[name]
    rng = np.random.default_rng(2)
    X, K = rng.standard_normal(shape).astype("float32"), rng.standard_normal(kernel).astype("float32")
    y = lab.to_numpy(lab.corr2d(lab.asarray(X), lab.asarray(K), reproducible=True, **options))
    # A sum in float64, rounded once.
    bound = error_bound(X, K, algorithm="reproducible", **options)
    assert (np.abs(y - oracle(X, K, **options)) <= bound).all()
    np.testing.assert_array_equal(y, convlab.corr2d(X, K, reproducible=True, **options))


def test_each_channel_of_an_image_is_filtered(lab) -> None:
    rng = np.random.default_rng(0)
    X, K = rng.integers(0, 256, (12, 10, 3)), rng.integers(-3, 4, (3, 4)).astype(float)
    y = lab.corr2d(lab.asarray(X, "float32"), lab.asarray(K, "float32"), data_format="NHWC", padding="same", origin=0)
    theirs = np.stack([scipy.ndimage.correlate(X[..., c].astype(float), K, mode="constant") for c in range(3)], -1)
    np.testing.assert_array_equal(lab.to_numpy(y), theirs)
    grey = lab.corr2d(lab.asarray(X[..., 0], "float32"), lab.asarray(K, "float32"), data_format="NHWC")
    np.testing.assert_array_equal(lab.to_numpy(grey), scipy.signal.correlate2d(X[..., 0], K, "valid"))
    batch = lab.conv2d(lab.asarray(X[None, None], "float32"), lab.asarray(K, "float32"), data_format="NHWC")
    theirs = [scipy.signal.convolve2d(X[..., c], K, "valid") for c in range(3)]
    np.testing.assert_array_equal(lab.to_numpy(batch)[0, 0], np.stack(theirs, -1))
    integers = lab.to_numpy(lab.corr2d(lab.asarray(X), K.astype(int), data_format="NHWC", padding=1, padding_value=7))
    padded = np.pad(X, ((1, 1), (1, 1), (0, 0)), constant_values=7)
    theirs = [scipy.signal.correlate2d(padded[..., c], K.astype(int), "valid") for c in range(3)]
    np.testing.assert_array_equal(integers, np.stack(theirs, -1))


@pytest.mark.parametrize("shape", [(9, 8, 3), (2, 9, 8, 4)])
def test_an_image_that_may_have_its_channels_last_is_warned_of(lab, shape) -> None:
    X, K = lab.asarray(np.ones(shape, "float32")), np.ones((1, 2))
    with pytest.warns(LayoutWarning, match=re.escape(f"X: got shape {shape}, which looks like (H, W, C)")) as caught:
        lab.corr2d(X, K)
    assert [warning.filename for warning in caught] == [__file__]
    # Named layouts, columns, and images that are no larger than three pixels are certain.
    for image, kernel, options in (
        (X, K, {"data_format": "NCHW"}),
        (X, K, {"data_format": "NHWC"}),
        (X, np.ones((2, 1)), {}),
        (lab.asarray(np.ones((2, 9, 3), "float32")), K, {}),
    ):
        lab.corr2d(image, kernel, **options)


def test_a_second_call_warns_no_more() -> None:
    X, K = np.ones((19, 18, 3), "float32"), np.ones((1, 2), "float32")
    with pytest.warns(LayoutWarning):
        convlab.corr2d(X, K)
    np.testing.assert_array_equal(convlab.corr2d(X, K), np.full((19, 18, 2), 2))
