"""`reproducible=True` in JAX's programs, by the compiled kernels and by XLA's operations: the bits of plain loops."""

from __future__ import annotations

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import plain_loops
import pytest
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from numpy.lib.stride_tricks import sliding_window_view
from plain_loops import arrays, bits

import convlab
from convlab.geometry.geometry import Geometry
from convlab.testing import KINDS, reproducible_gradients

CALL = "custom_call @convlab"
# Shapes of X and K, and the geometry. Rows are shorter than a vector of the kernels, or longer.
PROBLEMS = {
    "layer": ((2, 3, 9, 21), (5, 3, 3, 3), Geometry((3, 3), padding=((1, 1), (1, 1)))),
    "one channel": ((1, 1, 12, 35), (1, 1, 4, 5), Geometry((4, 5))),
    "grouped, strided": ((2, 4, 8, 11), (10, 2, 3, 2), Geometry((3, 2), (2, 3), ((2, 0), (0, 1)), groups=2)),
    "depthwise, dilated": ((3, 4, 9, 10), (4, 1, 3, 3), Geometry((3, 3), dilation=(2, 1), groups=4)),
    "strided beyond the kernel": ((1, 2, 9, 9), (3, 2, 2, 1), Geometry((2, 1), (3, 2))),
    "one pixel": ((1, 1, 1, 1), (1, 1, 1, 1), Geometry((1, 1))),
} | {
    mode: ((2, 2, 6, 7), (3, 2, 3, 4), Geometry((3, 4), (2, 1), ((1, 2), (2, 0)), mode, (1, 1)))
    for mode in ("reflect", "symmetric", "replicate", "circular")
}
# Each problem in float32, and one of each kind in the other dtypes: XLA compiles each of them.
TYPED = [(problem, "float32") for problem in PROBLEMS] + [
    (problem, dtype) for problem in ("layer", "grouped, strided", "reflect") for dtype in ("float16", "float64")
]
# Their work is cut in each way that the kernels know.
LARGE = [
    ((2, 3, 40, 70), (9, 3, 3, 3), {"padding": 1}),
    ((1, 1, 300, 260), (1, 1, 7, 5), {"padding": 2, "padding_mode": "reflect"}),
    ((9, 20, 7, 7), (24, 20, 3, 3), {"padding": 1}),
    ((3, 12, 33, 21), (36, 4, 3, 2), {"stride": (2, 3), "padding": (2, 1), "dilation": (2, 1), "groups": 3}),
    ((1, 300, 24, 100), (5, 300, 2, 2), {}),
]


def normal(*shapes, dtype: str = "float32") -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(jnp.dtype(dtype)) for shape in shapes]


def integers(*shapes) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(-4, 5, shape).astype("float32") for shape in shapes]


def options(geometry: Geometry) -> dict:
    return {name: getattr(geometry, name) for name in ("stride", "padding", "padding_mode", "dilation", "groups")}


def correlate(x, k, b=None, **options):
    return convlab.corr2d(x, k, bias=b, reproducible=True, backend="jax", **options)


def slopes(x, k, b, dy, **options):
    """The result and the gradients of X, K and the bias."""
    y, pull = jax.vjp(lambda x, k, b: correlate(x, k, b, **options), x, k, b)
    return y, *pull(dy)


@pytest.mark.parametrize(("problem", "dtype"), TYPED)
def test_the_bits_of_plain_loops(way, problem, dtype) -> None:
    geometry = PROBLEMS[problem][2]
    if way == "operations" and geometry.padding_mode not in ("zeros", "reflect"):
        return  # the random cases of tests/parity/test_reproducible.py have every border
    with jax.enable_x64(dtype == "float64"):
        lowered = jax.jit(lambda *inputs: slopes(*inputs, **options(geometry))).lower(
            *arrays(PROBLEMS[problem], dtype, "normal", 0)
        )
        program = lowered.compile()
        for kind in KINDS:
            x, k, b, dy = arrays(PROBLEMS[problem], dtype, kind, 0)
            found = [bits(np.asarray(each)) for each in program(x, k, b, dy)]
            with np.errstate(all="ignore"):
                expected = [
                    plain_loops.result(x, k, b, geometry),
                    plain_loops.image_gradient(dy, k, x.shape, geometry),
                    plain_loops.kernel_gradient(x, dy, k.shape, geometry),
                    plain_loops.bias_gradient(dy),
                ]
                if kind == "special":
                    # The loops for the gradient of X leave out zeros, which infinities turn into NaN.
                    expected[1] = reproducible_gradients(x, k, dy, **options(geometry)).X
            assert found == [bits(each) for each in expected], kind
    assert lowered.as_text().count(CALL) == (4 if way == "kernels" else 0)


