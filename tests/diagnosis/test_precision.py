"""Each loss of precision is planted, and found."""

from __future__ import annotations

import numpy as np
import pytest
from planting import Plant, float32_loop, is_named, naive, planted, serial, several

from convlab.testing import diagnose, error_bound


def mantissa(x, bits, how="even"):
    """Values of float32 kept to so many bits, by arithmetic on the integers of their bits, one by one."""
    words = x.astype("float32").view("uint32")
    out = []
    for word in (int(w) for w in words.ravel()):
        size = 1 << (23 - bits)
        low, up = word % size, word // size
        away = low * 2 > size or (low * 2 == size and (how == "away" or up % 2 == 1))
        out.append((up + (away and how != "cut")) * size)
    return np.array(out, "uint32").view("float32").reshape(x.shape)


@planted
@several
@pytest.mark.parametrize("how", ["even", "away", "cut"])
def test_tf32(seed, layout, how) -> None:
    p = Plant(seed, layout, x=(2, 16, 8, 8), k=(4, 16, 3, 3))
    same_in_float16 = ["float16 inputs"] if how == "even" else []
    p.x[:, ::2] = (
        ((p.x[:, ::2].view("uint32") >> 13 << 13) + (1 << 12)).astype("uint32").view("float32")
    )  # These are ties.
    assert p.diagnose(float32_loop(p.x, p.k)) is None
    diagnosis = p.diagnose(float32_loop(mantissa(p.x, 10, how), mantissa(p.k, 10, how)))
    is_named(diagnosis, "TF32", also=same_in_float16)
    for switch in ("cudnn.conv.fp32_precision", "enable_tensor_float_32_execution", "jax_default_matmul_precision"):
        assert switch in diagnosis.change
    assert {"even": "even", "away": "away", "cut": "truncation"}[how] in diagnosis.explanation
    p.x *= np.float32(2**-15)  # There float16 has fewer bits.
    is_named(p.diagnose(float32_loop(mantissa(p.x, 10, how), mantissa(p.k, 10, how))), "TF32")


@planted
@several
def test_half_inputs(seed, layout) -> None:
    p = Plant(seed, layout, x=(2, 16, 8, 8), k=(4, 16, 3, 3))
    for how in ("even", "cut"):
        is_named(p.diagnose(float32_loop(mantissa(p.x, 7, how), mantissa(p.k, 7, how))), "bfloat16 inputs")
    # Values near 1 have as many bits in TF32 as in float16; smaller ones have fewer in float16.
    p.x *= np.float32(2**-15)
    y = float32_loop(p.x.astype("float16").astype("float32"), p.k.astype("float16").astype("float32"))
    is_named(p.diagnose(y), "float16 inputs")


@planted
@several
def test_narrow_results_and_sums(seed, layout) -> None:
    p = Plant(seed, layout, x=(2, 16, 8, 8), k=(4, 16, 3, 3))
    y = float32_loop(p.x, p.k)
    is_named(p.diagnose(y.astype("float16")), "float16 result")
    is_named(p.diagnose(mantissa(y, 7)), "bfloat16 result")
    x, k = (a.astype("float16").astype("float32") for a in (p.x, p.k))
    is_named(p.diagnose(float32_loop(x, k).astype("float16")), "float16 inputs and result")
    x, k = mantissa(p.x, 7), mantissa(p.k, 7)
    is_named(p.diagnose(mantissa(float32_loop(x, k), 7)), "bfloat16 inputs and result")
    is_named(p.diagnose(serial(p.x, p.k, np.float16)), "float16 sums")
    is_named(p.diagnose(y, dtype="float64"), "float32 sums")


def points(m):
    """The matrices of F(4x4, 3x3) and F(6x6, 3x3) as they are printed."""
    if m == 4:
        G = [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]
        B = [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0]]
        B += [[0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]]
        A = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
        return np.array(A, "float32"), (np.array(G) / 24).astype("float32"), np.array(B, "float32")
    G = [[90, 0, 0], [-20, -20, -20], [-20, 20, -20], [1, 2, 4], [1, -2, 4], [64, 32, 16], [64, -32, 16], [0, 0, 90]]
    B = [[1, 0, -21 / 4, 0, 21 / 4, 0, -1, 0], [0, 1, 1, -17 / 4, -17 / 4, 1, 1, 0]]
    B += [[0, -1, 1, 17 / 4, -17 / 4, -1, 1, 0], [0, 1 / 2, 1 / 4, -5 / 2, -5 / 4, 2, 1, 0]]
    B += [[0, -1 / 2, 1 / 4, 5 / 2, -5 / 4, -2, 1, 0], [0, 2, 4, -5 / 2, -5, 1 / 2, 1, 0]]
    B += [[0, -2, 4, 5 / 2, -5, -1 / 2, 1, 0], [0, -1, 0, 21 / 4, 0, -21 / 4, 0, 1]]
    A = [[1.0**i, *[p**i for p in (1.0, -1.0, 2.0, -2.0, 0.5, -0.5)], float(i == 5)] for i in range(6)]
    for i in range(1, 6):
        A[i][0] = 0.0
    return np.array(A, "float32"), (np.array(G) / 90).astype("float32"), np.array(B, "float32")


