"""Filters, matrices, receptive fields and the chapter's exercises, against SciPy and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import assume, given
from hypothesis import strategies as st

import convlab
from convlab import chapter, errors, filters
from convlab.testing import random_case
from convlab.truth.oracle import oracle

ramp_down, ramp_right = np.mgrid[0:9, 0:11].astype(float)


@given(st.floats(0, 360), st.sampled_from([3, 5, 7]))
def test_edges_measure_the_slope_along_a_direction(degrees, size) -> None:
    down, right = -math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    kernel = filters.edge(degrees, size=size)
    np.testing.assert_allclose(kernel, filters.edge((3 * down, 3 * right), size=size), atol=1e-12)
    along, across = down * ramp_down + right * ramp_right, right * ramp_down - down * ramp_right
    np.testing.assert_allclose(convlab.corr2d(along, kernel), 1, atol=1e-10)
    np.testing.assert_allclose(convlab.corr2d(across, kernel), 0, atol=1e-10)


def test_a_very_large_edge_filter() -> None:
    kernel = filters.edge((0, 1), size=1201)
    assert kernel.shape == (1201, 1201)
    assert (kernel * (np.arange(1201) - 600)).sum() == pytest.approx(1)


def test_edge_is_sobel() -> None:
    image = np.random.default_rng(0).standard_normal((8, 9))
    for axis, v in ((0, (1, 0)), (1, (0, 1))):
        expected = scipy.ndimage.sobel(image, axis)[1:-1, 1:-1] / 8
        np.testing.assert_allclose(convlab.corr2d(image, filters.edge(v)), expected, atol=1e-12)


@given(st.integers(0, 6), st.sampled_from([0, 1]))
def test_derivatives_of_polynomials(order, axis) -> None:
    """x**d goes to d!, every lower power to 0; the kernel has the least size, d + 1."""
    kernel = filters.derivative(order, axis)
    assert kernel.size == order + 1
    x = ramp_right if axis else ramp_down
    for degree in range(order + 1):
        expected = math.factorial(order) if degree == order else 0
        np.testing.assert_allclose(convlab.corr2d(x**degree, kernel), expected, atol=1e-6)


def test_no_smaller_kernel_takes_a_derivative() -> None:
    """Exercise 2: a kernel of d elements that sends 1, x, …, x**(d-1) to 0 is zero itself, so d + 1 are needed."""
    for order in range(1, 6):
        moments = np.vander(np.arange(order), order, increasing=True).T
        assert np.linalg.matrix_rank(moments) == order


def test_blurs_against_scipy() -> None:
    image = np.random.default_rng(0).standard_normal((30, 31))
    same = {"padding": "same", "padding_mode": "reflect"}
    for size in (1, 3, 4, 7):
        # SciPy puts the larger half of an even kernel before the centre, as same_lower does.
        got = convlab.corr2d(image, filters.box_blur(size), padding="same_lower", padding_mode="reflect")
        np.testing.assert_allclose(got, scipy.ndimage.uniform_filter(image, size, mode="mirror"), atol=1e-12)
    for sigma in (0.5, 1.0, 2.3):
        expected = scipy.ndimage.gaussian_filter(image, sigma, mode="mirror")
        np.testing.assert_allclose(convlab.corr2d(image, filters.gaussian_blur(sigma), **same), expected, atol=1e-12)
    expected = image - scipy.ndimage.laplace(image, mode="mirror") / 4
    np.testing.assert_allclose(convlab.corr2d(image, filters.sharpen(), **same), expected, atol=1e-12)
    assert filters.gaussian_blur(2.0, size=5).shape == (5, 5)


@given(st.floats(1, 20), st.floats(-360, 360))
def test_motion_blur_is_a_line(length, angle) -> None:
    """Each pixel's weight against its distance to points along the line; half a turn changes nothing."""
    kernel = filters.motion_blur(length, angle)
    rows, columns = kernel.shape
    assert rows % 2 == columns % 2 == 1
    assert kernel.sum() == pytest.approx(1)
    np.testing.assert_allclose(kernel, kernel[::-1, ::-1], atol=1e-12)
    steps = np.linspace(-(length - 1) / 2, (length - 1) / 2, 2001)
    down, right = -math.sin(math.radians(angle)) * steps, math.cos(math.radians(angle)) * steps
    y, x = np.mgrid[:rows, :columns]
    distance = np.hypot(y[..., None] - rows // 2 - down, x[..., None] - columns // 2 - right).min(-1)
    weights = np.maximum(0, 1 - distance)
    # The points are some hundredth of a pixel apart.
    np.testing.assert_allclose(kernel, weights / weights.sum(), atol=0.01)


def test_motion_blur_by_hand() -> None:
    assert filters.motion_blur(2).tolist() == [[0.25, 0.5, 0.25]]
    assert filters.motion_blur(1, 45).tolist() == [[1.0]]
    np.testing.assert_allclose(filters.motion_blur(5, 90), np.full((5, 1), 0.2), atol=1e-12)


def test_turned_gaussians() -> None:
    np.testing.assert_allclose(
        filters.gaussian_blur((1, 3), angle=90, size=15), filters.gaussian_blur((3, 1), size=15), atol=1e-12
    )
    turned = filters.gaussian_blur((1, 3), angle=30)
    y, x = np.mgrid[:25, :25] - 12.0
    covariance = [[(turned * a * b).sum() for a in (y, x)] for b in (y, x)]
    along = np.array([-math.sin(math.radians(30)), math.cos(math.radians(30))])
    # Sampling and cutting off at four sigma take a little of the variance.
    assert along @ covariance @ along == pytest.approx(9, rel=0.01)
    assert np.trace(covariance) == pytest.approx(10, rel=0.01)


@pytest.mark.parametrize(
    ("kernel", "total"),
    [
        (filters.sobel(0, size=7), 0),
        (filters.scharr(1), 0),
        (filters.prewitt(0), 0),
        (filters.laplacian(8), 0),
        (filters.difference_of_gaussians(1.3), 0),
        (filters.unsharp_mask(1.3, 2.0), 1),
        (filters.gaussian_derivative(1.3, (0, 0)), 1),
        (filters.gaussian_blur((1, 2), angle=20), 1),
        (filters.box_blur((2, 5)), 1),
    ],
)
def test_sums(kernel, total) -> None:
    assert kernel.dtype == np.float64
    assert kernel.sum() == pytest.approx(total, abs=1e-12)


@pytest.mark.parametrize("size", [3, 5, 7])
def test_sobels_response_to_a_ramp(size) -> None:
    y = convlab.corr2d(ramp_right, filters.sobel(1, size=size))
    np.testing.assert_array_equal(y, np.full_like(y, 2 ** (2 * size - 3)))


def test_filters_run_on_every_backend_in_the_images_dtype(lab) -> None:
    image = np.random.default_rng(0).standard_normal((12, 13)).astype("float32")
    y = lab.corr2d(lab.asarray(image), filters.edge(30))
    assert lab.ops.dtype(y) == ("float64" if lab.name == "numpy" else "float32")
    np.testing.assert_allclose(lab.to_numpy(y), scipy.ndimage.correlate(image, filters.edge(30))[1:-1, 1:-1], atol=1e-5)


@pytest.mark.parametrize(
    ("text", "kernel"),
    [
        ("edge:45", filters.edge(45)),
        ("edge:-90.5", filters.edge(-90.5)),
        ("derivative", filters.derivative(1)),
        ("derivative:3", filters.derivative(3)),
        ("box:5", filters.box_blur(5)),
        ("gaussian:1.5", filters.gaussian_blur(1.5)),
        ("sharpen", filters.sharpen()),
        ("laplacian", filters.laplacian()),
        ("laplacian:8", filters.laplacian(8)),
        ("sobel", filters.sobel(1)),
        ("sobel:0", filters.sobel(0)),
        ("scharr:0", filters.scharr(0)),
        ("prewitt:1", filters.prewitt(1)),
        ("log:2", filters.laplacian_of_gaussian(2)),
        ("dog:1,2.5", filters.difference_of_gaussians(1, 2.5)),
        ("gabor:6,45", filters.gabor(6, 45)),
        ("motion:9,-30", filters.motion_blur(9, -30)),
        ("unsharp:2,0.5", filters.unsharp_mask(2, 0.5)),
    ],
)
def test_parse(text, kernel) -> None:
    np.testing.assert_array_equal(filters.parse(text), kernel)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "edge",
        "edge:",
        "edge:x",
        "blur",
        "box:1.5",
        "box:0",
        "laplacian:2",
        "edge:nan",
        "sobel:1,2",
        "log:-1",
        "motion:0",
    ],
)
def test_parse_refuses(text) -> None:
    with pytest.raises(errors.GeometryError, match="Hint:"):
        filters.parse(text)


