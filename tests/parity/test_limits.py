"""Sizes that nothing can hold are typed errors on every backend, at once, and the process lives on."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import convlab
from convlab.errors import ConvlabError, GeometryError
from convlab.geometry.geometry import LONGEST

X = np.arange(30, dtype="float32").reshape(5, 6)
K = np.array([[1, 2], [3, 4]], "float32")
LARGE = [2**31, 2**32, 2**62, 2**64, 10**400, np.uint64(2**64 - 1)]
NO_INTS = [-1, -(2**70), True, 1.0, math.nan, math.inf, None, 10**5000, (1, 10**5000), [0] * 10**5, "valid" * 10**5]


def calls(lab) -> dict:
    """What takes a geometry and computes."""
    x, y = lab.asarray(X), lab.asarray(np.ones((4, 5), "float32"))
    functions = {
        "corr2d": lambda **options: lab.corr2d(x, K, **options),
        "conv2d": lambda **options: lab.conv2d(x, K, **options),
        "im2col": lambda **options: lab.im2col(x, 2, **options),
        "plan": lambda **options: convlab.plan(x, K, **options),
        "learn_kernel": lambda **options: lab.learn_kernel(x, y, 2, seed=0, num_steps=1, **options),
        "reproducible": lambda **options: lab.corr2d(x, K, reproducible=True, **options),
        "corr2d_matrix": lambda **options: convlab.corr2d_matrix(K, X.shape, **options),
    }
    if lab.adapter.models:
        functions["Conv2D"] = lambda **options: called(lab, lab.Conv2D(2, seed=0, **options), x)
    return functions


def called(lab, layer, x):
    """The result of a layer."""
    if lab.name == "jax":
        import jax

        return layer.apply(layer.init(jax.random.PRNGKey(0), x), x)
    if lab.name == "mxnet":
        layer.initialize()
    return layer(x)


@pytest.mark.parametrize("value", LARGE, ids=lambda value: f"{len(str(value))} digits")
@pytest.mark.parametrize("mode", ["zeros", "reflect"])
def test_a_padding_that_nothing_holds(lab, value, mode) -> None:
    total = 5 + 2 * int(value)
    expected = f"{total} in all, expected at most {LONGEST}" if value < 2**1000 else "expected an int of at least 0"
    for call in calls(lab).values():
        with pytest.raises(GeometryError, match=re.escape(expected)):
            call(padding=value, padding_mode=mode)


@pytest.mark.parametrize("padding", [0, "same", "full"])
def test_a_dilation_that_nothing_holds(lab, padding) -> None:
    for value in LARGE[1:4]:
        for call in calls(lab).values():
            with pytest.raises(GeometryError, match=f"spans {value + 1} rows, expected at most {LONGEST}"):
                call(dilation=value, padding=padding)


@pytest.mark.parametrize("value", LARGE[:4])
def test_what_does_nothing_may_be_of_any_size(lab, value) -> None:
    """A stride beyond the last place, and the dilation of a single element."""
    first = [[1 * 0 + 2 * 1 + 3 * 6 + 4 * 7]]
    layer = K[None, None].repeat(2, 1)
    for algorithm in ("auto", "native", "direct"):
        assert lab.to_numpy(lab.corr2d(lab.asarray(X), K, stride=value, algorithm=algorithm)).tolist() == first
        channels = lab.corr2d(lab.asarray(X[None, None].repeat(2, 1)), layer, stride=value, algorithm=algorithm)
        assert lab.to_numpy(channels).tolist() == [[[[2 * first[0][0]]]]]
        rows = lab.corr2d(lab.asarray(X), K[:1], stride=(1, value), dilation=(value, 1), algorithm=algorithm)
        assert lab.to_numpy(rows).tolist() == [[6 * i + 2 * (6 * i + 1)] for i in range(5)]
        same = lab.corr2d(lab.asarray(X), [[2.0]], dilation=value, padding="same", algorithm=algorithm)
        assert lab.to_numpy(same).tolist() == (2 * X).tolist()
    columns = lab.to_numpy(lab.im2col(lab.asarray(X), 2, stride=value))
    assert columns.tolist() == [[0], [1], [6], [7]]
    assert (convlab.corr2d_matrix(K, X.shape, stride=value) @ X.ravel()).tolist() == first[0]


@pytest.mark.parametrize("option", ["padding", "stride", "dilation"])
@pytest.mark.parametrize("number", range(len(NO_INTS)))
def test_what_is_no_size(lab, option, number) -> None:
    for call in calls(lab).values():
        with pytest.raises(GeometryError, match=f"{option}: got .* expected .* Hint: ") as caught:
            call(**{option: NO_INTS[number]})
        assert len(str(caught.value)) < 600


def test_more_than_a_machine_holds(lab) -> None:
    """The padded image has two axes of a legal length, and 2**58 numbers."""
    if lab.adapter.wraps:  # it has it in pieces; but so many would be the scheduler's
        with pytest.raises(GeometryError, match=r"which makes a result of .* in about as small chunks"):
            lab.corr2d(lab.asarray(X), K, padding=2**28)
        return
    for call in calls(lab).values():
        what = "a padded image of 1 x 536870917 x 536870918 numbers, "
        with pytest.raises(GeometryError, match=what):
            call(padding=2**28)


def test_layers_that_nothing_holds(lab) -> None:
    if not lab.adapter.models:
        return
    for options, shape in [
        (dict(kernel_size=2**32), "4294967296 x 4294967296"),
        (dict(kernel_size=2**24), "16777216 x 16777216"),
        (dict(kernel_size=(1, 2**62)), f"1 x {2**62}"),
        (dict(kernel_size=3, out_channels=2**62), f"{2**62} x 1 x 3 x 3"),
        (dict(kernel_size=1, in_channels=2**40, out_channels=8, data_format="NHWC"), f"1 x 1 x {2**40} x 8"),
    ]:
        with pytest.raises(GeometryError, match=f"values that make a weight of {shape} numbers, "):
            lab.Conv2D(**options)


def test_kernels_that_nothing_learns(lab) -> None:
    x = lab.asarray(X)
    for method in ("autograd", "gram", "lstsq"):
        with pytest.raises(GeometryError, match="expected at most"):
            lab.learn_kernel(x, x, 2**32, padding="same", method=method, num_steps=1)
    with pytest.raises(GeometryError, match=r"sums over pairs of windows of 1 x 16777216 x 16777216 numbers, 2\.097e"):
        lab.learn_kernel(x, x, 2**12, padding="same", method="gram", num_steps=1)


def test_windows_that_nothing_holds(lab) -> None:
    """X padded is 2**32 numbers, which there may be memory for, and its windows are 2**62."""
    with pytest.raises(GeometryError, match=r"X, kernel_size: got values that make (columns|padded images) of "):
        lab.im2col(lab.asarray(X), (1, 2**31 - 1), padding=((0, 0), (2**30, 2**30 - 7)))
    with pytest.raises(GeometryError, match="1000000 x 1000000 numbers, "):
        convlab.corr2d_matrix([[1.0]], (10**6, 10**6))
    with pytest.raises(GeometryError, match="expected at most"):
        convlab.corr2d_matrix([[1.0]], (2**62, 2**62))


def test_arithmetic_has_no_limit() -> None:
    n = 2**62
    assert convlab.output_shape((n, n), (3, 3), padding=n, stride=2) == ((3 * n - 3) // 2 + 1,) * 2
    assert convlab.output_shape((5, 6), (2, 2), padding=2**200) == (2**201 + 4, 2**201 + 5)
    field = convlab.receptive_field([{"kernel_size": n, "stride": n, "padding": n}, {"kernel_size": 2, "dilation": n}])
    assert (field.size, field.stride, field.offset) == ((n + n * n,) * 2, (n, n), (-n, -n))
    with pytest.raises(GeometryError, match="kernel_size: got an integer of 16610 bits"):
        convlab.receptive_field([10**5000])


def test_a_process_outlives_what_used_to_abort_it(lab) -> None:
    """JAX aborts where a product of sizes overflows, and where a result gets no memory; so this needs a process."""
    if lab.adapter.wraps:
        return
    code = f"""
        import numpy as np, convlab
        lab = convlab.backend({lab.name!r})
        x, k = lab.asarray(np.ones((3, 3), "float32")), lab.asarray(np.ones((2, 2), "float32"))
        for padding in (2**20, 2**22, 2**31, 2**32, 2**62):
            for options in ({{}}, {{"algorithm": "native"}}, {{"reproducible": True}}, {{"padding_mode": "circular"}}):
                try: lab.corr2d(x, k, padding=padding, **options)
                except convlab.errors.GeometryError: print("refused")
        print(lab.to_numpy(lab.corr2d(x, k)).tolist())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=os.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n") == ["refused"] * 20 + ["[[4.0, 4.0], [4.0, 4.0]]", ""]


