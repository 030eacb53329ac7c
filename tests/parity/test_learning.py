"""`learn_kernel` on every backend against gradient descent and least squares written out in float64."""

from __future__ import annotations

import json
import math
import re
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import convlab
from convlab import errors
from convlab.testing import oracle_gradients
from convlab.truth.bounds import descent
from convlab.truth.oracle import oracle


def reference(pairs, kernel, bias, steps, lr, **options):
    """Plain gradient descent by the definition: losses, kernel and bias."""
    losses = []
    for _ in range(steps):
        loss, slope, shift = 0.0, 0.0, 0.0
        for x, y, *weights in pairs:
            weight = np.broadcast_to(weights[0] if weights else 1.0, y.shape)
            error = oracle(x, kernel, bias=bias, **options) - y
            loss += (weight * error**2).sum()
            gradients = oracle_gradients(x, kernel, 2 * weight * error, **options)
            slope, shift = slope + gradients.K, shift + gradients.bias
        losses.append(loss)
        kernel = kernel - lr * slope
        bias = None if bias is None else bias - lr * shift
    return losses, kernel, bias


@st.composite
def problems(draw):
    """Small images of integers, a kernel to start from, and a geometry."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    h, w = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    channels = draw(st.booleans())
    groups = draw(st.sampled_from([1, 2])) if channels else 1
    per_group, outputs = (draw(st.integers(1, 2)), draw(st.integers(1, 2)) * groups) if channels else (1, 1)
    last = draw(st.booleans())
    options = {
        "stride": (draw(st.integers(1, 2)), draw(st.integers(1, 2))),
        "dilation": (draw(st.integers(1, 2)), 1),
        "padding": draw(st.sampled_from([0, 1, "same", ((0, 2), (1, 0))])),
        "padding_mode": draw(st.sampled_from(["zeros", "reflect", "symmetric", "circular"])),
        "groups": groups,
        "data_format": "NHWC" if last else "NCHW",
    }
    if options["padding_mode"] == "zeros":
        options["padding_value"] = draw(st.sampled_from([0, -1, 1]))
    if options["padding"] == "same":
        options["origin"] = draw(st.sampled_from([None, 0]))
    kernel = rng.integers(-2, 3, (outputs, per_group, h, w)) if channels else rng.integers(-2, 3, (h, w))
    kernel = kernel.transpose(2, 3, 1, 0) if last and channels else kernel
    pairs = []
    for _ in range(draw(st.integers(1, 2))):
        size = draw(st.integers(6, 8)), draw(st.integers(5, 8))
        x = rng.integers(-2, 3, (2, *size, per_group * groups) if last else (2, per_group * groups, *size))
        x = x if channels or last else x[:, 0]
        y = rng.integers(-3, 4, oracle(x, kernel, **options).shape)
        weights = rng.integers(0, 3, y.shape if draw(st.booleans()) else (*y.shape[:-1], 1))
        floats = tuple(each.astype(float) for each in (x, y, weights))
        pairs.append(floats if draw(st.booleans()) else floats[:2])
    use_bias = draw(st.booleans())
    return pairs, kernel.astype(float), np.zeros(outputs) if use_bias else None, options


@pytest.mark.parametrize("method", ["autograd", "gram", "autograd reproducibly", "gram reproducibly"])
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(problem=problems())
def test_two_steps_from_integers_are_exact(lab, method, problem) -> None:
    """In float64 with a rate of 2**-10 every sum is exact in whatever order."""
    pairs, kernel, bias, options = problem
    if any(len(pair) == 3 and not pair[2].any() for pair in pairs):
        return
    losses, end, shift = reference(pairs, kernel.astype(float), bias, 2, 2.0**-10, **options)
    given = [tuple(lab.asarray(each, "float64") for each in pair) for pair in pairs]
    method, _, reproducible = method.partition(" ")
    learned = lab.learn_kernel(
        given,
        kernel_size=kernel.shape[:2] if kernel.ndim == 2 or options["data_format"] == "NHWC" else kernel.shape[2:],
        out_channels=None if kernel.ndim == 2 else kernel.shape[3 if options["data_format"] == "NHWC" else 0],
        use_bias=bias is not None,
        init=kernel.astype(float),
        num_steps=2,
        lr=2.0**-10,
        method=method,
        reproducible=bool(reproducible),
        **options,
    )
    assert learned.losses == losses
    np.testing.assert_array_equal(lab.to_numpy(learned.kernel), end)
    assert (learned.bias is None) == (bias is None)
    if bias is not None:
        np.testing.assert_array_equal(lab.to_numpy(learned.bias), shift)


def windows(x, size):
    """Each window of images (N, H, W) as a row."""
    views = np.lib.stride_tricks.sliding_window_view(x.astype(float), size, (1, 2))
    return views.reshape(-1, size[0] * size[1])


@pytest.mark.parametrize("size", [(3, 3), (5, 4), (1, 16), (13, 1)])
def test_gram_walks_gradient_descents_path(lab, size) -> None:
    """By matrix products and by FFT; the bound is that of float64's rounding, step by step."""
    rng = np.random.default_rng(0)
    X, truth, init = rng.standard_normal((41, 53)), rng.standard_normal(size), rng.standard_normal(size)
    Y = oracle(X, truth) + 0.1 * rng.standard_normal((42 - size[0], 54 - size[1]))
    learned = lab.learn_kernel(lab.asarray(X), lab.asarray(Y), size, init=init, lr=1e-4, num_steps=30, method="gram")
    path = descent(X, Y, init, lr=1e-4, num_steps=30, dtype="float64")
    assert (np.abs(lab.to_numpy(learned.kernel) - path.kernel) <= path.kernel_bound).all()
    assert (np.abs(np.array(learned.losses) - path.losses) <= path.loss_bounds + 1e-15 * (Y**2).sum() * Y.size).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_least_squares(lab, dtype) -> None:
    """A minimiser's error is bounded by the condition number: Golub and Van Loan, "Matrix Computations", 5.3.7."""
    rng = np.random.default_rng(1)
    X, Y = rng.standard_normal((2, 30, 31)).astype(dtype), rng.standard_normal((2, 28, 29)).astype(dtype)
    learned = lab.learn_kernel(lab.asarray(X), lab.asarray(Y), 3, method="lstsq")
    V = windows(X, (3, 3))
    expected, (rest,), rank, values = np.linalg.lstsq(V, Y.ravel().astype(float), rcond=None)
    unit = 2.0**-24 if dtype == "float32" else 2.0**-53
    bound = unit * np.abs(expected).max() + V.shape[0] * 2.0**-53 * (values[0] / values[-1]) ** 2
    assert np.abs(lab.to_numpy(learned.kernel).ravel() - expected).max() <= bound
    assert learned.rank == rank == 9
    assert learned.condition == pytest.approx(values[0] / values[-1], rel=1e-9)
    assert learned.losses == [pytest.approx(rest, rel=1e-12)]


