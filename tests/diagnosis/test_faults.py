"""Each fault of geometry, layout, channels or bias is planted on random geometry, and found."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
from planting import Plant, is_named, naive, planted, several

import convlab
from convlab.testing import diagnose


@planted
@several
def test_flipped(seed, layout) -> None:
    p = Plant(seed, layout)
    y = sum(
        np.stack([[scipy.signal.convolve2d(x[c], k[c], "valid") for k in p.k.astype(float)] for x in p.x])
        for c in range(3)
    )
    diagnosis = p.diagnose(y)
    is_named(diagnosis, "kernel flipped")
    assert ("K[::-1, ::-1]" if layout == "NHWC" else "K[..., ::-1, ::-1]") in diagnosis.change
    is_named(p.diagnose(naive(p.x, p.k[:, :, ::-1])), "kernel flipped")
    one_row = diagnose(scipy.signal.convolve2d(p.x[0, 0], p.k[0, 0, :1], "valid"), p.x[0, 0], p.k[0, 0, :1])
    is_named(one_row, "kernel flipped")


@planted
@several
def test_transposed(seed, layout) -> None:
    p = Plant(seed, layout, x=(2, 3, 8, 8), k=(4, 3, 3, 3))
    is_named(p.diagnose(naive(p.x, p.k.swapaxes(2, 3))), "kernel transposed")
    is_named(p.diagnose(naive(p.x.swapaxes(2, 3), p.k)), "image transposed")
    is_named(p.diagnose(naive(p.x, p.k).swapaxes(2, 3)), "result transposed")
    p = Plant(seed, layout, x=(2, 3, 6, 8))
    is_named(p.diagnose(naive(p.x.swapaxes(2, 3), p.k)), "image transposed")
    is_named(p.diagnose(naive(p.x, p.k).swapaxes(2, 3)), "result transposed")
    is_named(p.diagnose(naive(p.x, p.k.swapaxes(2, 3))), "kernel transposed")
    is_named(p.diagnose(naive(p.x, p.k.swapaxes(2, 3).reshape(p.k.shape))), "kernel transposed")


@planted
@several
def test_pairs_swapped(seed, layout) -> None:
    p = Plant(seed, layout, x=(2, 3, 12, 12), k=(4, 3, 3, 3), stride=(2, 1), dilation=(1, 3), padding=(1, 0))
    padded = p.padded(((1, 1), (0, 0)))
    diagnosis = p.diagnose(naive(padded, p.k, stride=(1, 2), dilation=(1, 3)))
    is_named(diagnosis, "pairs swapped")
    assert "stride=(1, 2) instead of stride=(2, 1)" in diagnosis.explanation
    is_named(p.diagnose(naive(padded, p.k, stride=(2, 1), dilation=(3, 1))), "pairs swapped")
    turned = p.padded(((0, 0), (1, 1)))
    is_named(p.diagnose(naive(turned, p.k, stride=(2, 1), dilation=(1, 3))), "pairs swapped")
    is_named(p.diagnose(naive(turned, p.k, stride=(1, 2), dilation=(3, 1))), "pairs swapped")


@planted
@several
def test_kernel_layouts(seed, layout) -> None:
    p = Plant(seed, layout)
    hwio, oihw = np.ascontiguousarray(p.k.transpose(2, 3, 1, 0)), p.k
    diagnosis = p.diagnose(naive(p.x, hwio.reshape(oihw.shape)))
    is_named(diagnosis, "kernel layout")
    assert "transpose(3, 2, 0, 1)" in diagnosis.change
    is_named(p.diagnose(naive(p.x, oihw.reshape(hwio.shape).transpose(3, 2, 0, 1))), "kernel layout")
    p = Plant(seed, layout, k=(3, 3, 3, 2))
    is_named(p.diagnose(naive(p.x, p.k.transpose(1, 0, 2, 3))), "kernel channels swapped")
    p = Plant(seed, layout, k=(3, 3, 2, 2))
    is_named(p.diagnose(naive(p.x, p.k.transpose(1, 0, 3, 2))), "kernel channels swapped")


@planted
@several
def test_image_and_result_layouts(seed, layout) -> None:
    p = Plant(seed, layout)
    nhwc = np.ascontiguousarray(p.x.transpose(0, 2, 3, 1))
    is_named(p.diagnose(naive(nhwc.reshape(p.x.shape), p.k)), "image layout")
    is_named(p.diagnose(naive(p.x.reshape(nhwc.shape).transpose(0, 3, 1, 2), p.k)), "image layout")
    y = naive(p.x, p.k)
    other = y if layout == "NHWC" else y.transpose(0, 2, 3, 1)
    diagnosis = p.raw(other)
    is_named(diagnosis, "result layout")
    assert np.array_equal(
        eval(diagnosis.change.split(": ")[1].removesuffix(" for a batch"), {"Y": other}), p.laid_out(y)
    )
    mine = p.laid_out(y)
    is_named(p.raw(other.reshape(mine.shape)), "result layout")
    is_named(p.raw(np.expand_dims(p.laid_out(naive(p.x[:1], p.k)), 0)[0][0]), "unexplained")


def test_batch_axis() -> None:
    p = Plant(0, "NCHW")
    y = naive(p.x[:1], p.k)
    is_named(diagnose(y[0], p.x[:1], p.k), "batch axis")
    is_named(diagnose(y, p.x[0], p.k), "batch axis")
    is_named(diagnose(y[:, :1, :, :], p.x[:1, 0], p.k[:1, :1][0, 0]), "unexplained")


@planted
@several
def test_padding(seed, layout) -> None:
    pads = ((1, 2), (0, 1))
    p = Plant(seed, layout, padding=pads)
    diagnosis = p.diagnose(naive(p.padded(((2, 1), (1, 0))), p.k))
    is_named(diagnosis, "padding reversed", also=["stride offset"])
    assert "2 above, 1 below, 1 left and 0 right instead of 1 above, 2 below, 0 left" in diagnosis.explanation
    assert f"padding={pads}" in diagnosis.change
    is_named(p.diagnose(naive(p.x, p.k)), "other padding")
    is_named(p.diagnose(naive(p.padded(((2, 4), (0, 2))), p.k)), "other padding")
    is_named(p.diagnose(naive(p.padded(((1, 2), (1, 0))), p.k)), "padding reversed", also=["stride offset"])


@planted
@several
def test_same_against_symmetric(seed, layout) -> None:
    """PyTorch's padding=3 and stride=2 are compared with TensorFlow's SAME, on an even size."""
    p = Plant(seed, layout, x=(1, 3, 12, 14), k=(2, 3, 7, 7), stride=2, padding="same")
    symmetric = naive(p.padded(((3, 3), (3, 3))), p.k, stride=(2, 2))
    reversed_too = ["padding reversed", "other padding", "stride offset"]  # The last row and column are in no window.
    is_named(p.diagnose(symmetric), "symmetric padding", also=reversed_too)
    same = naive(p.padded(((2, 3), (2, 3))), p.k, stride=(2, 2))
    assert p.diagnose(same) is None
    p.geometry["padding"] = 3
    diagnosis = p.diagnose(same)
    is_named(diagnosis, "other padding", also=["stride offset"])
    assert "TensorFlow" in diagnosis.explanation
    assert "padding=((3, 3), (3, 3))" in diagnosis.change
    p = Plant(seed, layout, k=(2, 3, 4, 4), padding="same")
    lower = naive(p.padded(((2, 1), (2, 1))), p.k)
    is_named(p.diagnose(lower), "padding reversed", also=["other padding", "stride offset"])
    is_named(p.diagnose(naive(p.padded(((1, 1), (1, 1))), p.k)), "symmetric padding")
    is_named(p.diagnose(naive(p.x, p.k)), "other padding")


@planted
@several
@pytest.mark.parametrize("ours", ["zeros", "reflect", "symmetric", "replicate", "circular"])
def test_padding_mode(seed, layout, ours) -> None:
    p = Plant(seed, layout, padding=((1, 2), (2, 0)), padding_mode=ours)
    theirs = {m: m for m in ("reflect", "symmetric")} | {"zeros": "constant", "replicate": "edge", "circular": "wrap"}
    for name, mode in theirs.items():
        y = naive(p.padded(((1, 2), (2, 0)), mode=mode), p.k)
        diagnosis = p.diagnose(y)
        if name == ours:
            assert diagnosis is None
        else:
            is_named(diagnosis, "padding mode")
            assert repr(name) in diagnosis.explanation


@pytest.mark.parametrize("size", [(5, 5), (4, 2), (5, 4)])
@pytest.mark.parametrize("function", [scipy.ndimage.correlate, scipy.ndimage.convolve])
@pytest.mark.parametrize("mode", ["reflect", "mirror", "nearest", "wrap", "constant"])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_scipys_results(size, function, mode, padding) -> None:
    """What `scipy.ndimage` makes is explained, and the change makes convlab's result the same."""
    rng = np.random.default_rng(0)
    X, K = rng.integers(-9, 9, (9, 10)).astype(float), rng.integers(-5, 5, size).astype(float)
    theirs = function(X, K, mode=mode)
    diagnosis = diagnose(theirs, X, K, padding=padding)
    name = "conv2d" if function is scipy.ndimage.convolve else "corr2d"
    assert diagnosis is None or diagnosis.suspect != "unexplained"
    assert np.array_equal(getattr(convlab, name)(X, K, padding="same", origin=0, padding_mode=_OURS[mode]), theirs)
    if diagnosis is not None and diagnosis.suspect.startswith("SciPy"):
        assert f"{name}(..., padding='same', origin=0, padding_mode={_OURS[mode]!r})" in diagnosis.change