@pytest.mark.parametrize(
    "call",
    [
        lambda: filters.edge((0, 0)),
        lambda: filters.edge((1, 2, 3)),
        lambda: filters.edge("up"),
        lambda: filters.edge(("3", 1)),
        lambda: filters.edge((True, 1)),
        lambda: filters.edge(True),
        lambda: filters.edge((float("inf"), 1)),
        lambda: filters.edge(0, size=4),
        lambda: filters.edge(0, size=1),
        lambda: filters.derivative(-1),
        lambda: filters.derivative(1, axis=2),
        lambda: filters.gaussian_blur(0),
        lambda: filters.gaussian_blur(float("nan")),
        lambda: filters.box_blur(2.5),
        lambda: filters.sharpen(float("inf")),
        lambda: filters.sobel(1, size=4),
        lambda: filters.sobel(2),
        lambda: filters.laplacian(True),
        lambda: filters.gaussian_blur((1, 2, 3)),
        lambda: filters.gaussian_blur(1, truncate=0),
        lambda: filters.gaussian_derivative(1, 2),
        lambda: filters.gaussian_derivative(1, (11, 0)),
        lambda: filters.difference_of_gaussians(2, 1),
        lambda: filters.gabor(0),
        lambda: filters.motion_blur(0.5),
        lambda: filters.motion_blur(10**6),
        lambda: filters.box_blur((3, 0)),
        lambda: filters.unsharp_mask(-1),
    ],
)
def test_bad_filters(call) -> None:
    with pytest.raises(errors.GeometryError, match=r"got .* expected .* Hint:"):
        call()