@pytest.mark.parametrize("number", ["1", "2", "7"])
@pytest.mark.parametrize(("x_shape", "k_shape", "options"), LARGE)
def test_the_bits_of_numpy_on_any_number_of_threads(way, monkeypatch, x_shape, k_shape, options, number) -> None:
    monkeypatch.setenv("CONVLAB_NUM_THREADS", number)
    x, k, b = normal(x_shape, k_shape, k_shape[:1])
    y = convlab.corr2d(x, k, bias=b, reproducible=True, **options)
    found = jax.jit(lambda *inputs: slopes(*inputs, **options))(x, k, b, y)
    assert [bits(np.asarray(each)) for each in found] == [
        bits(each) for each in (y, *reproducible_gradients(x, k, y, **options))
    ]


def test_bfloat16_is_rounded_through_float32(way) -> None:
    x, k = normal((2, 3, 9, 20), (4, 3, 3, 3), dtype="bfloat16")
    y = np.asarray(jax.jit(correlate)(x, k))
    wide = plain_loops.result(x.astype("float32"), k.astype("float32"), np.zeros(4, "float32"), Geometry((3, 3)))
    assert bits(y) == bits(wide.astype(jnp.bfloat16))


def test_batches_have_the_bits_of_each(way) -> None:
    x, k, b, dy = normal((3, 2, 4, 8, 9), (3, 6, 2, 3, 2), (3, 6), (3, 2, 6, 6, 8))
    kinds = ((0, None, None, 0), (None, 0, None, 0), (None, None, 0, 0), (0, 0, 0, 0))
    for axes in kinds:
        run = jax.jit(jax.vmap(lambda *inputs: slopes(*inputs, groups=2), axes))
        found = run(*(each if axis == 0 else each[0] for each, axis in zip((x, k, b, dy), axes, strict=True)))
        for i in range(3):
            one = [each[i if axis == 0 else 0] for each, axis in zip((x, k, b, dy), axes, strict=True)]
            y = convlab.corr2d(one[0], one[1], bias=one[2], reproducible=True, groups=2)
            expected = y, *reproducible_gradients(one[0], one[1], one[3], groups=2)
            assert [bits(np.asarray(each[i])) for each in found] == [bits(each) for each in expected]


def test_gradients_of_a_batch(way) -> None:
    """The gradient of vmap, where the tests above have vmap of the gradient."""
    x, k, b, dy = normal((3, 2, 4, 8, 9), (3, 6, 2, 3, 2), (3, 6), (3, 2, 6, 6, 8))
    batch = jax.vmap(lambda x, k, b: correlate(x, k, b, groups=2))
    found = jax.jit(lambda x, k, b, dy: jax.vjp(batch, x, k, b)[1](dy))(x, k, b, dy)
    for i in range(3):
        expected = reproducible_gradients(x[i], k[i], dy[i], groups=2)
        assert [bits(np.asarray(each[i])) for each in found] == [bits(each) for each in expected]


def test_forward_mode(way) -> None:
    """The tangent is the sum of what each input contributes, each rounded once."""
    x, k, b, dx, dk, db = normal(*2 * ((2, 3, 9, 20), (4, 3, 3, 3), (4,)))
    y, tangent = jax.jit(lambda *both: jax.jvp(correlate, both[:3], both[3:]))(x, k, b, dx, dk, db)
    none = np.zeros(4, "float32")
    terms = [plain_loops.result(*pair, none, Geometry((3, 3))) for pair in ((dx, k), (x, dk))]
    assert bits(np.asarray(y)) == bits(plain_loops.result(x, k, b, Geometry((3, 3))))
    assert bits(np.asarray(tangent)) == bits(terms[0] + terms[1] + db[:, None, None])