_OURS = {"reflect": "symmetric", "mirror": "reflect", "nearest": "replicate", "wrap": "circular", "constant": "zeros"}


@planted
@several
def test_strides_and_dilations(seed, layout) -> None:
    p = Plant(seed, layout, x=(2, 3, 11, 12), stride=(3, 2), padding=((3, 1), (2, 1)))
    padded = p.padded(((3, 1), (2, 1)))
    y = naive(padded, p.k)
    diagnosis = p.diagnose(y[:, :, 1::3, 1::2])
    is_named(diagnosis, "stride offset")
    assert "row 1, column 1" in diagnosis.explanation
    is_named(p.diagnose(y), "stride ignored")
    p = Plant(seed, layout, stride=(2, 2), dilation=(2, 3), padding="same")
    is_named(p.diagnose(naive(p.padded(((0, 1), (0, 1))), p.k, stride=(2, 2))), "dilation ignored")


@planted
@several
def test_channels(seed, layout) -> None:
    p = Plant(seed, layout, x=(2, 6, 7, 7), k=(6, 3, 3, 2), groups=2)
    y = naive(p.x, p.k, groups=2)
    shuffled = y[:, [0, 3, 1, 4, 2, 5]]
    is_named(p.diagnose(shuffled), "channel groups")
    is_named(p.diagnose(y[:, [0, 2, 4, 1, 3, 5]]), "channel groups")
    is_named(p.diagnose(naive(p.x[:, [0, 2, 4, 1, 3, 5]], p.k, groups=2)), "channel groups")
    is_named(p.diagnose(naive(p.x[:, [3, 4, 5, 0, 1, 2]], p.k, groups=2)), "channel groups")
    is_named(p.diagnose(naive(p.x, p.k[[0, 3, 1, 4, 2, 5]], groups=2)), "channel groups")
    is_named(p.diagnose(naive(p.x[:, ::-1], p.k, groups=2)), "input channels reversed")
    is_named(p.diagnose(y[:, ::-1]), "output channels reversed")


