"""Every dtype that NumPy has, as a framework's own tensor, as an array and as a list."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal

from convlab import errors

INTEGERS = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


def numbers(dtype: str, seed: int, *shape: int) -> np.ndarray:
    """Numbers of the whole range of a dtype, as far as their sums of products stay within int64."""
    if dtype == "bool":
        return np.random.default_rng(seed).integers(0, 2, shape).astype(bool)
    info = np.iinfo(dtype)
    least, most = max(info.min, -(2**40)), min(info.max, 2**40)
    return np.random.default_rng(seed).integers(least, most, shape, endpoint=True).astype(dtype)


def by_hand(x: np.ndarray, k: np.ndarray) -> list[list[int]]:
    """The correlation in Python's own integers."""
    windows = np.lib.stride_tricks.sliding_window_view(x.astype(object), k.shape)
    return (windows * k.astype(object)).sum((2, 3)).tolist()


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_are_exact(lab, dtype) -> None:
    x, k = numbers(dtype, 0, 6, 7), np.array([[1, -2], [3, 1]], "int8")
    expected = by_hand(x, k)
    own = lab.asarray(x)
    for image, kernel in ((own, k), (own, k.tolist()), (x, lab.asarray(k)), (x, k), (x.tolist(), lab.asarray(k))):
        y = lab.to_numpy(lab.corr2d(image, kernel))
        assert y.dtype == np.int64
        assert y.tolist() == expected
    y = lab.corr2d(lab.asarray(k), numbers(dtype, 1, 2, 2))
    assert lab.to_numpy(y).tolist() == by_hand(k, numbers(dtype, 1, 2, 2))


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_beside_floats(lab, dtype) -> None:
    x = np.array([[1, 0, 1, 1]], dtype)
    for image in (x, lab.asarray(x)):
        y = lab.corr2d(image, [[0.5, 2.0]])
        assert lab.ops.dtype(y) == "float32"
        assert lab.to_numpy(y).tolist() == [[0.5, 2.0, 2.5]]
    y = lab.corr2d(lab.asarray(np.ones((1, 3), "float64")), x[:, :2])
    assert lab.ops.dtype(y) == "float64"
    assert lab.to_numpy(y).tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("dtype", ["i", "I", "l", "L", "q", "Q", ">u2", ">i8", "<u4"])
def test_integers_of_c_and_of_other_machines(lab, dtype) -> None:
    x = np.array([[3, 1, 4, 1]], dtype)
    for image in (x, lab.asarray(x), [x[0]]):
        y = lab.to_numpy(lab.corr2d(image, lab.asarray(np.array([[1, 2]], "int8"))))
        assert y.dtype == np.int64
        assert y.tolist() == [[5, 9, 6]]


def test_integers_that_int64_does_not_hold(lab) -> None:
    x = np.array([[2**63, 1]], "uint64")
    with pytest.raises(errors.IntegerOverflowError, match="got 9223372036854775808, expected integers below"):
        lab.to_numpy(lab.corr2d(x, [[1, 1]]))
    with pytest.raises(errors.IntegerOverflowError, match="got 9223372036854775808, expected integers below"):
        lab.to_numpy(lab.corr2d(lab.asarray(x), [[1, 1]]))


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("data_format", ["NCHW", "NHWC"])
def test_complex_numbers(lab, dtype, data_format) -> None:
    """SciPy's correlate2d takes the conjugate of its second argument, and corr2d doesn't."""
    rng = np.random.default_rng(0)
    x, k, b = (
        (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)
        for shape in ((1, 2, 6, 7), (3, 2, 2, 3), (3,))
    )
    expected = [sum(scipy.signal.correlate2d(c, np.conj(w), "valid") for c, w in zip(x[0], o, strict=True)) for o in k]
    expected = np.array(expected)[:, ::2, ::2] + b[:, None, None]
    if data_format == "NHWC":
        x, k, expected = x.transpose(0, 2, 3, 1), k.transpose(2, 3, 1, 0), expected.transpose(1, 2, 0)
    if dtype not in lab.adapter.dtypes:
        with pytest.raises(errors.DTypeError, match=f"got dtype {dtype}, expected integers or one of float16"):
            lab.corr2d(x, k)
        return
    for image in (x, lab.asarray(x)):
        y = lab.corr2d(image, k, bias=b, stride=2, data_format=data_format)
        assert lab.ops.dtype(y) == dtype
        np.testing.assert_allclose(lab.to_numpy(y)[0], expected, rtol=0, atol=3e-6 if dtype == "complex64" else 1e-14)
