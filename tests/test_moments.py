"""The moments against sums over windows written out, and a killed run of `learn_kernel` against a whole one."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import convlab
from convlab import errors
from convlab.geometry.geometry import Geometry
from convlab.learning import window_sums as strips
from convlab.learning.checkpoint import Checkpoint, digest
from convlab.learning.exact_sums import ExactSum
from convlab.learning.moments import ExactMoments
from convlab.learning.window_sums import PreparedImages, residuals, window_sums
from convlab.truth.bounds import gamma


def by_hand(tile):
    """For each output: the sums of w v v', w v y and w y y over windows v, one after another, and of magnitudes."""
    x, y, weights, geometry, use_bias = tile
    (sh, sw), (eh, ew), (dh, dw) = geometry.stride, geometry.extent, geometry.dilation
    per_group, sums = x.shape[1] // geometry.groups, []
    for output in range(y.shape[1]):
        first = output // (y.shape[1] // geometry.groups) * per_group
        rows = []
        for n, i, j in np.ndindex(len(y), *y.shape[2:]):
            window = x[n, first : first + per_group, i * sh : i * sh + eh : dh, j * sw : j * sw + ew : dw].ravel()
            weight = 1.0 if weights is None else weights[n, min(output, weights.shape[1] - 1), i, j]
            rows.append((np.r_[window, 1.0] if use_bias else window, y[n, output, i, j], weight))
        v, values, weight = (np.array(each, float) for each in zip(*rows, strict=True))
        sums.append(((v.T * weight) @ v, (v.T * weight) @ values, (weight * values**2).sum()))
    return sums