@planted
@several
def test_bias(seed, layout) -> None:
    p = Plant(seed, layout)
    y, b = naive(p.x, p.k), p.bias.astype(float)[:, None, None]
    assert p.diagnose(y + b, p.bias) is None
    for wrong, name in ((y, "missing"), (y + 2 * b, "doubled"), (y - b, "negated"), (y + b[::-1], "reversed")):
        is_named(p.diagnose(wrong, p.bias), f"bias {name}")
    is_named(p.diagnose(y / 18 + b, p.bias), "averaged")


@planted
@several
def test_groups_in_any_order(seed, layout) -> None:
    p = Plant(seed, layout, x=(2, 6, 8, 9), k=(6, 2, 3, 2), groups=3)
    order = [[1, 0, 2], [0, 2, 1], [1, 2, 0]][seed]
    inputs, kernels = (
        np.concatenate([np.split(a, 3, axis)[i] for i in order], axis) for a, axis in ((p.x, 1), (p.k, 0))
    )
    y = naive(p.x, p.k, groups=3)
    outputs = np.concatenate([np.split(y, 3, 1)[i] for i in order], 1)
    for wrong in (naive(inputs, p.k, groups=3), naive(p.x, kernels, groups=3), outputs):
        assert p.diagnose(wrong).suspect == "channel groups"


@pytest.mark.parametrize("stored", ["uint8", "int16"])
def test_results_in_integers(stored) -> None:
    """What is rounded or cut off, and clipped or wraps round, is no loss of precision."""
    rng = np.random.default_rng(0)
    X, K = rng.integers(0, 256, (20, 21)), rng.standard_normal((3, 3)) * (1 if stored == "uint8" else 300)
    y = scipy.signal.correlate2d(X.astype(float), K, "valid")
    limits = np.iinfo(stored)
    for cut, how in ((np.rint, "rounded to the nearest"), (np.trunc, "cut off behind the point")):
        for end, result in (
            ("clipped to", np.clip(cut(y), limits.min, limits.max).astype(stored)),
            ("wraps round in", cut(y).astype(np.int64).astype(stored)),
        ):
            diagnosis = diagnose(result, X, K)
            is_named(diagnosis, "integer result")
            assert f"{how} and {end} {stored}" in diagnosis.explanation


def test_origins_and_full_convolutions() -> None:
    rng = np.random.default_rng(0)
    X, K = rng.integers(-9, 9, (9, 10)).astype(float), rng.integers(-5, 5, (4, 3)).astype(float)
    for theirs, change in (
        (scipy.ndimage.correlate(X, K, origin=(-1, 1)), "corr2d(..., padding='same', origin=(-1, 1), padding_mode="),
        (scipy.ndimage.convolve(X, K, mode="mirror", origin=(1, 0)), "conv2d(..., padding='same', origin="),
        (scipy.signal.convolve2d(X, K), "conv2d(..., padding='full', padding_mode='zeros')"),
        (scipy.signal.convolve2d(X, K, boundary="symm"), "conv2d(..., padding='full', padding_mode='symmetric')"),
    ):
        diagnosis = diagnose(theirs, X, K)
        is_named(diagnosis, "SciPy's or OpenCV's place and border")
        assert change in diagnosis.change