def winograd(x, k, m, dtype="float32"):
    """Winograd's algorithm, tile by tile."""
    A, G, B = (a.astype(dtype) for a in points(m))
    n, c, height, width = x.shape
    rows, columns = height - 2, width - 2
    x = np.pad(x, ((0, 0), (0, 0), (0, -rows % m), (0, -columns % m)))
    y = np.zeros((n, len(k), rows + -rows % m, columns + -columns % m), dtype)
    transformed = G @ k @ G.T
    for i in range(0, rows, m):
        for j in range(0, columns, m):
            v = B @ x[:, :, i : i + m + 2, j : j + m + 2] @ B.T
            for o in range(len(k)):
                total = sum((transformed[o, ch] * v[:, ch] for ch in range(1, c)), transformed[o, 0] * v[:, 0])
                y[:, o, i : i + m, j : j + m] = A @ total @ A.T
    assert y.dtype == dtype
    return y[:, :, :rows, :columns]


@planted
@several
@pytest.mark.parametrize("m", [4, 6])
def test_winograd(seed, layout, m) -> None:
    """Of huge pixels beside small ones, the results of the small ones take the rounding errors of the huge ones."""
    p = Plant(seed, layout, x=(2, 2, 14, 15), k=(3, 2, 3, 3), padding=1)
    p.x[:, :, 3:5, 8] *= np.float32(1e5)
    y = winograd(p.padded(((1, 1), (1, 1))).astype("float32"), p.k, m)
    diagnosis = p.diagnose(y)
    is_named(diagnosis, "Winograd")
    assert f"F({m}x{m}, 3x3)" in diagnosis.explanation or m == 6
    assert float(np.abs(y - naive(p.padded(((1, 1), (1, 1))), p.k)).max()) < 10


@several
def test_winograd_in_float16(seed) -> None:
    p = Plant(seed, "NCHW", x=(2, 1, 14, 15), k=(3, 1, 3, 3))
    p.x[:, :, 3:9, 8] *= np.float32(1000)
    X, K = p.x.astype("float16"), p.k.astype("float16")
    is_named(diagnose(winograd(X, K, 4, "float16"), X, K), "Winograd")


@several
def test_noise_is_not_winograd(seed) -> None:
    p = Plant(seed, "NCHW", x=(2, 2, 14, 15), k=(3, 2, 3, 3))
    true, bound = naive(p.x, p.k), error_bound(p.x, p.k)
    is_named(p.diagnose(true + 30 * bound * np.random.default_rng(seed).uniform(-1, 1, true.shape)), "unexplained")
    true[0, 1, 3, 4] += 30 * bound[0, 1, 3, 4]
    is_named(p.diagnose(true), "unexplained")


@pytest.mark.parametrize("m", [4, 6])
def test_winograd_of_this_test(m) -> None:
    p = Plant(0, "NCHW", x=(1, 2, 9, 11), k=(2, 2, 3, 3))
    np.testing.assert_allclose(winograd(p.x, p.k, m), naive(p.x, p.k), atol=2e-4)


@several
@pytest.mark.parametrize("m", [4, 6])
def test_winograd_on_ordinary_data(seed, m) -> None:
    """Where its errors are beyond a sum's bound, their pattern over the tiles tells it."""
    p = Plant(seed, "NCHW", x=(2, 1, 14, 15), k=(5, 1, 3, 3))
    y = winograd(p.x, p.k, m)
    diagnosis = p.diagnose(y)
    beyond = np.abs(y - naive(p.x, p.k)) > error_bound(p.x, p.k)
    assert (diagnosis is not None) == bool(beyond.any())
    if diagnosis is not None and beyond.mean() > 0.05:
        is_named(diagnosis, "Winograd")


@several
def test_what_looks_like_winograd_and_is_not(seed) -> None:
    p = Plant(seed, "NCHW", x=(2, 3, 8, 8), k=(5, 3, 3, 3))
    rng, y = np.random.default_rng(seed), naive(p.x, p.k)
    one, kernel = y.copy(), p.k.copy()
    one[:, 0] += 2e-5
    kernel[0, 0, 0, 0] += 1e-5
    pretenders = {
        "rounded to decimals": np.round(y, 4),
        "X quantised": naive(np.round(p.x * 65535) / 65535, p.k),
        "noise": y + 1e-5 * rng.standard_normal(y.shape),
        "one channel off": one,
        "one weight off": naive(p.x, kernel),
        "relative noise": y * (1 + 1e-5 * rng.standard_normal(y.shape)),
    }
    for name, result in pretenders.items():
        diagnosis = p.diagnose(result)
        assert diagnosis is None or diagnosis.suspect == "unexplained", (name, str(diagnosis))