@st.composite
def tiles(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    groups, per_group, each = (draw(st.integers(1, 2)) for _ in range(3))
    kernel = draw(st.sampled_from([(1, 1), (2, 3), (3, 4), (1, 13), (13, 1), (4, 5)]))
    steps = draw(st.sampled_from([((1, 1), (1, 1)), ((2, 1), (1, 1)), ((1, 2), (1, 2)), ((1, 1), (2, 1))]))
    geometry = Geometry(kernel, steps[0], dilation=steps[1], groups=groups)
    rows, columns = draw(st.integers(1, 17)), draw(st.integers(1, 29))
    size = [(n - 1) * s + e for n, s, e in zip((rows, columns), geometry.stride, geometry.extent, strict=True)]
    x = rng.standard_normal((2, groups * per_group, *size)).astype(draw(st.sampled_from(["float32", "float64"])))
    y = rng.standard_normal((2, groups * each, rows, columns)).astype(x.dtype)
    weights = draw(st.sampled_from([None, 1, groups * each]))
    weights = None if weights is None else rng.random((2, weights, rows, columns))
    return PreparedImages(x, y, weights, geometry, draw(st.booleans()))


@pytest.mark.parametrize("kind", ["moments", "reproducible", "factor"])
@given(tile=tiles())
def test_measured_as_by_hand(kind, tile) -> None:
    """Within the rounding of so many terms, relative to the greatest sum of squares (which an FFT's error follows)."""
    statistics, truth = window_sums(tile, kind), by_hand(tile)
    if kind == "reproducible":
        statistics = ExactMoments.unpack(statistics.pack()).rounded()
    per_block = tile.y.shape[1] // len(statistics.gram if kind != "factor" else statistics.triangle)
    if kind == "factor":  # R'R is the Gram matrix of [V Y]
        square = statistics.triangle.transpose(0, 2, 1) @ statistics.triangle
        n = square.shape[2] - statistics.outputs
        gram, cross = square[:, :n, :n], square[:, :n, n:]
        energy = sum(np.trace(each[n:, n:]) for each in square)
    else:
        gram, cross, energy = statistics.gram, statistics.cross, statistics.energy
    scale = max(max(np.abs(a).max(), np.abs(b).max(), c) for a, b, c in truth)
    bound = gamma(tile.y.size + 60, "float64") * scale * 8
    for output, (a, b, _) in enumerate(truth):
        block, own = divmod(output, per_block)
        assert np.abs(gram[block] - a).max() <= bound
        assert np.abs(cross[block, :, own] - b).max() <= bound
    assert abs(energy - sum(c for _, _, c in truth)) <= bound * len(truth)


@given(tile=tiles(), per_output=st.booleans())
def test_what_a_kernel_leaves_over(tile, per_output) -> None:
    """The slope is b - A K and the loss c - 2 b K + K A K, whether outputs share a block or not."""
    truth = by_hand(tile)
    outputs, n = tile.y.shape[1], len(truth[0][1])
    own_weights = tile.weights is not None and tile.weights.shape[1] > 1
    blocks = outputs if own_weights or per_output else tile.geometry.groups
    kernel = np.random.default_rng(1).standard_normal((blocks, n, outputs // blocks))
    slope, loss = residuals(tile, kernel)
    scale = max(max(np.abs(a).max(), np.abs(b).max(), c) for a, b, c in truth) * (1 + np.abs(kernel).sum()) ** 2
    expected = 0.0
    for output, (a, b, c) in enumerate(truth):
        block, own = divmod(output, outputs // blocks)
        k = kernel[block, :, own]
        assert np.abs(slope[block, :, own] - (b - a @ k)).max() <= gamma(tile.y.size + 60, "float64") * scale
        expected += c - 2 * b @ k + k @ a @ k
    assert abs(loss - expected) <= gamma(tile.y.size + 60, "float64") * scale * outputs


@pytest.mark.parametrize("kind", ["moments", "reproducible", "factor"])
def test_small_images_are_put_together(kind, monkeypatch) -> None:
    """Strips of several images, the last of them smaller, add up to the sums of integers."""
    monkeypatch.setattr(strips, "_BLOCK", 1000)
    monkeypatch.setattr(strips, "_MOST", 1000)
    rng = np.random.default_rng(0)
    x, y = (rng.integers(-3, 4, (7, 2, n, n)).astype("float32") for n in (5, 4))
    tile = PreparedImages(x, y, None, Geometry((2, 2)))
    v = np.lib.stride_tricks.sliding_window_view(x, (2, 2), (2, 3)).transpose(0, 2, 3, 1, 4, 5).reshape(-1, 8)
    rows = y.transpose(0, 2, 3, 1).reshape(-1, 2)
    statistics = window_sums(tile, kind)
    if kind == "factor":
        square = statistics.triangle[0].T @ statistics.triangle[0]
        gram, cross = square[:8, :8], square[:8, 8:]
    else:
        statistics = statistics.rounded() if kind == "reproducible" else statistics
        gram, cross = statistics.gram[0], statistics.cross[0]
    np.testing.assert_allclose(gram, v.T @ v, atol=1e-10)
    np.testing.assert_allclose(cross, v.T @ rows, atol=1e-10)
    assert statistics.pixels == y.size


@pytest.mark.parametrize("blur", [0.8, 1.2, 2.0, 2.6])
@pytest.mark.parametrize("ridge", [0.0, 1e-6])
def test_smooth_images_of_many_channels(blur, ridge) -> None:
    """From sums alone the kernel would lose twice the digits; it is held to NumPy's, which factorises the windows."""
    import scipy.ndimage

    rng = np.random.default_rng(0)
    x = scipy.ndimage.gaussian_filter(rng.standard_normal((2, 3, 40, 40)), (0, 0, blur, blur))
    y = convlab.corr2d(x, rng.standard_normal((2, 3, 4, 4)), bias=[0.5, 1.0])
    y = y + 1e-3 * rng.standard_normal(y.shape)
    v = np.lib.stride_tricks.sliding_window_view(x, (4, 4), (2, 3)).transpose(0, 2, 3, 1, 4, 5).reshape(-1, 48)
    v = np.concatenate([v, np.ones((len(v), 1))], 1)
    penalty = np.diag([ridge**0.5] * 48 + [0.0])
    rows = np.concatenate([y.transpose(0, 2, 3, 1).reshape(-1, 2), np.zeros((49, 2))])
    expected, _, _, values = np.linalg.lstsq(np.concatenate([v, penalty]), rows, rcond=None)
    learned = convlab.learn_kernel(x, y, 4, out_channels=2, use_bias=True, method="lstsq", ridge=ridge)
    condition = values[0] / values[-1]
    assert learned.condition == pytest.approx(condition, rel=1e-4)
    found = np.concatenate([learned.kernel.reshape(2, 48), learned.bias[:, None]], 1)
    assert np.abs(found - expected.T).max() <= 1e-14 * condition * np.abs(expected).max()
    misfit = rows[: len(v)] - v @ expected
    assert learned.losses[0] == pytest.approx((misfit**2).sum(), rel=1e-9, abs=1e-13 * (y**2).sum())


def test_images_of_many_strips() -> None:
    """FFTs of several strips, and products of several blocks, add up to the sums of integers."""
    rng = np.random.default_rng(0)
    x = rng.integers(-3, 4, (1, 1, 300, 5000)).astype("float32")
    for kernel in ((4, 4), (2, 2)):
        geometry = Geometry(kernel)
        y = rng.integers(-3, 4, (1, 1, *geometry.output_size((300, 5000)))).astype("float32")
        moments = window_sums(PreparedImages(x, y, None, geometry))
        v = np.lib.stride_tricks.sliding_window_view(x[0, 0], kernel).reshape(-1, kernel[0] * kernel[1]).astype(int)
        np.testing.assert_allclose(moments.gram[0], v.T @ v, atol=1e-6 if kernel == (4, 4) else 0)
        np.testing.assert_allclose(moments.cross[0, :, 0], v.T @ y.ravel().astype(int), atol=1e-6)


@pytest.mark.parametrize("decades", [0, 6, 150])
def test_exact_sums_are_rounded_once(decades) -> None:
    """Against rational arithmetic; in another order, and in parts."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 1, 3, 9000)) * 10.0 ** rng.integers(-decades, decades + 1, (2, 1, 3, 9000))
    rounded = ExactSum.of_products(a, b).rounded()
    for i, j in np.ndindex(3, 3):
        truth = sum(Fraction(u) * Fraction(v) for u, v in zip(a[0, i].tolist(), b[0, j].tolist(), strict=True))
        assert rounded[0, i, j] == float(truth)
    order = rng.permutation(9000)
    a, b = a[..., order], b[..., order]
    parts = [ExactSum.of_products(a[..., part], b[..., part]) for part in (slice(0, 777), slice(777, 9000))]
    assert (parts[0] + parts[1]).rounded().tobytes() == rounded.tobytes()
    assert (a @ b.transpose(0, 2, 1)).tobytes() != rounded.tobytes()


@pytest.mark.parametrize("value", [5e-324, -1e-310, 1e308, -3.0, 0.0])
def test_exact_sums_hold_every_number(value) -> None:
    one = np.ones((1, 1, 1))
    assert ExactSum.of_products(value * one, one).rounded().tolist() == [[[value]]]
    assert np.isinf(ExactSum.of_products(1e300 * one, 1e300 * one).rounded()).all()
    with pytest.raises(errors.DataError):
        ExactSum.of_products(np.inf * one, one)


PROGRAM = """
import sys, time
import numpy as np, convlab
path, out, method, backend = sys.argv[1:]
rng = np.random.default_rng(0)
pairs = [(rng.standard_normal((64, 65)).astype("float32"), rng.standard_normal((60, 61)).astype("float32"))
         for _ in range(20)]
def stream():
    for pair in pairs:
        time.sleep(0.01)
        yield pair
learned = convlab.learn_kernel(stream(), kernel_size=5, method=method, lr=1e-6, num_steps=400, seed=0, backend=backend,
                             checkpoint=path or None, checkpoint_every=1,
                             callback=lambda *_: time.sleep(0.001))
np.savez(out, losses=learned.losses, kernel=convlab.backend(backend).to_numpy(learned.kernel))
"""


@pytest.mark.parametrize("method", ["gram", "autograd"])
def test_killed_at_random_moments_and_resumed(method, tmp_path, backends) -> None:
    """SIGKILL, not an exception: nothing can be tidied up."""
    backend = backends[:2][-1] if method == "autograd" else "numpy"  # one framework: each start imports it anew
    moments = random.Random(0)

    def start(path, out):
        environment = {**os.environ, "CONVLAB_NUM_THREADS": "1"}
        return subprocess.Popen([sys.executable, "-c", PROGRAM, path, out, method, backend], env=environment)

    assert start("", str(tmp_path / "whole.npz")).wait(300) == 0
    path = tmp_path / "run.safetensors"
    for _ in range(3):
        process = start(str(path), str(tmp_path / "resumed.npz"))
        before = path.stat().st_mtime_ns if path.exists() else 0
        while process.poll() is None and (not path.exists() or path.stat().st_mtime_ns == before):
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait(300)
    assert start(str(path), str(tmp_path / "resumed.npz")).wait(300) == 0
    with np.load(tmp_path / "whole.npz") as whole, np.load(tmp_path / "resumed.npz") as resumed:
        assert len(whole["losses"]) == 400
        assert resumed["losses"].tobytes() == whole["losses"].tobytes()
        assert resumed["kernel"].tobytes() == whole["kernel"].tobytes()


def test_checkpoints_of_other_versions_are_refused(tmp_path) -> None:
    path = tmp_path / "run"
    Checkpoint(path, 1, {"lr": 1}).save({"kernel": np.zeros(2)}, [1.0])
    data = path.read_bytes()
    path.write_bytes(data.replace(b'\\"version\\": 1', b'\\"version\\": 7'))
    with pytest.raises(errors.CheckpointError, match="has version 7, expected 1"):
        Checkpoint(path, 1, {"lr": 1})
    path.write_bytes(data[:-4])
    with pytest.raises(errors.CheckpointError, match="isn't a checkpoint"):
        Checkpoint(path, 1, {"lr": 1})


def test_a_digest_tells_images_apart() -> None:
    one = np.arange(6.0)
    digests = {digest("", one), digest("", one.reshape(2, 3)), digest("", one.astype("float32")), digest("x", one)}
    assert len(digests) == 4
    assert digest("", one.reshape(2, 3).T) == digest("", one.reshape(2, 3).T.copy())
