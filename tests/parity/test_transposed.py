"""`conv_transpose2d` on every backend: values, sizes, gradients, bits and errors."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import convlab
from convlab import errors
from convlab.testing import (
    error_bound,
    gradient_bounds,
    oracle,
    oracle_gradients,
    reproducible_gradients,
    transposed_error_bound,
    transposed_oracle,
    worst_ratio,
)

SEEDS = st.integers(0, 2**32 - 1)


def fixed(lab) -> range:
    """The seeds of calls that are the same each time; XLA compiles each new shape."""
    return range(4 if lab.name == "jax" else 12)


DTYPES = ("float32", "float64", "float16", "bfloat16")


class Drawn(NamedTuple):
    """A call with random geometry, NCHW; its paddings are integers."""

    y: np.ndarray
    k: np.ndarray
    bias: np.ndarray
    options: dict[str, Any]

    def arrays(self, data_format: str) -> tuple[np.ndarray, np.ndarray]:
        """Y and K in a layout."""
        if data_format == "NCHW":
            return self.y, self.k
        return self.y.transpose(0, 2, 3, 1), self.k.transpose(2, 3, 1, 0)


def drawn(seed: int, integers: bool = True) -> Drawn:
    rng = np.random.default_rng(seed)

    def draw(low: int, high: int) -> int:
        return int(rng.integers(low, high + 1))

    groups = draw(1, 3) if rng.random() < 0.4 else 1
    per_group, outputs = draw(1, 2), groups * draw(1, 3)
    kernel, size = (draw(1, 4), draw(1, 4)), (draw(1, 5), draw(1, 5))
    stride, dilation, more, padding = [], [], [], []
    for n, h in zip(size, kernel, strict=True):
        s, d = draw(1, 4), draw(1, 3)
        m = draw(0, max(s, d) - 1) if rng.random() < 0.5 else 0
        whole = (n - 1) * s + (h - 1) * d + 1 + m
        before = draw(0, min(3, whole - 1))
        after = before if rng.random() < 0.5 and 2 * before < whole else draw(0, min(3, whole - 1 - before))
        for values, value in ((stride, s), (dilation, d), (more, m), (padding, (before, after))):
            values.append(value)
    shapes = (draw(1, 2), outputs, *size), (outputs, per_group, *kernel), (per_group * groups,)
    arrays = [rng.integers(-8, 9, shape) if integers else rng.standard_normal(shape) for shape in shapes]
    options = {"stride": tuple(stride), "dilation": tuple(dilation), "output_padding": tuple(more)}
    return Drawn(*arrays, {**options, "padding": tuple(padding), "groups": groups})


def by_hand(
    y, k, bias=None, *, stride=(1, 1), padding=((0, 0), (0, 0)), output_padding=(0, 0), dilation=(1, 1), groups=1
):
    """The definition, pixel by pixel, NCHW."""
    (n, outputs, height, width), (_, per_group, h, w) = y.shape, k.shape
    rows = (height - 1) * stride[0] + (h - 1) * dilation[0] + 1 + output_padding[0]
    columns = (width - 1) * stride[1] + (w - 1) * dilation[1] + 1 + output_padding[1]
    x = np.zeros((n, per_group * groups, rows, columns), np.result_type(y, k))
    share = outputs // groups
    for o, i, j, p, q in np.ndindex(outputs, height, width, h, w):
        first = o // share * per_group
        spot = i * stride[0] + p * dilation[0], j * stride[1] + q * dilation[1]
        x[:, first : first + per_group, *spot] += np.multiply.outer(y[:, o, i, j], k[o, :, p, q])
    (top, bottom), (left, right) = padding
    x = x[:, :, top : rows - bottom, left : columns - right]
    return x if bias is None else x + bias[:, None, None]


def given_to(lab, dtype, *arrays):
    return [lab.asarray(array, dtype) for array in arrays]


def with_bias(lab, options, y, k, bias):
    return lab.conv_transpose2d(y, k, bias=bias, **options)


def test_numbers_worked_out_by_hand(lab) -> None:
    """The example of *Dive into Deep Learning*, section 14.10, and others of its kind."""
    K = lab.asarray([[0.0, 1.0], [2.0, 3.0]])
    Y = lab.asarray([[0.0, 1.0], [2.0, 3.0]])
    whole = [[0, 0, 1], [0, 4, 6], [4, 12, 9]]
    strided = [[0, 0, 0, 1], [0, 0, 2, 3], [0, 2, 0, 3], [4, 6, 6, 9]]
    assert lab.to_numpy(convlab.conv_transpose2d(Y, K)).tolist() == whole
    assert lab.to_numpy(convlab.conv_transpose2d(Y, K, stride=2)).tolist() == strided
    assert lab.to_numpy(convlab.conv_transpose2d(Y, K, padding=1)).tolist() == [[4]]
    assert lab.to_numpy(lab.conv_transpose2d([[0, 1], [2, 3]], [[0, 1], [2, 3]], bias=10)).tolist() == [
        [n + 10 for n in row] for row in whole
    ]
    more = lab.conv_transpose2d([[1, 2]], [[1, 10, 100]], stride=(1, 3), output_padding=(0, 2))
    assert lab.to_numpy(more).tolist() == [[1, 10, 100, 2, 20, 200, 0, 0]]
    # With a padding at the end, more rows are some of those that it takes off.
    less = lab.conv_transpose2d(
        [[1, 2]], [[1, 10, 100]], stride=(1, 3), output_padding=(0, 1), padding=((0, 0), (1, 2))
    )
    assert lab.to_numpy(less).tolist() == [[10, 100, 2, 20]]


def test_the_oracle_is_right() -> None:
    """Against the definition, and against the transposed matrix of corr2d."""
    for seed in range(60):
        y, k, bias, options = drawn(seed)
        np.testing.assert_array_equal(transposed_oracle(y, k, bias=bias, **options), by_hand(y, k, bias, **options))
    rng = np.random.default_rng(0)
    for padding, stride, size in itertools.product(("valid", "same", "same_lower", "full"), (1, 2, 3), (6, 9)):
        K = rng.integers(-9, 9, (3, 4))
        matrix = convlab.corr2d_matrix(K, (size, size), stride=stride, padding=padding)
        Y = rng.integers(-9, 9, convlab.output_shape((size, size), K.shape, stride=stride, padding=padding))
        expected = (matrix.T @ Y.ravel()).reshape(size, size)
        x = transposed_oracle(Y, K, stride=stride, padding=padding)
        rows, columns = (min(lengths) for lengths in zip(x.shape, expected.shape, strict=True))
        if padding in ("same", "same_lower"):
            # The result is that for an image of a multiple of the stride.
            if size % stride:
                continue
            assert x.shape == expected.shape
        np.testing.assert_array_equal(x[:rows, :columns], expected[:rows, :columns])


@pytest.mark.parametrize("data_format", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "uint8"])
def test_integers_are_exact(lab, dtype, data_format) -> None:
    for seed in fixed(lab):
        call = drawn(seed)
        call = call._replace(y=abs(call.y), k=abs(call.k), bias=abs(call.bias)) if dtype == "uint8" else call
        y, k = given_to(lab, dtype, *call.arrays(data_format))
        x = lab.conv_transpose2d(y, k, bias=lab.asarray(call.bias, dtype), **call.options, data_format=data_format)
        assert lab.ops.dtype(x) == ("int64" if "int" in dtype else dtype)
        expected = by_hand(call.y, call.k, call.bias, **call.options)
        expected = expected if data_format == "NCHW" else expected.transpose(0, 2, 3, 1)
        np.testing.assert_array_equal(lab.to_numpy(x), expected, err_msg=f"{seed} {call.options}")


@pytest.mark.parametrize("reproducible", [False, True])
def test_random_geometry(lab, reproducible) -> None:
    @settings(max_examples=5 if lab.name == "jax" else 20)
    @given(SEEDS)
    def check(seed: int) -> None:
        call = drawn(seed)
        y, k = given_to(lab, "float32", call.y, call.k)
        x = lab.conv_transpose2d(y, k, bias=call.bias, **call.options, reproducible=reproducible)
        np.testing.assert_array_equal(lab.to_numpy(x), by_hand(call.y, call.k, call.bias, **call.options))

    check()


def test_any_leading_axes(lab) -> None:
    rng = np.random.default_rng(0)
    K, options = rng.integers(-8, 9, (3, 2)), {"stride": (2, 1), "padding": 1, "output_padding": (1, 0)}
    padding = {"padding": ((1, 1), (1, 1))}
    Y = rng.integers(-8, 9, (2, 3, 4, 5))
    expected = by_hand(Y.reshape(6, 1, 4, 5), K[None, None], **{**options, **padding}).reshape(2, 3, 8, 4)
    for y, x in ((Y, expected), (Y[0], expected[0]), (Y[0, 0], expected[0, 0])):
        for dtype in ("float32", "int32"):
            np.testing.assert_array_equal(lab.to_numpy(lab.conv_transpose2d(*given_to(lab, dtype, y, K), **options)), x)
    last = lab.conv_transpose2d(*given_to(lab, "float32", np.moveaxis(Y, 1, -1), K), **options, data_format="NHWC")
    np.testing.assert_array_equal(lab.to_numpy(last), np.moveaxis(expected, 1, -1))
    kernel = rng.integers(-8, 9, (3, 2, 2, 2))
    single = lab.conv_transpose2d(*given_to(lab, "float32", Y[0], kernel))
    np.testing.assert_array_equal(lab.to_numpy(single), by_hand(Y[:1], kernel)[0])
    single = lab.conv_transpose2d(
        *given_to(lab, "float32", Y[0].transpose(1, 2, 0), kernel.transpose(2, 3, 1, 0)), data_format="NHWC"
    )
    np.testing.assert_array_equal(lab.to_numpy(single), by_hand(Y[:1], kernel)[0].transpose(1, 2, 0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_within_the_bound(lab, dtype) -> None:
    if dtype not in lab.adapter.dtypes:
        with pytest.raises(errors.DTypeError):
            lab.conv_transpose2d(lab.asarray([[1.0]], dtype), [[1.0]])
        return
    for seed, reproducible in itertools.product(fixed(lab), (False, True)):
        y, k, bias, options = drawn(seed, integers=False)
        tensors = given_to(lab, dtype, y, k, bias)
        y, k, bias = (np.asarray(lab.to_numpy(each), np.float64) for each in tensors)
        x = lab.conv_transpose2d(*tensors[:2], bias=tensors[2], **options, reproducible=reproducible)
        assert lab.ops.dtype(x) == dtype
        algorithm = "reproducible" if reproducible else "direct"
        bound = transposed_error_bound(y, k, bias=bias, dtype=dtype, algorithm=algorithm, **options)
        true = transposed_oracle(y, k, bias=bias, **options)
        assert worst_ratio(lab.to_numpy(x), true, bound) <= 1, (seed, options)


def test_large_kernels_are_within_the_bound(lab) -> None:
    """Where "auto" takes the fast Fourier transform, on some backends."""
    rng = np.random.default_rng(0)
    Y, K = (rng.standard_normal(shape).astype("float32") for shape in ((120, 110), (25, 23)))
    for options in ({}, {"padding": "same"}, {"stride": 2, "padding": 7, "output_padding": 1}):
        x = lab.to_numpy(lab.conv_transpose2d(*given_to(lab, "float32", Y, K), **options))
        bound = transposed_error_bound(Y, K, dtype="float32", algorithm="fft", **options)
        assert worst_ratio(x, transposed_oracle(Y, K, **options), bound) <= 1
        whole = [lab.asarray(np.round(8 * array), "float32") for array in (Y, K)]
        x = lab.to_numpy(lab.conv_transpose2d(*whole, **options))
        np.testing.assert_array_equal(x, transposed_oracle(*(np.round(8 * array) for array in (Y, K)), **options))


@pytest.mark.parametrize("padding", ["valid", "same", "same_lower", "full", 1, ((2, 0), (1, 3))])
@pytest.mark.parametrize("stride", [1, 2, (3, 2)])
def test_it_is_the_transpose_of_corr2d(lab, padding, stride) -> None:
    """<corr2d(X, K), Y> == <X, conv_transpose2d(Y, K)> for the sizes of X that give Y's, in exact integers."""
    rng = np.random.default_rng(0)
    down, right = stride if isinstance(stride, tuple) else (stride, stride)
    K = rng.integers(-9, 10, (4, 2, 3, 4))
    heights = (9, 12) if lab.name == "jax" else (9, 10, 11, 12)  # XLA compiles each new shape
    for height, width in itertools.product(heights, (12, 13)):
        X = rng.integers(-9, 10, (1, 2, height, width))
        Z = convlab.corr2d(X, K, stride=stride, padding=padding)
        Y = rng.integers(-9, 10, Z.shape)
        least = np.array(transposed_oracle(Y, K, stride=stride, padding=padding).shape[2:])
        missing = np.array([height, width]) - least
        options = {"stride": stride, "padding": padding}
        if padding in ("same", "same_lower"):
            # The result is that for the largest image.
            if height % down or width % right:
                continue
        else:
            options["output_padding"] = tuple(int(n) for n in missing)
        back = lab.to_numpy(lab.conv_transpose2d(*given_to(lab, "int64", Y, K), **options))
        assert back.shape == X.shape
        assert (Z * Y).sum() == (X * back).sum()


