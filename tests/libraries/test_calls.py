"""docs/how-to's tables of SciPy's, OpenCV's and scikit-image's calls: each row on every backend.

Results that are integers are equal. Others lie within the rounding bound, which a stand-in for the backend computes
from the same call. Gradients are compared with the calls' own responses to single pixels, eager and compiled.
"""

from __future__ import annotations

import functools
import importlib
from pathlib import Path

import calls
import numpy as np
import pytest

from convlab.errors import LayoutWarning
from convlab.testing import error_bound
from convlab.truth.bounds import gamma

ROWS = {
    f"{library}: {name}": (library, *row)
    for library in ("SCIPY", "OPENCV", "SKIMAGE")
    for name, row in getattr(calls, library).items()
}
RESTORED = ("SKIMAGE: wiener", "SKIMAGE: richardson_lucy")
LINEAR = [name for name in ROWS if name not in RESTORED]
SHAPE = (13, 15)


class Bounds:
    """A stand-in for a backend: its `corr2d` is the bound of a float32 result, the kernel's rounding counted."""

    def corr2d(self, x, K, **options):
        return 2 * error_bound(x, K, dtype="float32", **options)

    def conv2d(self, x, K, origin=0, **options):
        turned = tuple(
            n - 1 - 2 * (n // 2) - each for n, each in zip(K.shape, np.broadcast_to(origin, 2).tolist(), strict=True)
        )
        return self.corr2d(x, np.flip(K), origin=turned, **options)


def image() -> np.ndarray:
    return np.random.default_rng(0).integers(-20, 20, SHAPE).astype(float)


@pytest.mark.parametrize("name", LINEAR)
def test_results(lab, name) -> None:
    library, theirs, ours = ROWS[name]
    expected = theirs(image())
    y = lab.to_numpy(ours(lab, lab.asarray(image(), "float32")))
    bound = ours(Bounds(), image())
    if (expected == np.rint(expected)).all():
        np.testing.assert_array_equal(y, expected)
    # OpenCV computes in float32, too.
    assert (np.abs(y - expected) <= (2 if library == "OPENCV" else 1) * bound).all()


@functools.cache
def columns(name: str) -> np.ndarray:
    """The response to each pixel, without what the border alone gives: (pixels, *result)."""
    _, theirs, _ = ROWS[name]
    border = theirs(np.zeros(SHAPE))
    return np.stack([theirs(pixel.reshape(SHAPE)) - border for pixel in np.eye(SHAPE[0] * SHAPE[1])]).astype(float)


def check_gradient(name: str, slope: np.ndarray, seed: np.ndarray) -> None:
    expected = np.tensordot(columns(name), seed, 2).reshape(SHAPE)
    magnitude = np.tensordot(np.abs(columns(name)), np.abs(seed), 2).reshape(SHAPE)
    terms = int((columns(name) != 0).sum((1, 2)).max())
    # The kernel is rounded to float32 once more, and OpenCV's own response is.
    assert (np.abs(slope - expected) <= 2 * gamma(terms + 3, "float32") * magnitude + 1e-30).all(), name


@pytest.mark.parametrize("name", LINEAR)
def test_gradients(lab, name) -> None:
    if not lab.adapter.autograd:
        return
    seed = np.random.default_rng(1).integers(-4, 5, SHAPE).astype("float32")
    ours = ROWS[name][2]
    (slope,) = lab.ops.vjp(lambda x: ours(lab, x), [lab.asarray(image(), "float32")], lab.asarray(seed, "float32"))
    check_gradient(name, lab.to_numpy(slope), seed)


def test_compiled(lab) -> None:
    """Many rows in one function under the framework's compiler; gluon's graphs have no constants for the kernels."""
    compilers = {"torch": "compile", "jax": "jit", "tensorflow": "function"}
    if lab.name not in compilers:
        return
    compiler = getattr(importlib.import_module(lab.name), compilers[lab.name])
    rows = [*LINEAR][::3]  # which take a compiler a minute, all of them
    compiled = compiler(lambda x: lab.ops.stack([ROWS[name][2](lab, x) for name in rows], 0))
    x = lab.asarray(image(), "float32")
    seeds = np.random.default_rng(2).integers(-4, 5, (len(rows), *SHAPE)).astype("float32")
    for name, y in zip(rows, lab.to_numpy(compiled(x)), strict=True):
        # OpenCV computes in float32, too.
        times = 2 if name.startswith("OPENCV") else 1
        assert (np.abs(y - ROWS[name][1](image())) <= times * ROWS[name][2](Bounds(), image())).all(), name
    # Each gradient runs all rows; `test_gradients` has every one, without the compiler.
    for turn, name in [*enumerate(rows)][::2]:
        seed = np.where(np.arange(len(rows))[:, None, None] == turn, seeds, 0).astype("float32")
        (slope,) = lab.ops.vjp(compiled, [x], lab.asarray(seed, "float32"))
        check_gradient(name, lab.to_numpy(slope), seeds[turn])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_wiener(lab, dtype) -> None:
    """Within the norm-wise bound of three Fourier transforms (see `convlab.truth.bounds`)."""
    _, theirs, ours = ROWS["SKIMAGE: wiener"]
    y, expected = lab.to_numpy(ours(lab, lab.asarray(image(), dtype))), theirs(image())
    kernel = calls.K / calls.K.sum()
    transfer = np.fft.rfft2(kernel, SHAPE)
    rough = np.fft.rfft2([[0, 1, 0], [1, -4, 1], [0, 1, 0]], SHAPE)
    gain = float((np.abs(transfer) / (np.abs(transfer) ** 2 + 0.1 * np.abs(rough) ** 2)).max())
    # MXNet's transforms are products with matrices: as many terms as rows and columns.
    bound = (24 * np.log2(4 * image().size) + 2 * sum(SHAPE)) * gamma(1, dtype) * gain * np.linalg.norm(image())
    assert np.abs(y - expected).max() <= bound


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_richardson_lucy(lab, dtype) -> None:
    """All numbers are positive: a step at most doubles the relative error and adds that of two sums."""
    _, theirs, ours = ROWS["SKIMAGE: richardson_lucy"]
    positive = np.abs(image()) + 1
    y, expected = lab.to_numpy(ours(lab, lab.asarray(positive, dtype))), theirs(positive)
    bound = 2 * (2**5 - 1) * (gamma(84, dtype) + gamma(84, "float64"))
    assert (np.abs(y - expected) <= bound * expected).all()


def test_restoration_undoes_a_learned_blur(lab) -> None:
    """A blur is learned from a pair of images, and another image blurred by it is restored."""
    rng = np.random.default_rng(0)
    # Its transform is nowhere below 0.2, so that an error grows by at most five times.
    blur = np.array([[0.0, 0.1, 0.1], [0.1, 0.6, 0.1], [0.0, 0.0, 0.0]])
    known, other = rng.random((20, 20)), rng.random((16, 16))
    options = {"padding": "same", "origin": 0, "padding_mode": "circular"}
    x, y = (lab.asarray(each, "float64") for each in (known, blurred(known, blur)))
    kernel = lab.learn_kernel(x, y, 3, method="lstsq", **options).kernel
    restored = lab.to_numpy(calls.filters.wiener(lab.asarray(blurred(other, blur), "float64"), kernel, 1e-12))
    np.testing.assert_allclose(restored, other, atol=1e-9)


def blurred(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    return calls.nd.correlate(x, kernel, mode="wrap")


def test_the_tables_of_the_docs_are_these_rows() -> None:
    """Each row of the documentation names calls that are tested here."""
    for library, page in (("SCIPY", "from-scipy"), ("OPENCV", "from-opencv"), ("SKIMAGE", "from-scikit-image")):
        text = (Path(__file__).parents[2] / "docs" / "how-to" / f"{page}.md").read_text()
        table = [line for line in text.splitlines() if line.startswith("| `") and "(X" in line]
        rows = dict.fromkeys(name.partition(",")[0] for name in getattr(calls, library))
        assert all(any(f".{row}(" in line for line in table) for row in rows)
        assert all(any(f".{row}(" in line for row in rows) for line in table)


@pytest.mark.parametrize("angle", [0, 30, 90, 200])
@pytest.mark.parametrize(("aspect", "phase"), [(1.0, 0.0), (0.5, 90.0), (2.0, 30.0)])
def test_gabor_is_opencvs(angle, aspect, phase) -> None:
    """OpenCV counts angles clockwise and turns the kernel by half a turn."""
    kernel = calls.filters.gabor(5.0, angle, sigma=2.0, aspect=aspect, phase=phase)
    theta, psi = -np.deg2rad(angle), -np.deg2rad(phase)
    theirs = calls.cv2.getGaborKernel(kernel.shape, 2.0, theta, 5.0, aspect, psi, calls.cv2.CV_64F)
    np.testing.assert_allclose(kernel, theirs, atol=1e-12)


def test_gradients_of_wiener(lab) -> None:
    if not lab.adapter.autograd:
        return
    seed = np.random.default_rng(1).integers(-4, 5, SHAPE).astype("float32")
    ours = ROWS["SKIMAGE: wiener"][2]
    (slope,) = lab.ops.vjp(lambda x: ours(lab, x), [lab.asarray(image(), "float32")], lab.asarray(seed, "float32"))
    expected = np.tensordot(columns("SKIMAGE: wiener"), seed, 2).reshape(SHAPE)
    largest = np.linalg.norm(columns("SKIMAGE: wiener").reshape(len(columns("SKIMAGE: wiener")), -1), 2)
    bound = (24 * np.log2(4 * seed.size) + 2 * sum(SHAPE)) * gamma(1, "float32") * largest * np.linalg.norm(seed)
    assert np.abs(lab.to_numpy(slope) - expected).max() <= bound


def test_gradients_of_richardson_lucy(lab) -> None:
    """Against scikit-image's difference between two images; its error is of the second order in 1e-5."""
    if not lab.adapter.autograd:
        return
    _, theirs, ours = ROWS["SKIMAGE: richardson_lucy"]
    rng = np.random.default_rng(1)
    x, way, seed = np.abs(image()) + 1, rng.standard_normal(SHAPE), rng.standard_normal(SHAPE)
    with lab.ops.scope("float64"):
        tensors = [lab.asarray(x, "float64")], lab.asarray(seed, "float64")
        (slope,) = lab.ops.vjp(lambda image: ours(lab, image), *tensors)
    difference = (theirs(x + 1e-5 * way) - theirs(x - 1e-5 * way)) / 2e-5
    assert (lab.to_numpy(slope) * way).sum() == pytest.approx((seed * difference).sum(), rel=1e-7)


@pytest.mark.parametrize("restore", [calls.filters.wiener, calls.filters.richardson_lucy])
def test_restoration_warns_of_channels(restore) -> None:
    with pytest.warns(LayoutWarning, match=r"\(16, 16, 3\), which looks like"):
        restore(np.ones((16, 16, 3)), np.full((1, 2), 0.5), 1)
    last = restore(np.ones((16, 16, 3)), np.full((2, 2), 0.25), 1, data_format="NHWC")
    first = restore(np.ones((16, 16)), np.full((2, 2), 0.25), 1)
    np.testing.assert_array_equal(last[..., 1], first)


def test_sizes_of_gaussians_are_opencvs() -> None:
    x = image().astype("float32")
    y = calls.nd.correlate(x.astype(float), calls.filters.gaussian_blur(1.3, size=(7, 3)), mode="mirror")
    theirs = calls.cv2.GaussianBlur(x, (3, 7), 1.3)
    bound = 4 * error_bound(x, calls.filters.gaussian_blur(1.3, size=(7, 3)), dtype="float32", **calls.OPENCV_BORDER)
    assert (np.abs(y - theirs) <= bound).all()
