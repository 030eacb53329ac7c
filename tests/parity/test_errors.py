"""The same bad call raises the same error, with the same words, on every backend."""

from __future__ import annotations

import re

import numpy as np
import pytest

import convlab
from convlab import errors
from convlab.contract.layer import LayerSpec

X = np.ones((1, 4, 6, 7), "float32")
K = np.ones((2, 4, 3, 3), "float32")

# name: (arguments, error, a part of the message)
BAD_CALLS = {
    "X of rank 1": ((np.ones(4), np.ones((2, 2))), {}, errors.ShapeError, "X: got shape (4,), expected (..., H, W)"),
    "X of rank 0": ((3.0, np.ones((1, 1))), {}, errors.ShapeError, "X: got shape (), expected (..., H, W)"),
    "X of rank 0 for a layer": ((3.0, K), {}, errors.ShapeError, "X: got shape () of rank 0"),
    "K of rank 3": ((X, np.ones((3, 3, 3))), {}, errors.ShapeError, "K: got shape (3, 3, 3) of rank 3"),
    "K of rank 0": ((X, np.float32(1)), {}, errors.ShapeError, "K: got shape () of rank 0"),
    "X of rank 5": ((X[None], K), {}, errors.ShapeError, "X: got shape (1, 1, 4, 6, 7) of rank 5"),
    "kernel too large": ((X[0, 0], np.ones((7, 7))), {}, errors.ShapeError, "height 7 (dilation counted)"),
    "dilated kernel too large": ((X, K), {"dilation": 4}, errors.ShapeError, "height 9 (dilation counted)"),
    "empty kernel": ((X[0, 0], np.ones((0, 2))), {}, errors.ShapeError, "expected no size of 0"),
    "empty image": ((np.ones((0, 3)), np.ones((1, 1))), {}, errors.ShapeError, "image of height 0"),
    "nothing to reflect": (
        (np.ones((0, 3)), np.ones((1, 1))),
        {"padding": 1, "padding_mode": "reflect"},
        errors.ShapeError,
        "expected pixels to repeat",
    ),
    "stride 0": ((X, K), {"stride": 0}, errors.GeometryError, "stride: got 0, expected a positive int"),
    "stride -1": ((X, K), {"stride": (1, -1)}, errors.GeometryError, "stride: got -1"),
    "stride of three": ((X, K), {"stride": (1, 1, 1)}, errors.GeometryError, "expected an int or a pair"),
    "stride 1.5": ((X, K), {"stride": 1.5}, errors.GeometryError, "stride: got 1.5"),
    "stride nan": ((X, K), {"stride": float("nan")}, errors.GeometryError, "stride: got nan"),
    "stride True": ((X, K), {"stride": True}, errors.GeometryError, "stride: got True"),
    "dilation 0": ((X, K), {"dilation": 0}, errors.GeometryError, "dilation: got 0"),
    "padding -1": ((X, K), {"padding": -1}, errors.GeometryError, "padding: got -1, expected an int of at least 0"),
    "padding nan": ((X, K), {"padding": ((0, 1), (float("nan"), 1))}, errors.GeometryError, "padding: got nan"),
    "padding unknown": ((X, K), {"padding": "smae"}, errors.GeometryError, "did you mean 'same'?"),
    "padding mode unknown": (
        (X, K),
        {"padding_mode": "mirrored"},
        errors.GeometryError,
        "did you mean 'mirror' or 'grid-mirror'?",
    ),
    "padding mode of OpenCV": ((X, K), {"padding_mode": 2}, errors.GeometryError, "border 2 is 'symmetric'"),
    "padding value nan": ((X, K), {"padding_value": np.nan}, errors.GeometryError, "padding_value: got nan"),
    "padding value too long": ((X, K), {"padding_value": 2**53 + 1}, errors.GeometryError, "that float64 holds"),
    "padding value of a mirror": (
        (X, K),
        {"padding_value": 1.0, "padding_mode": "reflect"},
        errors.GeometryError,
        "only a constant border has a value",
    ),
    "padding value beside integers": (
        (np.ones((3, 3), int), [[1]]),
        {"padding": 1, "padding_value": 0.5},
        errors.DTypeError,
        "padding_value: got 0.5 beside integers",
    ),
    "padding value beside float16": (
        (np.ones((3, 3), "float16"), [[1]]),
        {"padding": 1, "padding_value": 1e6},
        errors.DTypeError,
        "infinite in float16",
    ),
    "origin without same": ((X, K), {"origin": 0, "padding": 1}, errors.GeometryError, "origin: got 0 without padding"),
    "origin outside": ((X, K), {"origin": 2, "padding": "same"}, errors.GeometryError, "from -1 to 1 along this axis"),
    "origin 0.5": ((X, K), {"origin": 0.5, "padding": "same"}, errors.GeometryError, "origin: got 0.5"),
    "K of rank 1": ((X[0, 0], [1.0, 2.0]), {}, errors.ShapeError, "K[None], or [K] of a list, is a kernel of one row"),
    "swapped": (([[1.0, 2.0]], np.ones((4, 4))), {}, errors.ShapeError, "corr2d(X, K) takes the image first"),
    "channels last": ((X.transpose(0, 2, 3, 1), K), {}, errors.ShapeError, "data_format='NHWC' takes images of this"),
    "a kernel's name": ((X[0, 0], "sobel"), {}, errors.DTypeError, "convlab.filters.sobel() and others make kernels"),
    "a function": ((X[0, 0], np.sin), {}, errors.DTypeError, "a function must be called"),
    "a mode as padding": ((X, K), {"padding": "nearest"}, errors.GeometryError, "padding='same', padding_mode='repl"),
    "a padding as mode": ((X, K), {"padding_mode": "SAME"}, errors.GeometryError, "padding='same', padding_mode='z"),
    "padding value of text": ((X, K), {"padding_value": "a"}, errors.GeometryError, "padding_value=0.5 is an example"),
    "path": (("photo.png", [[1.0]]), {}, errors.DTypeError, "PIL.Image.open(path)"),
    "layout unknown": ((X, K), {"data_format": "CHWN"}, errors.GeometryError, "data_format: got 'CHWN'"),
    "algorithm unknown": ((X, K), {"algorithm": "magic"}, errors.GeometryError, "algorithm: got 'magic'"),
    "groups 0": ((X, K), {"groups": 0}, errors.GeometryError, "groups: got 0"),
    "channels against groups": (
        (X, K),
        {"groups": 2},
        errors.ShapeError,
        "got 4 channels in (1, 4, 6, 7) (NCHW), expected 8",
    ),
    "outputs against groups": (
        (X, np.ones((3, 2, 3, 3))),
        {"groups": 2},
        errors.GeometryError,
        "groups: got 2, expected a divisor of K's 3 output channels",
    ),
    "groups of a rank-2 kernel": ((X, np.ones((2, 2))), {"groups": 2}, errors.GeometryError, "for a rank-2 kernel"),
    "channels": ((X[:, :3], K), {}, errors.ShapeError, "got 3 channels in (1, 3, 6, 7) (NCHW), expected 4"),
    "bias of another size": ((X, K), {"bias": np.ones(3)}, errors.ShapeError, "bias: got shape (3,), expected"),
    "bias for rank 2": ((X, np.ones((2, 2))), {"bias": np.ones(2)}, errors.ShapeError, "shape (1,) for a rank-2"),
    "object array": ((np.array([[1, None]]), np.ones((1, 1))), {}, errors.DTypeError, "X: got dtype object"),
    "strings": (([["a"]], np.ones((1, 1))), {}, errors.DTypeError, "X: got dtype"),
    "ragged list": ((X, [[1, 2], [3]]), {}, errors.ShapeError, "K: got a ragged list"),
    "no array": ((object(), np.ones((1, 1))), {}, errors.DTypeError, "X: got builtins.object"),
    "None": ((None, np.ones((1, 1))), {}, errors.DTypeError, "X: got None, expected"),
    "too large an integer": (
        (np.array([[2**63]], "uint64"), np.ones((1, 1), int)),
        {},
        errors.IntegerOverflowError,
        "X: got 9223372036854775808",
    ),
    "integer overflow by a bias": (
        ([[2**63 - 1]], [[1]]),
        {"bias": 1},
        errors.IntegerOverflowError,
        "got a result of 9223372036854775808",
    ),
    "integer overflow": (
        (np.full((1, 2), 2**62), np.ones((1, 2), int)),
        {},
        errors.IntegerOverflowError,
        "got a result of 9223372036854775808",
    ),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_calls(lab, name) -> None:
    arguments, options, error, part = BAD_CALLS[name]
    with pytest.raises(error, match=re.escape(part)) as caught:
        lab.to_numpy(lab.corr2d(*arguments, **options))  # Dask knows no integer's overflow before it computes
    assert "Hint:" in str(caught.value)
    with pytest.raises(error) as oracle:
        convlab.corr2d(*arguments, backend="numpy", **options)
    assert str(caught.value) == str(oracle.value)


@pytest.mark.parametrize(
    "name", ["X of rank 1", "K of rank 3", "kernel too large", "channels", "groups of a rank-2 kernel"]
)
def test_bad_calls_with_native_tensors(lab, name) -> None:
    (x, k), options, error, _ = BAD_CALLS[name]
    with pytest.raises(error) as caught:
        lab.corr2d(lab.asarray(x), lab.asarray(k), **options)
    with pytest.raises(error) as oracle:
        convlab.corr2d(x, k, backend="numpy", **options)
    assert str(caught.value) == str(oracle.value)


def test_learning_from_nothing(lab) -> None:
    with pytest.raises(errors.ShapeError, match="expected at least one image"):
        lab.learn_kernel(np.ones((0, 6, 8)), np.ones((0, 6, 7)), (1, 2))


def test_backend_names(lab) -> None:
    for name in ("", "theano", 3, ["numpy"]):
        with pytest.raises(errors.UnknownBackendError, match="expected one of"):
            convlab.corr2d(X, K, backend=name)


def test_a_failed_first_call_leaves_a_layer_as_it_was(lab) -> None:
    layer = lab.Conv2D(3, out_channels=4, groups=2, data_format="NHWC", seed=0)
    assert layer.spec.lazy if hasattr(layer, "spec") else layer.in_channels is None
    spec = LayerSpec(3, out_channels=4, groups=2)
    with pytest.raises(errors.GeometryError, match="divisor of in_channels=3"):
        spec.fit((1, 3, 5, 5))
    assert spec.fit((1, 4, 5, 5)).weight_shape() == (4, 2, 3, 3)


def test_sums_that_only_pass_beyond_int64_are_exact(lab) -> None:
    X = np.array([[2**62, 2**62, -(2**62)]])
    y = lab.to_numpy(lab.corr2d(lab.asarray(X), lab.asarray(np.ones((1, 3), int))))
    assert y.tolist() == [[2**62]]


@pytest.mark.parametrize(
    ("arguments", "error", "part"),
    [
        (dict(kernel_size=(1, 3)), errors.ShapeError, "Y: got shape (6, 7), expected (6, 6)"),
        (dict(kernel_size=0), errors.GeometryError, "kernel_size: got 0"),
        (dict(num_steps=-1), errors.GeometryError, "num_steps: got -1"),
        (dict(num_steps=1.5), errors.GeometryError, "num_steps: got 1.5"),
        (dict(lr=float("nan")), errors.GeometryError, "lr: got nan"),
        (dict(lr="fast"), errors.GeometryError, "lr: got 'fast'"),
        (dict(method="newton"), errors.GeometryError, "method: got 'newton'"),
        (dict(init=3), errors.ShapeError, "init: got shape (), expected (1, 2)"),
        (dict(init="zeros"), errors.DTypeError, "init: got 'zeros', expected"),
        (dict(init=[[1.0], [1.0, 2.0]]), errors.ShapeError, "init: got a ragged list"),
        (dict(init=[[1j, 2.0]]), errors.DTypeError, "init: got dtype complex128"),
        (dict(init=[[1.0]]), errors.ShapeError, "init: got shape (1, 1), expected (1, 2)"),
        (dict(init=[[1.0, 2.0]], seed=1), errors.GeometryError, "init, seed: got both"),
        (dict(log_every=-2), errors.GeometryError, "log_every: got -2"),
    ],
)
def test_bad_learning(lab, arguments, error, part) -> None:
    X = np.ones((6, 8), "float32")
    with pytest.raises(error, match=re.escape(part)):
        lab.learn_kernel(X, X[:, 1:], **{"kernel_size": (1, 2), **arguments})


@pytest.mark.parametrize(
    ("arguments", "error", "part"),
    [
        (dict(kernel_size=0), errors.GeometryError, "kernel_size: got 0"),
        (dict(kernel_size=3, out_channels=0), errors.GeometryError, "out_channels: got 0"),
        (dict(kernel_size=3, in_channels=2), errors.GeometryError, "out_channels: got None with in_channels=2"),
        (
            dict(kernel_size=3, in_channels=3, out_channels=2, groups=2),
            errors.GeometryError,
            "divisor of in_channels=3",
        ),
        (dict(kernel_size=3, out_channels=3, groups=2), errors.GeometryError, "divisor of out_channels=3"),
        (dict(kernel_size=3, padding="smae"), errors.GeometryError, "padding: got 'smae'"),
        (dict(kernel_size=3, seed=-1), errors.GeometryError, "seed: got -1"),
    ],
)
def test_bad_layers(lab, arguments, error, part) -> None:
    with pytest.raises(error, match=re.escape(part)):
        lab.Conv2D(**arguments)


def test_an_unsupported_dtype_names_the_supported_ones(lab) -> None:
    if "complex64" in lab.adapter.dtypes:
        y = lab.to_numpy(lab.corr2d(lab.asarray(np.array([[1j, 2]])), lab.asarray(np.array([[1, 1j]]))))
        np.testing.assert_array_equal(y, [[3j]])
    else:
        with pytest.raises(errors.DTypeError, match="got dtype complex128, expected integers or one of float16"):
            lab.corr2d(np.array([[1j]]), np.array([[1]]))


def test_another_frameworks_tensor_is_refused(lab, backends) -> None:
    for other in backends:
        if "numpy" in (other, lab.name) or other == lab.name:
            continue
        X, K = lab.asarray(np.ones((3, 3))), convlab.backend(other).asarray(np.ones((2, 2)))
        with pytest.raises(errors.MixedBackendsError, match=f"K: got X of {lab.name}, K of {other}"):
            convlab.corr2d(X, K)
        if lab.adapter.wraps:  # then the other one computes its chunks
            continue
        with pytest.raises(errors.MixedBackendsError, match=f"expected tensors of backend '{other}'"):
            convlab.corr2d(X, np.ones((2, 2)), backend=other)