def test_axes_longer_than_float32_counts(lab) -> None:
    """Eigen, under JAX and TensorFlow, finds the number of results in float32: the last ones weren't written."""
    if lab.adapter.wraps:
        return
    n = 2**24 + 4
    x = np.zeros((1, 2, 1, n), "float32")
    x[:, :, :, -3:] = [1, 2, 3]
    for stride in (1, 2):
        k = lab.asarray(np.ones((1, 2, 1, 2), "float32"))
        y = lab.to_numpy(lab.corr2d(lab.asarray(x), k, stride=(1, stride), algorithm="native"))
        expected = (x[..., :-1] + x[..., 1:]).sum(1, keepdims=True)[..., ::stride]
        np.testing.assert_array_equal(y, expected)
        assert y.shape[-1] == (n - 2) // stride + 1


NO_SIZES = [10**400, 10**5000, 2**62, -1, math.nan, math.inf, True, None, "3", [3] * 10**5]


@pytest.mark.parametrize("number", range(len(NO_SIZES)))
def test_filters_of_no_size(number) -> None:
    value, filters = NO_SIZES[number], convlab.filters
    for make in (
        filters.derivative,
        filters.box_blur,
        filters.gaussian_blur,
        lambda value: filters.gaussian_blur(1.0, size=value if value is not None else 0),
        lambda value: filters.edge(0, size=value),
        lambda value: filters.derivative(1, axis=value if value != -1 else 2),
    ):
        with pytest.raises(GeometryError, match="got") as caught:
            make(value)
        assert len(str(caught.value)) < 600
    if value not in (2**62, -1):
        with pytest.raises(GeometryError):
            filters.sharpen(value)
    if type(value) is float or (type(value) is int and value > 2**63):
        with pytest.raises(ConvlabError):
            filters.edge((value, 1))