def test_gradients(lab) -> None:
    """Of Y it is corr2d; of K and the bias, those of corr2d's arguments with Y and the result in each other's place."""
    if not lab.adapter.autograd:
        with pytest.raises(errors.UnsupportedError):
            lab.ops.vjp(
                lab.conv_transpose2d, given_to(lab, "float32", np.ones((2, 2)), np.ones((1, 1))), np.ones((2, 2))
            )
        return
    for seed in fixed(lab):
        y, k, bias, options = drawn(seed, integers=False)
        for data_format, whole in itertools.product(("NCHW", "NHWC"), (True, False)):
            call = Drawn(*(np.round(4 * a) if whole else a.astype("float32") for a in (y, k, bias)), options)
            arrays = *call.arrays(data_format), call.bias
            dx = np.random.default_rng(seed).standard_normal(by_hand(y, k, **options).shape)
            dx = np.round(4 * dx) if whole else dx.astype("float32")
            turned = dx if data_format == "NCHW" else dx.transpose(0, 2, 3, 1)
            tensors, seeds = given_to(lab, "float32", *arrays), lab.asarray(turned, "float32")
            function = partial(with_bias, lab, {**options, "data_format": data_format})
            slopes = [lab.to_numpy(slope) for slope in lab.ops.vjp(function, tensors, seeds)]
            if data_format == "NHWC":
                slopes = [slopes[0].transpose(0, 3, 1, 2), slopes[1].transpose(3, 2, 0, 1), slopes[2]]
            for slope, (true, bound) in zip(slopes, true_gradients(call, dx), strict=True):
                assert slope.shape == true.shape
                assert worst_ratio(slope, true, 0 if whole else bound) <= 1, (seed, options)