def test_second_derivatives(way) -> None:
    """The Hessian of the sum of y squared: twice the Gram matrix of the windows; in the bias twice their number."""
    x, k, b = integers((2, 1, 6, 7), (1, 1, 2, 3), (1,))
    windows = sliding_window_view(x[:, 0], (2, 3), (1, 2)).reshape(-1, 6)
    square = lambda k, b: (correlate(x, k, b) ** 2).sum()  # noqa: E731
    for hessian in (jax.hessian, lambda f, which: jax.jacrev(jax.jacrev(f, which), which)):
        in_k, in_b = (jax.jit(hessian(square, which))(k, b) for which in (0, 1))
        np.testing.assert_array_equal(in_k.reshape(6, 6), 2 * windows.T @ windows)
        np.testing.assert_array_equal(in_b, [[2 * len(windows)]])


def test_in_a_loop_and_in_a_branch(way) -> None:
    x, k = normal((2, 1, 8, 9), (1, 1, 3, 3))
    steps = [x]
    for _ in range(3):
        steps.append(convlab.corr2d(steps[-1], k, padding=1, reproducible=True))
    step = lambda x: correlate(x, k, padding=1)  # noqa: E731
    last, seen = jax.jit(lambda x: lax.scan(lambda x, _: (step(x), step(x)), x, None, 3))(x)
    assert bits(np.asarray(last)) == bits(steps[-1])
    assert bits(np.asarray(seen)) == bits(np.stack(steps[1:]))
    chosen = jax.jit(lambda x, yes: lax.cond(yes, step, lambda x: x, x))
    assert bits(np.asarray(chosen(x, True))) == bits(steps[1])


def test_shard_map_on_one_device(way) -> None:
    x, k, b, dy = normal((4, 2, 9, 9), (3, 2, 3, 3), (3,), (4, 3, 7, 7))
    each, alike = P("i"), P()
    run = jax.shard_map(
        slopes, mesh=Mesh(jax.devices(), "i"), in_specs=(each, alike, alike, each), out_specs=(each, each, alike, alike)
    )
    y = convlab.corr2d(x, k, bias=b, reproducible=True)
    expected = [bits(each) for each in (y, *reproducible_gradients(x, k, dy))]
    assert [bits(np.asarray(each)) for each in jax.jit(run)(x, k, b, dy)] == expected


def test_exported_programs_have_xlas_own_operations(way) -> None:
    x, k, b, dy = normal((2, 2, 9, 9), (3, 2, 3, 3), (3,), (2, 3, 7, 7))
    y = convlab.corr2d(x, k, bias=b, reproducible=True)
    exported = jax.export.export(jax.jit(slopes))(x, k, b, dy)
    assert "@convlab" not in exported.mlir_module()
    expected = [bits(each) for each in (y, *reproducible_gradients(x, k, dy))]
    assert [bits(np.asarray(each)) for each in exported.call(x, k, b, dy)] == expected
    images = jax.ShapeDtypeStruct(jax.export.symbolic_shape("n, 2, 9, 9"), jnp.float32)
    any_number = jax.export.export(jax.jit(correlate))(images, k, b)
    assert bits(np.asarray(any_number.call(x, k, b))) == bits(y)


@pytest.mark.parametrize("shape", [(0, 2, 9, 9), (2, 2, 0, 9)])
def test_empty_images(way, shape) -> None:
    x, k, b = normal(shape, (3, 2, 3, 3), (3,))
    run = jax.jit(jax.value_and_grad(lambda x, k, b: correlate(x, k, b, padding=2).sum(), (0, 1, 2)))
    y, (dx, dk, db) = run(x, k, b)
    places = shape[0] * 11 * (2 if shape[2] == 0 else 11)
    np.testing.assert_allclose(y, places * b.sum(), rtol=1e-5)
    assert (dx.shape, dk.shape) == (x.shape, k.shape)
    assert not np.asarray(dk).any()
    np.testing.assert_array_equal(db, np.full(3, places))


def test_eager_gradients_of_numpys_arrays(way) -> None:
    x, k, b, dy = normal((2, 2, 9, 9), (3, 2, 3, 3), (3,), (2, 3, 7, 7))
    expected = [bits(each) for each in reproducible_gradients(x, k, dy)]
    assert [bits(np.asarray(each)) for each in slopes(x, k, b, dy)[1:]] == expected
