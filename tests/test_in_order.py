"""`reproducible=True` by operations and by compiled kernels, against the documented order in plain loops.

The loops add one Python float after another. They take their borders from numpy.pad and share no code with convlab.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convlab.algorithms.reproducible import reproduce
from convlab.compiled import reproducible, threads
from convlab.contract.rule import Rule
from convlab.correlation.compute import compute
from convlab.geometry.geometry import Geometry
from convlab.reference import ops
from convlab.testing import KINDS, fill

DTYPES = ("float16", "float32", "float64")
PAD_MODES = {
    "zeros": "constant",
    "reflect": "reflect",
    "replicate": "edge",
    "circular": "wrap",
    "symmetric": "symmetric",
}
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


def wide(x: np.ndarray) -> np.ndarray:
    """Subnormal numbers are zero; of float64, all below 2^-1000."""
    least = 2.0**-1000 if x.dtype == "float64" else 2.0**-126
    values = x.astype("float64")
    return np.where(abs(values) < least, 0.0, values)


def times(a: float, b: float, dtype: str) -> float:
    product = a * b
    return 0.0 if dtype == "float64" and abs(product) < 2.0**-960 else product


def rounded(total: np.ndarray, dtype: str) -> np.ndarray:
    """Once to the dtype, float16 through float32; what it can't hold is +0, and NaN is NaN."""
    least = 2.0**-1000 if dtype == "float64" else 2.0**-126
    total = np.where(abs(total) < least, 0.0, total)
    total = total if dtype == "float64" else total.astype("float32").astype(dtype)
    return np.where(np.isnan(total), np.array(np.nan, dtype), np.where(total == 0, np.zeros((), dtype), total))


def tree(numbers: list[float]) -> float:
    while len(numbers) > 1:
        half = (len(numbers) + 1) // 2
        numbers = [a + b for a, b in itertools.zip_longest(numbers[:half], numbers[half:], fillvalue=0.0)]
    return numbers[0]


def padded(x: np.ndarray, geometry: Geometry) -> np.ndarray:
    return np.pad(wide(x), ((0, 0), (0, 0), *geometry.padding), PAD_MODES[geometry.padding_mode])


def windows(shape, k_shape, geometry: Geometry):
    """All (image, output channel, row, column, input channel, kernel row and column), with the padded image's place."""
    (n, outputs, rows, columns), (_, per_group, h, w) = shape, k_shape
    (sh, sw), (dh, dw), share = geometry.stride, geometry.dilation, outputs // geometry.groups
    for image, o, i, j, c, p, q in np.ndindex(n, outputs, rows, columns, per_group, h, w):
        yield (image, o, i, j), (o, c, p, q), (image, o // share * per_group + c, i * sh + p * dh, j * sw + q * dw)


def result(x, k, b, geometry: Geometry) -> np.ndarray:
    shape = (len(x), len(k), *geometry.output_size(x.shape[2:]))
    total, image, kernel = np.zeros(shape), padded(x, geometry), wide(k)
    for y_place, k_place, x_place in windows(shape, k.shape, geometry):
        total[y_place] += times(float(kernel[k_place]), float(image[x_place]), str(x.dtype))
    return rounded(total + wide(b).reshape(1, -1, 1, 1), str(x.dtype))


def kernel_gradient(x, dy, k_shape, geometry: Geometry) -> np.ndarray:
    image, seed = padded(x, geometry), wide(dy)
    columns = np.zeros((*k_shape, dy.shape[3]))
    for (n, o, i, j), k_place, x_place in windows(dy.shape, k_shape, geometry):
        columns[(*k_place, j)] += times(float(image[x_place]), float(seed[n, o, i, j]), str(x.dtype))
    total = np.array([tree(line.tolist()) for line in columns.reshape(-1, dy.shape[3])]).reshape(k_shape)
    return rounded(total, str(x.dtype))


def image_gradient(dy, k, x_shape, geometry: Geometry) -> np.ndarray:
    """For a finite dY and K, where the zeros that take part change nothing."""
    sizes = [n + sum(pads) for n, pads in zip(x_shape[2:], geometry.padding, strict=True)]
    total, seed, kernel = np.zeros((*x_shape[:2], *sizes)), wide(dy), wide(k)
    places = sorted(windows(dy.shape, k.shape, geometry), key=lambda each: (each[1][0], [-n for n in each[1][2:]]))
    for y_place, k_place, x_place in places:
        total[x_place] += times(float(kernel[k_place]), float(seed[y_place]), str(dy.dtype))
    for axis in (2, 3):
        total = without_border(total, x_shape[axis], geometry.padding[axis - 2], geometry.padding_mode, axis)
    return rounded(total, str(dy.dtype))


def without_border(total: np.ndarray, n: int, pads, mode: str, axis: int) -> np.ndarray:
    """Add up the positions that hold the same pixel, in their order."""
    pixels = np.pad(np.arange(n), pads, PAD_MODES[mode], **({"constant_values": -1} if mode == "zeros" else {}))
    lines = np.moveaxis(total, axis, 0)
    added: list[np.ndarray | None] = [None] * n
    for line, pixel in zip(lines, pixels, strict=True):
        if pixel >= 0:
            before = added[pixel]
            added[pixel] = line if before is None else before + line
    return np.moveaxis(np.array(added), 0, axis)


def bits(array: np.ndarray) -> tuple[str, tuple[int, ...], bytes]:
    return array.dtype.name, array.shape, array.tobytes()


def arrays(problem, dtype: str, kind: str, seed: int):
    x_shape, k_shape, geometry = problem
    rng, shape = np.random.default_rng(seed), (x_shape[0], k_shape[0], *geometry.output_size(x_shape[2:]))
    return [fill(kind, each, dtype, rng) for each in (x_shape, k_shape, k_shape[:1], shape)]


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
        total = np.zeros(len(k))
        for image in wide(dy):
            total += [tree([tree(row.tolist()) for row in plane]) for plane in image]
        assert bits(compute(ops, Rule("b", geometry), dy)) == bits(rounded(total, dtype))


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