# Exercise 1: diagonal edges.


def test_diagonal_edges() -> None:
    X, K = chapter.diagonal_image(6), chapter.EDGE_KERNEL
    edge = convlab.corr2d(X, K)
    np.testing.assert_array_equal(edge, np.eye(6)[:, :-1])  # found, on the diagonal
    np.testing.assert_array_equal(
        convlab.corr2d(X.T, K), -np.eye(6, k=-1)[:, :-1]
    )  # the transpose: other sign, shifted
    np.testing.assert_array_equal(convlab.corr2d(X, K.T), -np.eye(6, k=1)[:-1])  # the transposed kernel
    assert not convlab.corr2d(chapter.edge_image().T, K).any()


# Exercise 4: as a matrix product.


@given(st.integers(0, 2**32 - 1))
def test_both_matrix_forms_against_corr2d(seed) -> None:
    case = random_case(seed, integers=True)
    assume(case.K.ndim == 2 and (case.X.ndim == 2 or case.options["data_format"] == "NCHW"))
    geometry = {name: value for name, value in case.options.items() if name != "data_format"}
    linear = {name: value for name, value in geometry.items() if name != "padding_value"}
    image = case.X.reshape(-1, *case.X.shape[-2:])[0]
    y = oracle(image, case.K, **linear)
    A = convlab.corr2d_matrix(case.K, image.shape, **linear)
    np.testing.assert_array_equal((A @ image.ravel()).reshape(y.shape), y)
    assert A.nnz <= case.K.size * y.size
    columns = convlab.im2col(case.X, case.K.shape, **geometry)
    products = case.K.ravel() @ columns
    np.testing.assert_array_equal(products.reshape(*case.X.shape[:-2], *y.shape), oracle(case.X, case.K, **geometry))


def test_corr2d_matrix_by_hand() -> None:
    A = convlab.corr2d_matrix([[1, -1]], (2, 3))
    assert A.toarray().tolist() == [[1, -1, 0, 0, 0, 0], [0, 1, -1, 0, 0, 0], [0, 0, 0, 1, -1, 0], [0, 0, 0, 0, 1, -1]]
    wrapped = convlab.corr2d_matrix([[1, 1, 1]], (1, 2), padding=((0, 0), (1, 1)), padding_mode="circular")
    assert wrapped.toarray().tolist() == [[1, 2], [2, 1]]
    with pytest.raises(errors.ShapeError, match=r"K: got shape \(2,\)"):
        convlab.corr2d_matrix([1, 2], (2, 3))
    with pytest.raises(errors.GeometryError, match="input_size: got"):
        convlab.corr2d_matrix([[1, 2]], (3,))


@pytest.mark.parametrize("dtype", ["uint8", "bool", "float16", "float32"])
def test_corr2d_matrix_computes_as_corr2d_does(dtype) -> None:
    """Small integers don't wrap, and entries that meet in one pixel are added up."""
    kernel, image = np.full((3, 3), 100).astype(dtype), np.ones((2, 2), "uint8")
    A = convlab.corr2d_matrix(kernel, image.shape, padding=2, padding_mode="replicate")
    assert (A @ image.ravel()).max() == 9 * float(kernel[0, 0])
    assert A.dtype == ("int64" if dtype in ("uint8", "bool") else "float32")