def true_gradients(call: Drawn, dx: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """The gradients of Y, K and the bias with their bounds, by the oracle of corr2d, whose image is the result."""
    options = {name: value for name, value in call.options.items() if name != "output_padding"}
    rows, columns = call.y.shape[2:]
    dy = oracle(dx, call.k, **options)
    # More rows of the result than a stride's have windows of their own, in which Y is zero.
    y = np.pad(call.y, ((0, 0), (0, 0), (0, dy.shape[2] - rows), (0, dy.shape[3] - columns)))
    dk, db = oracle_gradients(dx, call.k, y, **options).K, dx.astype(np.float64).sum((0, 2, 3))
    bounds = gradient_bounds(dx, call.k, y, "float32", **options)
    sums = abs(dx).astype(np.float64).sum((0, 2, 3)) * dx.size * 2.0**-23
    within = error_bound(dx, call.k, dtype="float32", **options)
    return [(dy[:, :, :rows, :columns], within[:, :, :rows, :columns]), (dk, bounds.K), (db, sums)]


def bits(array: np.ndarray) -> tuple[tuple[int, ...], str, bytes]:
    return array.shape, str(array.dtype), array.tobytes()


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_the_same_bits(lab, dtype) -> None:
    """NumPy's, whose sums are added up one Python float after another by `in_order`; gradients as well."""
    for seed in fixed(lab):
        call = drawn(seed, integers=False)
        rng = np.random.default_rng(seed)
        wide = [(a * 2.0 ** rng.integers(-4, 5, a.shape)).astype(dtype) for a in call[:3]]
        expected = convlab.conv_transpose2d(wide[0], wide[1], bias=wide[2], **call.options, reproducible=True)
        if dtype == "float32" and seed < 6:
            assert bits(expected) == bits(in_order(*wide, **call.options))
        tensors = given_to(lab, dtype, *wide)
        x = lab.conv_transpose2d(*tensors[:2], bias=tensors[2], **call.options, reproducible=True)
        assert bits(lab.to_numpy(x)) == bits(expected), (seed, call.options)
        if not lab.adapter.autograd or dtype == "float16":
            continue
        dx = rng.standard_normal(expected.shape).astype(dtype)
        function = partial(with_bias, lab, {**call.options, "reproducible": True})
        slopes = lab.ops.vjp(function, tensors, lab.asarray(dx, dtype))
        for slope, true in zip(slopes, reproducible_slopes(wide, dx, call.options), strict=True):
            assert bits(lab.to_numpy(slope)) == bits(true), (seed, call.options)


def in_order(y, k, bias, *, stride, padding, output_padding, dilation, groups) -> np.ndarray:
    """The documented order: output channel, kernel row and column backwards, then the bias; one rounding at the end."""
    shape = by_hand(
        y, k, stride=stride, padding=padding, output_padding=output_padding, dilation=dilation, groups=groups
    ).shape
    x, share, per_group = np.zeros(shape, y.dtype), y.shape[1] // groups, k.shape[1]
    (height, width), (h, w) = y.shape[2:], k.shape[2:]
    for n, c, row, column in np.ndindex(shape):
        total = 0.0
        for o in range(c // per_group * share, (c // per_group + 1) * share):
            for p, q in itertools.product(reversed(range(h)), reversed(range(w))):
                i, off = divmod(row + padding[0][0] - p * dilation[0], stride[0])
                j, aside = divmod(column + padding[1][0] - q * dilation[1], stride[1])
                if not off and not aside and 0 <= i < height and 0 <= j < width:
                    total += float(y[n, o, i, j]) * float(k[o, c % per_group, p, q])
        x[n, c, row, column] = total + float(bias[c])
    return x


def reproducible_slopes(arrays: list[np.ndarray], dx: np.ndarray, options: dict[str, Any]) -> list[np.ndarray]:
    """The gradients by NumPy's reproducible corr2d and its gradients."""
    y, k, bias = arrays
    options = {name: value for name, value in options.items() if name != "output_padding"}
    rows, columns = y.shape[2:]
    dy = convlab.corr2d(dx, k, **options, reproducible=True)
    y = np.pad(y, ((0, 0), (0, 0), (0, dy.shape[2] - rows), (0, dy.shape[3] - columns)))
    pixels = np.ones((len(bias), 1, 1, 1), dx.dtype)
    db = reproducible_gradients(np.zeros_like(dx), pixels, dx, groups=len(bias)).bias
    return [dy[:, :, :rows, :columns], reproducible_gradients(dx, k, y, **options).K, db]


def test_the_same_call_has_the_same_bits(lab) -> None:
    """The first time and every other; and it isn't taken for another call."""
    rng = np.random.default_rng(0)
    y, k = given_to(lab, "float32", rng.standard_normal((2, 3, 9, 8)), rng.standard_normal((3, 4, 3, 3)))
    kinds: list[dict[str, Any]] = [{}, {"stride": 2}, {"stride": 2, "output_padding": 1}, {"padding": 1}]
    first = [lab.to_numpy(lab.conv_transpose2d(y, k, **options)) for options in kinds]
    for _ in range(3):
        again = [lab.to_numpy(lab.conv_transpose2d(y, k, **options)) for options in kinds]
        assert [bits(each) for each in again] == [bits(each) for each in first]
    assert [each.shape[2] for each in first] == [11, 19, 20, 9]
    square = lab.asarray(rng.standard_normal((3, 3, 3, 3)), "float32")
    assert lab.ops.shape(lab.corr2d(y, square)) == (2, 3, 7, 6)
    assert lab.ops.shape(lab.conv_transpose2d(y, square)) == (2, 3, 11, 10)


def test_empty_batches(lab) -> None:
    assert lab.ops.shape(lab.conv_transpose2d(np.ones((0, 5, 6)), np.ones((2, 2)), stride=2)) == (0, 10, 12)
    K, bias = np.ones((4, 3, 2, 2), "float32"), np.ones(6, "float32")
    Y = np.ones((0, 4, 5, 6), "float32")
    options = {"stride": (2, 1), "groups": 2, "output_padding": (1, 0)}
    for reproducible in (False, True):
        x = lab.conv_transpose2d(*given_to(lab, "float32", Y, K), bias=bias, **options, reproducible=reproducible)
        assert lab.ops.shape(x) == (0, 6, 11, 7)


def test_integers_that_do_not_fit(lab) -> None:
    large = np.array([[2**62, 2**62]])
    call = lab.conv_transpose2d
    if lab.adapter.wraps:

        def call(*arrays):
            return lab.to_numpy(lab.conv_transpose2d(*arrays))

    with pytest.raises(errors.IntegerOverflowError):
        call(lab.asarray(large), lab.asarray([[1, 1]]))
    assert lab.to_numpy(call(lab.asarray(large), lab.asarray([[1, 0]]))).tolist() == [[2**62, 2**62, 0]]


Y = np.ones((1, 4, 6, 7), "float32")
K = np.ones((4, 2, 3, 3), "float32")
# name: (arguments, options, error, a part of the message)
BAD_CALLS = {
    "Y of rank 1": ((np.ones(4), np.ones((2, 2))), {}, errors.ShapeError, "Y: got shape (4,), expected (..., H, W)"),
    "Y of rank 5": ((Y[None], K), {}, errors.ShapeError, "Y: got shape (1, 1, 4, 6, 7) of rank 5"),
    "K of rank 3": ((Y, np.ones((3, 3, 3))), {}, errors.ShapeError, "K: got shape (3, 3, 3) of rank 3"),
    "channels": ((Y[:, :3], K), {}, errors.ShapeError, "Y: got 3 channels in (1, 3, 6, 7) (NCHW), expected 4"),
    "swapped channels": ((Y[:, :2], K), {}, errors.ShapeError, "K.transpose(1, 0, 2, 3) swaps its channels"),
    "groups": ((Y, K), {"groups": 3}, errors.GeometryError, "groups: got 3, expected a divisor of K's 4"),
    "groups of a plane": ((Y[0], K[0, 0]), {"groups": 2}, errors.GeometryError, "groups: got 2, expected 1"),
    "no pixels": ((Y[:, :, :0], K), {}, errors.ShapeError, "Y: got 0 rows and 7 columns"),
    "bias": ((Y, K), {"bias": np.ones(4)}, errors.ShapeError, "bias: got shape (4,), expected shape (2,)"),
    "stride": ((Y, K), {"stride": 0}, errors.GeometryError, "stride: got 0, expected a positive int"),
    "padding": ((Y, K), {"padding": 4}, errors.GeometryError, "takes 8 rows off a result of 8, expected to leave"),
    "padding full": ((Y[..., :1, :1], K), {"padding": "full"}, errors.GeometryError, "takes 4 rows off a result of 3"),
    "padding unknown": ((Y, K), {"padding": "smae"}, errors.GeometryError, "did you mean 'same'?"),
    "padding mode": (
        (Y, K),
        {"padding_mode": "reflect"},
        errors.GeometryError,
        "padding_mode: got 'reflect', expected",
    ),
    "output padding": ((Y, K), {"output_padding": 1}, errors.GeometryError, "output_padding: got 1 with stride (1, 1)"),
    "output padding -1": ((Y, K), {"output_padding": -1}, errors.GeometryError, "output_padding: got -1"),
    "output padding of same": (
        (Y, K),
        {"output_padding": 1, "padding": "same", "stride": 2},
        errors.GeometryError,
        "output_padding: got 1 with padding='same', expected 0",
    ),
    "too large": ((Y, K), {"stride": 2**40}, errors.GeometryError, "got values that make a "),
    "too much output padding": (
        (Y[..., :1, :], K),
        {"stride": (2**40, 1), "output_padding": (2**39, 0)},
        errors.GeometryError,
        "got values that make a ",
    ),
    "text": (("photo.png", K), {}, errors.DTypeError, "Y: got 'photo.png', expected a tensor"),
    "complex and reproducible": (
        (Y.astype("complex64"), K),
        {"reproducible": True},
        (errors.UnsupportedError, errors.DTypeError),
        "got dtype complex64, expected",
    ),
    "reproducible": ((Y, K), {"reproducible": 1}, errors.GeometryError, "reproducible: got 1, expected True or False"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_calls(lab, name) -> None:
    arguments, options, error, message = BAD_CALLS[name]
    with pytest.raises(error) as caught:
        lab.conv_transpose2d(*arguments, **options)
    assert message in str(caught.value)
    assert "Hint: " in str(caught.value)


def test_a_stride_that_does_nothing_may_be_of_any_size(lab) -> None:
    y, k = given_to(lab, "float32", np.full((1, 1, 1, 2), 3), np.arange(4).reshape(1, 1, 2, 2))
    for reproducible in (False, True):
        x = lab.conv_transpose2d(y, k, stride=(10**6, 1), reproducible=reproducible)
        assert lab.to_numpy(x).tolist() == [[[[0, 3, 3], [6, 15, 9]]]]


def test_an_image_with_its_channels_last_is_warned_of(lab) -> None:
    with pytest.warns(errors.LayoutWarning, match=r"Y: got shape \(5, 6, 3\)"):
        lab.conv_transpose2d(np.ones((5, 6, 3), "float32"), np.ones((2, 2), "float32"))


def test_arrays_and_lists_beside_a_tensor(lab) -> None:
    y = lab.asarray([[1.0, 2.0]], "float32")
    x = convlab.conv_transpose2d(y, [[1, 10]], bias=[0.5])
    assert type(x) is type(y)
    assert lab.to_numpy(x).tolist() == [[1.5, 12.5, 20.5]]
    x = convlab.conv_transpose2d(y, np.array([[1.0, 10.0]]))
    assert lab.ops.dtype(x) == ("float64" if lab.name == "numpy" else "float32")


def test_complex_numbers(lab) -> None:
    if "complex64" not in lab.adapter.dtypes:
        with pytest.raises(errors.DTypeError):
            lab.conv_transpose2d(np.ones((2, 2), "complex64"), np.ones((1, 1)))
        return
    call = drawn(3)
    y, k = call.y + 1j * call.y[..., ::-1], call.k - 2j * call.k[:, :, ::-1]
    x = lab.conv_transpose2d(*given_to(lab, "complex64", y, k), **call.options)
    np.testing.assert_array_equal(lab.to_numpy(x), by_hand(y, k, **call.options))
