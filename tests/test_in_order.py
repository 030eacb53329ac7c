"""`reproducible=True` by operations and by compiled kernels, against the documented order in plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plain_loops import PAD_MODES, arrays, bias_gradient, bits, image_gradient, kernel_gradient, result

from convlab.algorithms.reproducible import reproduce
from convlab.compiled import reproducible, threads
from convlab.contract.rule import Rule
from convlab.correlation.compute import compute
from convlab.geometry.geometry import Geometry
from convlab.reference import ops
from convlab.testing import KINDS

DTYPES = ("float16", "float32", "float64")
kept = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@st.composite
def problems(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], Geometry]:
    """Shapes of x and k, and a geometry. Rows are longer than a vector of the kernels, or shorter."""
    groups, per_group, share = draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(st.sampled_from((1, 2, 5)))
    pads = st.sampled_from((0, 0, 1, 2))
    geometry = Geometry(
        (draw(st.integers(1, 3)), draw(st.integers(1, 4))),
        (draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        ((draw(pads), draw(pads)), (draw(pads), draw(pads))),
        draw(st.sampled_from(sorted(PAD_MODES))),
        (draw(st.integers(1, 2)), draw(st.integers(1, 2))),
        groups,
    )
    height, width = (extent + draw(st.sampled_from((2, 3, 9))) for extent in geometry.extent)
    return (
        (draw(st.integers(1, 3)), groups * per_group, height, width),
        (groups * share, per_group, *geometry[0]),
        geometry,
    )


@kept
@given(problems(), st.sampled_from(DTYPES), st.sampled_from(KINDS), st.integers(0, 2**32 - 1))
def test_results_and_kernel_gradients_are_those_of_plain_loops(way, problem, dtype, kind, seed) -> None:
    geometry, (x, k, b, dy) = problem[2], arrays(problem, dtype, kind, seed)
    with np.errstate(all="ignore"):
        assert bits(compute(ops, Rule("y", geometry), x, k, b)) == bits(result(x, k, b, geometry))
        slope = compute(ops, Rule("k", geometry, x.shape[2:]), x, dy)
        assert bits(slope) == bits(kernel_gradient(x, dy, k.shape, geometry))


@kept
@given(problems(), st.sampled_from(DTYPES), st.sampled_from(KINDS[:-1]), st.integers(0, 2**32 - 1))
def test_image_and_bias_gradients_are_those_of_plain_loops(way, problem, dtype, kind, seed) -> None:
    geometry, (x, k, _, dy) = problem[2], arrays(problem, dtype, kind, seed)
    with np.errstate(all="ignore"):
        slope = compute(ops, Rule("x", geometry, x.shape[2:]), dy, k)
        assert bits(slope) == bits(image_gradient(dy, k, x.shape, geometry))
        assert bits(compute(ops, Rule("b", geometry), dy)) == bits(bias_gradient(dy))


def test_zeros_of_a_padding_take_part(way) -> None:
    """An infinite element of K makes NaN of them: those around X, and those around dY."""
    x, k = np.ones((1, 1, 2, 2), "float32"), np.array([[[[1.0, np.inf]]]], "float32")
    y = compute(ops, Rule("y", Geometry((1, 2), padding=((0, 0), (0, 1)))), x, k)
    assert np.isinf(y[..., 0]).all()
    assert np.isnan(y[..., 1]).all()
    dx = compute(ops, Rule("x", Geometry((1, 2)), (1, 3)), np.ones((1, 1, 1, 2), "float32"), k)
    assert np.isnan(dx[0, 0, 0, 0])
    assert np.isinf(dx[0, 0, 0, 1:]).all()


def test_zeros_of_a_stride_take_part(way) -> None:
    """An infinite number of dY makes NaN of the pixel that the stride leaves out beside it."""
    dy, k = np.array([[[[3.0, np.inf, 5.0]]]], "float32"), np.full((1, 1, 1, 1), 2.0, "float32")
    dx = compute(ops, Rule("x", Geometry((1, 1), (1, 2)), (1, 6)), dy, k)
    assert bits(dx) == bits(np.array([[[[6.0, 0.0, np.inf, np.nan, 10.0, 0.0]]]], "float32"))


# Shapes of x and k whose work is cut in each way that the kernels know: bands of rows, several images, some of the
# output channels, some of the elements of K.
CUT = [
    ((2, 3, 40, 70), (9, 3, 3, 3), Geometry((3, 3), padding=((1, 1), (1, 1)))),
    ((1, 1, 300, 260), (1, 1, 7, 5), Geometry((7, 5))),
    ((9, 20, 7, 7), (24, 20, 3, 3), Geometry((3, 3), padding=((1, 1), (1, 1)))),
    ((3, 12, 33, 21), (36, 4, 3, 2), Geometry((3, 2), (2, 3), ((2, 0), (0, 1)), "circular", (2, 1), 3)),
    ((2, 60, 20, 30), (60, 1, 5, 5), Geometry((5, 5), groups=60)),
    ((1, 300, 24, 100), (5, 300, 2, 2), Geometry((2, 2))),
]


@pytest.mark.parametrize(("x_shape", "k_shape", "geometry"), CUT)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_cut_changes_a_bit(way, x_shape, k_shape, geometry, dtype) -> None:
    """On any number of threads, against the operations, which know no cuts."""
    x, k, b, dy = arrays((x_shape, k_shape, geometry), dtype, "cancelling", 0)
    size = x_shape[2:]
    calls = [(Rule("y", geometry), x, k, b), (Rule("x", geometry, size), dy, k), (Rule("k", geometry, size), x, dy)]
    calls.append((Rule("b", geometry), dy))
    with np.errstate(all="ignore"):
        expected = [bits(reproduce(ops, *call)) for call in calls]
        for number in (1, 2, 5):
            with threads.limited(number):
                assert [bits(compute(ops, *call)) for call in calls] == expected


def test_the_kernels_are_taken_where_they_can(lab, way, monkeypatch) -> None:
    """Eagerly on each backend, the first time and the next."""
    counted = []
    correlate = reproducible.correlate_in_order
    monkeypatch.setattr(
        reproducible, "correlate_in_order", lambda *arguments: counted.append(0) or correlate(*arguments)
    )
    x, k = np.arange(20.0, dtype="float32").reshape(4, 5), np.array([[1.0, -2.0]], "float32")
    for _ in range(3):
        y = lab.to_numpy(lab.corr2d(lab.asarray(x), lab.asarray(k), reproducible=True))
        assert y.tolist() == (x[:, :-1] - 2 * x[:, 1:]).tolist()
    assert len(counted) == (3 if way == "kernels" else 0)