def test_im2col_on_every_backend(lab) -> None:
    X = np.arange(2 * 3 * 4 * 5, dtype="float32").reshape(2, 3, 4, 5)
    columns = lab.im2col(lab.asarray(X), (2, 3), stride=(1, 2), padding=1)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(X, ((0, 0), (0, 0), (1, 1), (1, 1))), (2, 3), (2, 3))
    expected = windows[:, :, ::1, ::2].reshape(2, 3, -1, 6).swapaxes(-1, -2)
    np.testing.assert_array_equal(lab.to_numpy(columns), expected)
    assert lab.ops.dtype(lab.im2col(lab.asarray(X.astype("uint8")), 2)) == "uint8"
    with pytest.raises(errors.ShapeError, match=r"X: got shape \(3,\)"):
        lab.im2col(np.ones(3), 1)


# Receptive fields.


def test_receptive_field_of_the_chapters_example() -> None:
    """Two 2x2 kernels: the one element of the last feature map depends on all nine inputs."""
    assert convlab.receptive_field([2, 2]) == ((3, 3), (1, 1), (0, 0))
    assert convlab.receptive_field([2, 2]).inputs(0, 0) == (range(3), range(3))


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(0, 2), st.integers(1, 2)), max_size=3))
def test_receptive_field_by_differentiation(layers) -> None:
    """The inputs that change an output are within the field, its corners included."""
    stack = [dict(zip(("kernel_size", "stride", "padding", "dilation"), layer, strict=True)) for layer in layers]
    field = convlab.receptive_field(stack)
    size = 80

    def run(image: np.ndarray) -> np.ndarray:
        for layer in stack:
            geometry = {key: layer[key] for key in ("stride", "padding", "dilation")}
            image = convlab.corr2d(image, np.ones((layer["kernel_size"],) * 2), **geometry)
        return image

    out = run(np.zeros((size, size))).shape[0] // 2
    rows, columns = field.inputs(out, out)
    assume(rows.start >= 0 and rows.stop <= size)
    for row, column, inside in (
        (rows.start, columns.start, True),
        (rows.stop - 1, columns.stop - 1, True),
        (rows.start - 1, columns.start, False),
        (rows.stop, columns.start, False),
    ):
        if 0 <= row < size:
            image = np.zeros((size, size))
            image[row, column] = 1
            assert bool(run(image)[out, out]) is inside


def test_receptive_field_refuses() -> None:
    with pytest.raises(errors.GeometryError, match="depends on the image's size"):
        convlab.receptive_field([{"kernel_size": 3, "padding": "same"}])
    with pytest.raises(errors.GeometryError, match="expected a kernel size, or a mapping"):
        convlab.receptive_field([{"kernel": 3}])
    with pytest.raises(errors.GeometryError, match="kernel_size: got 0"):
        convlab.receptive_field([0])


# output_shape is what corr2d gives.


@given(st.integers(0, 2**32 - 1))
def test_output_shape(seed) -> None:
    case = random_case(seed)
    y = convlab.corr2d(case.X, case.K, **case.options)
    assert convlab.output_shape(case.X.shape, case.K.shape, **case.options) == y.shape


@pytest.mark.parametrize("size", [4.5, "a", -3])
def test_output_shape_of_no_shape(size) -> None:
    with pytest.raises(errors.GeometryError, match="input_shape: got"):
        convlab.output_shape((size, 4), (1, 1))


@pytest.mark.parametrize("arguments", [(5, (3, 3)), ((5, 5), 3), ("ab", (1, 1)), ((5, 5), None)])
def test_output_shape_of_what_is_no_shape(arguments) -> None:
    with pytest.raises(convlab.errors.ShapeError, match=r"(input|kernel)_shape: got .*, expected sizes such as"):
        convlab.output_shape(*arguments)


# The NumPy layer, which no framework's tests cover.


def test_numpy_layer() -> None:
    layer = convlab.Conv2D(3, out_channels=4, groups=2, seed=0, backend="numpy")
    X = np.random.default_rng(0).standard_normal((2, 6, 5, 5)).astype("float32")
    y = layer(X)
    assert layer.weight.shape == (4, 3, 3, 3)
    np.testing.assert_array_equal(y, convlab.corr2d(X, layer.weight, bias=np.zeros(4, "float32"), groups=2))
    assert repr(layer) == "Conv2D((3, 3), in_channels=6, out_channels=4, groups=2, seed=0)"
    assert convlab.Conv2D((1, 2), use_bias=False, backend="numpy").bias is None