def test_ridge_leaves_the_bias_alone(lab) -> None:
    rng = np.random.default_rng(1)
    X, Y = rng.standard_normal((20, 21)), rng.standard_normal((19, 19)) + 5
    learned = lab.learn_kernel(lab.asarray(X), lab.asarray(Y), (2, 3), method="lstsq", ridge=7.0, use_bias=True)
    V = np.c_[windows(X[None], (2, 3)), np.ones(Y.size)]
    expected = np.linalg.solve(V.T @ V + np.diag([7.0] * 6 + [0]), V.T @ Y.ravel())
    np.testing.assert_allclose(lab.to_numpy(learned.kernel).ravel(), expected[:6], rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(lab.to_numpy(learned.bias), expected[6:], rtol=1e-11)


def test_a_constant_image_gives_the_kernel_of_least_norm(lab) -> None:
    X, Y = lab.asarray(np.full((8, 9), 3.0, "float32")), lab.asarray(np.full((7, 8), 6.0, "float32"))
    with pytest.warns(errors.RankDeficientWarning, match="rank 1 of 4: X is constant") as warned:
        learned = lab.learn_kernel(X, Y, 2, method="lstsq")
    np.testing.assert_allclose(lab.to_numpy(learned.kernel), np.full((2, 2), 0.5), rtol=1e-6)
    assert (learned.rank, learned.condition) == (1, math.inf)
    assert [warning.filename for warning in warned] == [__file__]


def test_smooth_images_do_not_square_the_condition_number(lab) -> None:
    """Normal equations would have no digit left: the condition number of X's windows is above 1e8."""
    t = np.linspace(0, 1, 60)
    X = (np.sin(3 * t)[:, None] * np.cos(2 * t) + t[:, None] ** 3 + t**5 + 1e-8 * np.sin(np.outer(t, t) * 400))[None]
    V = windows(X, (3, 3))
    values = np.linalg.svd(V, compute_uv=False)
    assert 1e8 < values[0] / values[-1] < 1e11
    truth = np.arange(9.0).reshape(3, 3)
    learned = lab.learn_kernel(lab.asarray(X), lab.asarray(oracle(X, truth)), 3, method="lstsq")
    error = np.abs(lab.to_numpy(learned.kernel) - truth).max()
    assert error <= 2.0**-53 * V.shape[0] * values[0] / values[-1]
    assert learned.rank == 9


def test_a_stream_is_read_once_and_gives_what_the_list_gives(lab) -> None:
    rng = np.random.default_rng(2)
    truth = rng.standard_normal((3, 2))
    images = [rng.standard_normal((n, n + 3)) for n in (9, 14, 6)]
    pairs = [(lab.asarray(x), lab.asarray(oracle(x, truth))) for x in images]
    read = []

    def stream():
        for index, pair in enumerate(pairs):
            read.append(index)
            yield pair

    learned = lab.learn_kernel(stream(), kernel_size=(3, 2), method="lstsq")
    assert read == [0, 1, 2]
    np.testing.assert_allclose(lab.to_numpy(learned.kernel), truth, rtol=1e-11)
    init = np.zeros((3, 2))
    expected = reference([(x, oracle(x, truth)) for x in images], init, None, 5, 1e-3)
    for method in ("gram", "autograd"):
        learned = lab.learn_kernel(stream(), kernel_size=(3, 2), method=method, init=init, num_steps=5, lr=1e-3)
        np.testing.assert_allclose(learned.losses, expected[0], rtol=1e-11)
        np.testing.assert_allclose(lab.to_numpy(learned.kernel), expected[1], rtol=1e-11)


def test_a_stream_of_bright_images_loses_nothing(lab) -> None:
    """Their moments would: the condition number of X's windows is 4e4, and it isn't squared."""
    rng = np.random.default_rng(9)
    truth = rng.standard_normal((3, 3))
    images = [30000 + 2 * rng.standard_normal((200, 200)) for _ in range(3)]
    pairs = [(lab.asarray(x), lab.asarray(oracle(x, truth))) for x in images]
    values = np.linalg.svd(windows(np.stack(images), (3, 3)), compute_uv=False)
    assert values[0] / values[-1] > 1e4
    for either in (pairs, iter(pairs)):
        learned = lab.learn_kernel(either, kernel_size=3, method="lstsq")
        assert learned.rank == 9
        assert learned.condition == pytest.approx(values[0] / values[-1], rel=1e-6)
        assert np.abs(lab.to_numpy(learned.kernel) - truth).max() <= 2.0**-53 * 3 * 198**2 * values[0] / values[-1]


def test_a_loss_that_rises_is_no_convergence(lab) -> None:
    X, Y = np.full((5, 5), 1.0), np.full((5, 5), 2.0)
    with pytest.raises(errors.DivergedError, match="largest stable rate"):
        lab.learn_kernel(lab.asarray(X), lab.asarray(Y), 1, lr=0.05, tol=1e-3, init=[[0.0]])


@pytest.mark.parametrize("method", ["autograd", "gram", "lstsq"])
def test_missing_pixels(lab, method) -> None:
    rng = np.random.default_rng(3)
    X, truth = rng.standard_normal((12, 13)).astype("float32"), np.array([[1.0, -2.0], [0.5, 3.0]], "float32")
    Y = oracle(X, truth).astype("float32")
    broken, incomplete, mask = X.copy(), Y.copy(), np.ones(Y.shape, bool)
    broken[4, 5], incomplete[0, 0], mask[0, 0] = np.nan, np.inf, False
    mask[3:5, 4:6] = False  # the windows with that pixel
    arguments = {"kernel_size": 2, "method": method, "num_steps": 200, "lr": "auto", "init": np.zeros((2, 2))}
    learned = lab.learn_kernel(lab.asarray(broken), lab.asarray(incomplete), weights=mask, **arguments)
    np.testing.assert_allclose(lab.to_numpy(learned.kernel), truth, atol=1e-4)
    with pytest.raises(errors.DataError, match=r"Y: got 1 pixels that are nan or inf.*Hint: weights="):
        lab.learn_kernel(lab.asarray(X), lab.asarray(incomplete), **arguments)
    mask[3, 4] = True
    message = "X: got 1 pixels that are nan or inf, on which 1 results that count depend"
    with pytest.raises(errors.DataError, match=message):
        lab.learn_kernel(lab.asarray(broken), lab.asarray(incomplete), weights=mask, **arguments)


@pytest.mark.parametrize("method", ["autograd", "gram"])
def test_a_rate_that_is_too_large_names_the_largest(lab, method) -> None:
    rng = np.random.default_rng(4)
    X, Y = rng.standard_normal((20, 20)).astype("float32"), rng.standard_normal((18, 18)).astype("float32")
    V = windows(X[None], (3, 3))
    largest = 1 / np.linalg.eigvalsh(V.T @ V)[-1]
    arguments = {"init": np.zeros((3, 3)), "method": method}
    images = lab.asarray(X), lab.asarray(Y)
    for rate, steps in ((1.2 * largest, 60), (100 * largest, 200)):
        with pytest.raises(errors.DivergedError, match="the largest stable rate") as caught:
            lab.learn_kernel(*images, 3, lr=rate, num_steps=steps, **arguments)
        assert float(re.search("at most ([^,]+),", str(caught.value))[1]) == pytest.approx(largest, rel=1e-3)
    fine = lab.learn_kernel(*images, 3, lr=0.9 * largest, num_steps=60, **arguments)
    assert fine.losses[-1] < fine.losses[0]
    automatic = lab.learn_kernel(*images, 3, lr="auto", num_steps=60, **arguments)
    assert automatic.lr == pytest.approx(largest / 2, rel=5e-3)
    assert automatic.losses[-1] == pytest.approx(np.linalg.lstsq(V, Y.ravel(), rcond=None)[1][0], rel=1e-4)


@pytest.mark.parametrize("method", ["autograd", "gram"])
def test_what_happens_on_the_way(lab, method, capsys, monkeypatch) -> None:
    rng = np.random.default_rng(5)
    X, truth = rng.standard_normal((9, 9)), rng.standard_normal((2, 2))
    Y, init = oracle(X, truth), np.zeros((2, 2))
    calls = []
    arguments = {"init": init, "lr": 1e-3, "method": method, "backend": lab.name}
    images = lab.asarray(X), lab.asarray(Y)
    learned = convlab.learn_kernel(
        *images, 2, num_steps=7, callback=lambda *each: calls.append(each), log_every=3, **arguments
    )
    losses, _, _ = reference([(X, Y)], init, None, 7, 1e-3)
    assert [step for step, _, _ in calls] == list(range(7))
    assert [loss for _, loss, _ in calls] == learned.losses
    for steps, (_, _, kernel) in enumerate(calls, 1):
        expected = reference([(X, Y)], init, None, steps, 1e-3)[1]
        np.testing.assert_allclose(lab.to_numpy(kernel), expected, rtol=1e-12)
    assert capsys.readouterr().out == f"epoch 3, loss {losses[2]:.3f}\nepoch 6, loss {losses[5]:.3f}\n"
    monkeypatch.setenv("FORCE_COLOR", "1")  # or a bar is only drawn on a terminal
    convlab.learn_kernel(*images, 2, progress=True, **arguments)
    assert f"{method} on {lab.name}" in capsys.readouterr().err
    stopped = convlab.learn_kernel(*images, 2, num_steps=1000, tol=1e-2, **arguments)
    long, _, _ = reference([(X, Y)], init, None, len(stopped.losses), 1e-3)
    falls = -np.diff(long)
    assert stopped.converged
    assert falls[-1] <= 1e-2 * long[0] < falls[:-1].min()


@pytest.mark.parametrize("method", ["autograd", "gram"])
def test_the_same_bits_on_every_backend(lab, method) -> None:
    rng = np.random.default_rng(6)
    pairs = []
    for n in (7, 10):
        x, y = rng.standard_normal((2, 4, n, 9)).astype("float32"), rng.standard_normal((2, 2, n, 9)).astype("float32")
        pairs.append((x, y, rng.random((2, 1, n, 9)).astype("float32")))
    arguments = {
        "kernel_size": 3,
        "out_channels": 2,
        "groups": 2,
        "padding": "same",
        "use_bias": True,
        "method": method,
        "reproducible": True,
        "num_steps": 20,
        "lr": 2e-4,
    }
    expected = convlab.learn_kernel(pairs, **arguments, backend="numpy")
    learned = lab.learn_kernel([tuple(map(lab.asarray, pair)) for pair in pairs], **arguments)
    assert learned.losses == expected.losses
    assert lab.to_numpy(learned.kernel).tobytes() == expected.kernel.tobytes()
    assert lab.to_numpy(learned.bias).tobytes() == expected.bias.tobytes()
    start = convlab.learn_kernel(pairs, **arguments | {"num_steps": 0}, backend="numpy").kernel
    losses, kernel, _ = reference(pairs, start.astype(float), np.zeros(2), 20, 2e-4, groups=2, padding="same")
    np.testing.assert_allclose(learned.losses, losses, rtol=1e-5)
    np.testing.assert_allclose(lab.to_numpy(learned.kernel), kernel, atol=1e-5)


ONE = np.ones((6, 8), "float32")


@pytest.mark.parametrize(
    ("arguments", "error", "part"),
    [
        (dict(kernel_size=None), errors.GeometryError, "kernel_size: got None"),
        (dict(Y=None), errors.ShapeError, "Y: got None beside X of type"),
        (dict(X=[], Y=None), errors.DataError, "X: got an empty iterable"),
        (dict(X=iter([]), Y=None), errors.DataError, "X: got an empty iterable"),
        (dict(X=[ONE], Y=None), errors.ShapeError, "X[0]: got ndarray, expected a pair (X, Y)"),
        (dict(X=[(ONE, ONE)], Y=None), errors.ShapeError, "Y[0]: got shape (6, 8), expected (6, 7)"),
        (
            dict(X=[(ONE, ONE[:, 1:])], Y=None, weights=ONE),
            errors.ShapeError,
            "weights: got weights beside an iterable",
        ),
        (dict(padding=1), errors.ShapeError, "a kernel of 1x2. Hint: kernel_size=(3, 4) would fit."),
        (dict(kernel_size=3, dilation=2), errors.ShapeError, "a kernel of 3x3. Hint: convlab.corr2d(X, kernel, ...)"),
        (dict(stride=2), errors.ShapeError, "Y: got shape (6, 7), expected (3, 4)"),
        (dict(groups=2), errors.GeometryError, "groups: got 2"),
        (dict(out_channels=2), errors.ShapeError, "X: got shape (6, 8) with out_channels=2"),
        (dict(lr=0), errors.GeometryError, "lr: got 0, expected a positive finite number"),
        (dict(lr=-1.0), errors.GeometryError, "lr: got -1.0"),
        (dict(lr=True), errors.GeometryError, "lr: got True"),
        (dict(tol=-1), errors.GeometryError, "tol: got -1"),
        (dict(ridge=1.0), errors.GeometryError, "ridge: got 1.0 with method='autograd'"),
        (dict(optimizer=object(), method="gram"), errors.GeometryError, "optimizer: got one with method='gram'"),
        (dict(reproducible=True, method="lstsq"), errors.GeometryError, "reproducible: got True with method='lstsq'"),
        (dict(weights=ONE), errors.ShapeError, "weights: got shape (6, 8), expected one that broadcasts to Y's (6, 7)"),
        (dict(weights=-ONE[:, 1:]), errors.DataError, "weights: got negative"),
        (dict(weights=0 * ONE[:, 1:]), errors.DataError, "weights: all are 0"),
        (dict(callback=3), errors.DTypeError, "callback: got 3, expected a function"),
        (dict(init=[[np.nan, 1.0]]), errors.DataError, "init: got numbers that are nan"),
        (dict(method="lstsq", tol=0.1), errors.GeometryError, "got one of them with method='lstsq'"),
        (dict(checkpoint=3), errors.CheckpointError, "checkpoint: got 3, expected a file"),
        (dict(checkpoint="x" * 300), errors.CheckpointError, "expected a file in an existing folder"),
        (dict(checkpoint="."), errors.CheckpointError, "a folder, expected a file"),
        (dict(optimizer=3), (errors.GeometryError, errors.UnsupportedError), "optimizer: "),
        (
            dict(X=ONE.astype("float64") * 1e200, Y=ONE[:, 1:].astype("float64") * 1e200, lr="auto"),
            errors.DataError,
            "squares float64",
        ),
        (dict(lr=1e38, num_steps=1, seed=0), errors.DivergedError, "kernel: got numbers that"),
        (dict(checkpoint_every=0), errors.GeometryError, "checkpoint_every: got 0"),
        (dict(checkpoint="no/such/folder/x"), errors.CheckpointError, "expected a file in an existing folder"),
        (dict(progress=1), errors.GeometryError, "progress: got 1"),
    ],
)
def test_bad_arguments(lab, arguments, error, part) -> None:
    with pytest.raises(error, match=re.escape(part)):
        lab.learn_kernel(**{"X": ONE, "Y": ONE[:, 1:], "kernel_size": (1, 2), **arguments})


@pytest.mark.parametrize("method", ["autograd", "gram", "autograd reproducibly"])
def test_a_resumed_run_has_the_same_bits(lab, method, tmp_path) -> None:
    """Stopped by its own callback, at a step that isn't one of the checkpoint's."""
    rng = np.random.default_rng(7)
    X, Y = rng.standard_normal((3, 12, 12)).astype("float32"), rng.standard_normal((3, 10, 10)).astype("float32")
    method, _, reproducible = method.partition(" ")
    arguments = {
        "kernel_size": 3,
        "lr": 1e-4,
        "num_steps": 50,
        "method": method,
        "reproducible": bool(reproducible),
        "seed": 1,
        "use_bias": True,
    }
    images = lab.asarray(X), lab.asarray(Y)
    whole = lab.learn_kernel(*images, **arguments)
    path = tmp_path / "run.safetensors"

    def stop(step, loss, kernel):
        if step == 33:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lab.learn_kernel(*images, **arguments, callback=stop, checkpoint=path, checkpoint_every=7)
    steps = []
    resumed = lab.learn_kernel(
        *images, **arguments, checkpoint=path, checkpoint_every=7, callback=lambda step, *_: steps.append(step)
    )
    assert steps == list(range(28, 50))
    assert resumed.losses == whole.losses
    assert lab.to_numpy(resumed.kernel).tobytes() == lab.to_numpy(whole.kernel).tobytes()
    assert lab.to_numpy(resumed.bias).tobytes() == lab.to_numpy(whole.bias).tobytes()
    again = lab.learn_kernel(*images, **arguments, checkpoint=path)  # nothing is left to do
    assert again.losses == whole.losses
    kept = path.read_bytes()
    for changed, message in (
        ({"lr": 2e-4}, "lr 0.0001, expected 0.0002"),
        ({"num_steps": 20}, "has 50 steps, expected at most 20"),
    ):
        with pytest.raises(errors.CheckpointError, match=message):
            lab.learn_kernel(*images, **arguments | changed, checkpoint=path)
    with pytest.raises(errors.CheckpointError, match="begun with other images"):
        lab.learn_kernel(images[0] + 1, images[1], **arguments, checkpoint=path)
    assert path.read_bytes() == kept


def test_a_checkpoint_of_a_stream_goes_on_where_it_stopped(lab, tmp_path) -> None:
    rng = np.random.default_rng(8)
    pairs = [tuple(lab.asarray(rng.standard_normal(s)) for s in ((8, 9), (7, 7))) for _ in range(4)]
    path = tmp_path / "stream"

    def broken():
        yield from pairs[:2]
        raise OSError("the disk is gone")

    arguments = {"kernel_size": (2, 3), "method": "gram", "seed": 0, "lr": 1e-3}
    with pytest.raises(OSError, match="the disk is gone"):
        lab.learn_kernel(broken(), **arguments, checkpoint=path)
    about = json.loads(_metadata(path)["convlab"])
    assert (about["version"], about["done"], about["steps"]) == (1, 2, 0)
    resumed = lab.learn_kernel(iter(pairs), **arguments, checkpoint=path)
    whole = lab.learn_kernel(iter(pairs), **arguments)
    assert resumed.losses == whole.losses
    assert lab.to_numpy(resumed.kernel).tobytes() == lab.to_numpy(whole.kernel).tobytes()
    for other in (pairs[:3], [*pairs, pairs[0]], pairs[::-1]):
        with pytest.raises(errors.CheckpointError, match="begun with other images"):
            lab.learn_kernel(iter(other), **arguments, checkpoint=path)


def _metadata(path):
    data = path.read_bytes()
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff" * 64, (2**60).to_bytes(8, "little") + b"{}"])
def test_a_file_that_is_no_checkpoint_is_left_as_it_is(lab, content, tmp_path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(errors.CheckpointError, match="isn't a checkpoint of convlab's"):
        lab.learn_kernel(ONE, ONE[:, 1:], (1, 2), checkpoint=path)
    assert path.read_bytes() == content
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda about, arrays: about.update(done="1"),
        lambda about, arrays: about.update(digest=1),
        lambda about, arrays: about.pop("problem"),
        lambda about, arrays: about.update(problem=3),
        lambda about, arrays: arrays.update(losses=np.array(1.0)),
        lambda about, arrays: about.update(done="[" * 100_000),
    ],
)
def test_a_checkpoint_that_says_something_else_of_itself(lab, change, tmp_path) -> None:
    path = tmp_path / "file"
    lab.learn_kernel(ONE, ONE[:, 1:], (1, 2), lr=1e-4, num_steps=2, checkpoint=path)
    about, arrays = json.loads(_metadata(path)["convlab"]), load_file(path)
    change(about, arrays)
    text = json.dumps(about).replace('"' + "[" * 100_000 + '"', "[" * 100_000)
    save_file(arrays, path, {"convlab": text})
    with pytest.raises(errors.CheckpointError, match="isn't a checkpoint of convlab's"):
        lab.learn_kernel(ONE, ONE[:, 1:], (1, 2), lr=1e-4, num_steps=2, checkpoint=path)


def test_a_float16_loss_that_is_too_large_says_so(lab) -> None:
    X, Y = np.full((40, 40), 200, "float16"), np.full((40, 40), -200, "float16")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's, of the overflow
        with pytest.raises(
            errors.DivergedError, match="although lr=1e-10 is stable: float16 can't hold the numbers on the way"
        ):
            lab.learn_kernel(lab.asarray(X), lab.asarray(Y), 1, lr=1e-10, init=[[1.0]])


def test_a_target_of_the_images_size_needs_same() -> None:
    X = np.arange(30.0).reshape(5, 6)
    with pytest.raises(errors.ShapeError, match="Hint: padding='same' would fit"):
        convlab.learn_kernel(X, X, 3)
