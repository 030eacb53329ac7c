"""JAX's programs on a CPU call the compiled kernels: under every transformation, in threads, with any values."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

import convlab
from convlab.contract.call import Variant
from convlab.planning import choose
from convlab.planning.caches import forget_costs
from convlab.testing import error_bound, oracle_gradients, worst_ratio
from convlab.truth.bounds import gradient_bounds
from convlab.truth.oracle import oracle
from convlab_jax import ffi, handler

CALL = "custom_call @convlab"
PROBLEMS = {
    "image": ((70, 61), (5, 4), {}),
    "reflected": ((3, 40, 37), (7, 6), {"padding": ((3, 1), (0, 2)), "padding_mode": "reflect"}),
    "strided": ((64, 53), (4, 3), {"stride": (2, 3), "padding": 1}),
    "dilated": ((40, 43), (3, 3), {"dilation": (2, 1), "padding": "same", "padding_mode": "circular"}),
    "layer": ((2, 3, 31, 32), (4, 3, 3, 3), {"padding": 1}),
    "grouped": ((2, 4, 31, 32), (6, 2, 3, 4), {"groups": 2, "stride": 2, "padding": (1, 0)}),
    "depthwise": ((2, 4, 31, 32), (4, 1, 3, 5), {"groups": 4, "padding": "same"}),
    "channels last": ((2, 31, 32, 3), (3, 3, 3, 4), {"data_format": "NHWC", "padding": 1}),
    "one pixel": ((1, 1), (1, 1), {}),
}
# The FFT has neither strides nor dilation.
CASES = [(name, algorithm) for name in PROBLEMS for algorithm in ("host", "fft")]
CASES = [case for case in CASES if case[1] == "host" or case[0] not in ("strided", "dilated", "grouped")]
# Each case in float32, and an image and a layer in the other dtypes: XLA compiles each of them.
TYPED = [(*case, "float32") for case in CASES] + [
    (*case, dtype) for case in CASES if case[0] in ("image", "layer") for dtype in ("float16", "bfloat16", "float64")
]


@pytest.fixture(autouse=True)
def compiled_fft(monkeypatch):
    """The algorithm "fft" is the compiled one, whatever the table of costs says."""
    monkeypatch.setitem(choose.VARIANTS, "fft", (Variant.FFT_ON_HOST,))
    forget_costs()
    yield
    forget_costs()


# The bits with the first number of threads that is tried.
DIGESTS: dict[str, str] = {}


def normal(shape, dtype="float32", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(jnp.dtype(dtype))


def integers(shape, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-9, 10, shape).astype(np.float32)


def by(algorithm: str, **options):
    return lambda x, k: convlab.corr2d(x, k, algorithm=algorithm, **options)


def native(x, k):
    return lax.conv_general_dilated(x[None, None], k[None, None], (1, 1), "VALID", precision="highest")[0, 0]


def assert_close(tree, expected) -> None:
    for leaf, wanted in zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(leaf, wanted, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize(("problem", "algorithm", "dtype"), TYPED)
def test_results(problem, algorithm, dtype) -> None:
    shape, kernel, options = PROBLEMS[problem]
    x, k = normal(shape, dtype), normal(kernel, dtype, 1)
    with jax.enable_x64(dtype == "float64"):
        program = jax.jit(by(algorithm, **options)).lower(x, k)
        y = np.asarray(program.compile()(x, k))
    assert CALL in program.as_text()
    assert y.dtype == x.dtype
    bound = error_bound(x, k, algorithm="fft" if algorithm == "fft" else "direct", **options)
    assert worst_ratio(y, oracle(x, k, **options), bound) <= 1


@pytest.mark.parametrize(
    ("problem", "algorithm", "dtype"), [case for case in TYPED if case[2] in ("float32", "float64")]
)
def test_gradients(problem, algorithm, dtype) -> None:
    shape, kernel, options = PROBLEMS[problem]
    x, k = normal(shape, dtype), normal(kernel, dtype, 1)
    dy = normal(oracle(x, k, **options).shape, dtype, 2)
    with jax.enable_x64(dtype == "float64"):
        slopes = jax.jit(jax.grad(lambda x, k: (by(algorithm, **options)(x, k) * dy).sum(), (0, 1)))
        computed = slopes(x, k)
        assert slopes.lower(x, k).as_text().count(CALL) == 2
    true, bounds = oracle_gradients(x, k, dy, **options), gradient_bounds(x, k, dy, dtype, **options)
    for slope, exact, bound, other in zip(computed, true, bounds, (k, x), strict=False):
        slack = (1e-4 if dtype == "float32" else 1e-12) * np.linalg.norm(dy) * np.linalg.norm(other)
        assert worst_ratio(np.asarray(slope), exact, bound + slack * (algorithm == "fft")) <= 1


@pytest.mark.parametrize("algorithm", ["host", "fft"])
def test_derivatives(algorithm) -> None:
    x, k = normal((12, 13)), normal((5, 4), seed=1)
    loss = lambda f: lambda x, k: jnp.tanh(f(x, k)).sum()  # noqa: E731
    ours, own = loss(by(algorithm)), loss(native)
    tangents = normal(x.shape, seed=2), normal(k.shape, seed=3)
    assert_close(jax.grad(ours, (0, 1))(x, k), jax.grad(own, (0, 1))(x, k))
    assert_close(jax.jit(lambda *a: jax.jvp(ours, *a))((x, k), tangents), jax.jvp(own, (x, k), tangents))
    for second in (jax.hessian, lambda f: jax.jacrev(jax.jacfwd(f))):
        assert_close(jax.jit(second(lambda k: ours(x, k)))(k), jax.hessian(lambda k: own(x, k))(k))
    assert_close(jax.jit(jax.hessian(lambda x: ours(x, k)))(x), jax.hessian(lambda x: own(x, k))(x))


@pytest.mark.parametrize("algorithm", ["host", "fft"])
def test_batches(algorithm) -> None:
    x, k = normal((3, 12, 13)), normal((3, 5, 4), seed=1)
    each = lambda f: jnp.stack([f(*pair) for pair in zip(x, k, strict=True)])  # noqa: E731
    assert_close(jax.jit(jax.vmap(by(algorithm)))(x, k), each(native))
    assert_close(jax.jit(jax.vmap(by(algorithm), (None, 0)))(x[0], k), jnp.stack([native(x[0], one) for one in k]))
    slope = lambda f: jax.grad(lambda x, k: jnp.tanh(f(x, k)).sum(), 1)  # noqa: E731
    assert_close(jax.jit(jax.vmap(slope(by(algorithm))))(x, k), each(slope(native)))


@pytest.mark.parametrize("algorithm", ["host", "fft"])
def test_control_flow(algorithm) -> None:
    x, k = integers((9, 11)), integers((3, 3), 1)
    options = {"padding": "same"}
    blur = lambda x: by(algorithm, **options)(x, k) / 64  # noqa: E731
    once = oracle(x, k, **options) / 64
    twice = oracle(once.astype(np.float32), k, **options) / 64
    close = {"rtol": 1e-4, "atol": 1e-3}
    scanned = jax.jit(lambda x: lax.scan(lambda x, _: (blur(x), blur(x).sum()), x, None, 2))(x)
    np.testing.assert_allclose(scanned[0], twice, **close)
    np.testing.assert_allclose(scanned[1], [once.sum(), twice.sum()], rtol=1e-3, atol=1e-2)
    looped = jax.jit(lambda x, n: lax.while_loop(lambda s: s[0] < n, lambda s: (s[0] + 1, blur(s[1])), (0, x)))
    np.testing.assert_allclose(looped(x, 2)[1], twice, **close)
    chosen = jax.jit(lambda x, yes: lax.cond(yes, blur, lambda x: x, x))
    np.testing.assert_allclose(chosen(x, True), once, **close)
    np.testing.assert_array_equal(chosen(x, False), x)


def test_donated_buffers() -> None:
    x, k = integers((64, 64)), integers((3, 3), 1)
    run = jax.jit(by("host", padding="same"), donate_argnums=0)
    for _ in range(3):
        np.testing.assert_array_equal(run(jnp.asarray(x), k), oracle(x, k, padding="same"))


def test_shard_map_on_one_device() -> None:
    x, k = integers((4, 30, 30)), integers((12, 12), 1)
    run = jax.shard_map(
        lambda x, k: lax.psum(by("host")(x, k), "i"),
        mesh=Mesh(jax.devices(), "i"),
        in_specs=(P("i"), P()),
        out_specs=P(),
    )
    np.testing.assert_array_equal(jax.jit(run)(x, k), oracle(x, k))


def test_exported_programs_have_xlas_own_operations() -> None:
    x, k = integers((200, 180)), integers((31, 31), 1)
    run = jax.jit(convlab.corr2d)
    assert CALL in run.lower(x, k).as_text()
    for platforms in (None, ("cpu", "cuda")):
        exported = jax.export.export(run, platforms=platforms)(x, k)
        assert "@convlab" not in exported.mlir_module()
        np.testing.assert_allclose(exported.call(x, k), oracle(x, k), rtol=1e-6)
    with pytest.raises(convlab.errors.UnsupportedError, match="algorithm: got 'host'"):
        jax.export.export(jax.jit(by("host")))(x, k)


def test_integers_are_exact() -> None:
    x, k, dy = integers((200, 180)), integers((31, 31), 1), integers((170, 150), 2)
    assert convlab.plan(jnp.asarray(x + 0.5), jnp.asarray(k)).algorithm == "fft"
    run = jax.jit(jax.value_and_grad(lambda x, k: (convlab.corr2d(x, k) * dy).sum(), (0, 1)))
    true = oracle_gradients(x, k, dy)
    np.testing.assert_array_equal(jax.jit(convlab.corr2d)(x, k), oracle(x, k))
    for slope, exact in zip(run(x, k)[1], true, strict=False):
        np.testing.assert_array_equal(slope, exact)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("algorithm", ["host", "fft", "auto"])
def test_what_is_not_finite_stays_in_its_place(algorithm, value) -> None:
    x, k = normal((90, 80)), normal((31, 31), seed=1)
    x[50, 31] = value
    y = np.asarray(jax.jit(by(algorithm))(x, k))
    touched = np.zeros(y.shape, bool)
    touched[20:51, 1:32] = True
    expected = oracle(x, k)
    np.testing.assert_array_equal(np.isfinite(y), ~touched)
    np.testing.assert_array_equal(y[touched], expected[touched].astype(np.float32))
    x[50, 31], x[5, 3] = 0, value
    slope = np.asarray(jax.jit(jax.grad(lambda k: by(algorithm)(x, k).sum()))(k))
    touched = np.zeros(k.shape, bool)
    touched[:6, :4] = True
    np.testing.assert_array_equal(np.isfinite(slope), ~touched)


@pytest.mark.parametrize("shape", [(0, 9, 9), (2, 9, 9)])
def test_empty_images(shape) -> None:
    x, k = np.zeros(shape, np.float32), np.zeros((3, 3), np.float32)
    y = jax.jit(lambda x, k: convlab.corr2d(x[:, :0] if len(x) else x, k, padding=2))(x, k)
    assert y.shape == (shape[0], 2 if shape[0] else 11, 11)
    assert not np.asarray(y).any()


@pytest.mark.parametrize("number", ["1", "2", "7"])
def test_bits_do_not_depend_on_the_number_of_threads(monkeypatch, number) -> None:
    monkeypatch.setenv("CONVLAB_NUM_THREADS", number)
    x, k = normal((4, 2, 300, 310)), normal((3, 2, 9, 9), seed=1)
    dy = normal((4, 3, 292, 302), seed=2)
    for algorithm in ("host", "fft"):
        run = by(algorithm)
        runs = run, jax.grad(lambda x, k, run=run: (run(x, k) * dy).sum(), 1)
        bits = [np.asarray(jax.jit(run)(x, k)).tobytes() for run in runs]
        digest = hashlib.sha256(b"".join(bits)).hexdigest()
        assert DIGESTS.setdefault(algorithm, digest) == digest


@pytest.mark.parametrize("size", [40, 900])
def test_eager_calls_while_the_number_of_threads_changes(monkeypatch, size) -> None:
    """The same call again: a small image is computed by one thread, and a large one has a program for each number."""
    x, k = jnp.asarray(integers((size, size))), jnp.asarray(integers((3, 3), 1))
    for number in ("2", "1", "7", "2"):
        monkeypatch.setenv("CONVLAB_NUM_THREADS", number)
        np.testing.assert_array_equal(convlab.corr2d(x, k, algorithm="host"), oracle(x, k))


def test_several_threads_at_once() -> None:
    x, k = integers((300, 310)), integers((7, 7), 1)
    run, true = jax.jit(by("host")), oracle(x, k)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda n: np.asarray(run(n * x, k)), range(64)))
    for n, y in enumerate(results):
        np.testing.assert_array_equal(y, n * true)


def test_the_interpreters_lock_is_not_taken() -> None:
    """A thread runs the handler while this one keeps the lock until that has ended."""
    code = """
import ctypes, numpy as np
from convlab.compiled import stages
from convlab.geometry.geometry import Geometry
from convlab_jax import handler

def list_of(*structs):
    return np.array([struct.ctypes.data for struct in structs])

x, k, y, space = np.ones((1, 1, 90, 80), "f"), np.full((1, 1, 3, 3), 2, "f"), np.zeros((1, 1, 88, 78), "f"), np.zeros(0)
program = stages.correlation_program(x.shape, k.shape, Geometry((3, 3)), "float32", "direct", False)
handler.registered()
handler.prepare(program, "float32")
numbers = np.concatenate([[1], program.numbers])
attribute = np.zeros(1, handler._ARRAY_STRUCT)
attribute["data"] = numbers.ctypes.data
buffers = [np.zeros(1, handler._BUFFER_STRUCT) for _ in range(4)]
for buffer, array in zip(buffers, (x, k, y, space)):
    buffer["dtype"], buffer["data"] = 11, array.ctypes.data
lists = list_of(*buffers[:2]), list_of(*buffers[2:]), list_of(attribute)
frame = np.zeros(1, handler._FRAME_STRUCT)
frame["stage"] = 3
for name, values in zip(("arguments", "results", "attributes"), lists):
    frame[name]["count"], frame[name]["values"] = len(values), values.ctypes.data
keeping_the_lock, thread = ctypes.PyDLL(None), ctypes.c_ulong()
start = ctypes.c_void_p(handler._c_functions()[1].address)
keeping_the_lock.pthread_create(ctypes.byref(thread), None, start, ctypes.c_void_p(frame.ctypes.data))
keeping_the_lock.pthread_join(thread, None)
print(y.min(), y.max())
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=500)
    assert done.stdout.split() == ["18.0", "18.0"]


def test_a_fork_before() -> None:
    """A child process finds threads of its own."""
    code = """
import os, numpy as np, convlab
x, k = np.ones((400, 400), "float32"), np.ones((7, 7), "float32")
convlab.corr2d(x, k, algorithm="host")
child = os.fork()
import jax
y = jax.jit(lambda x, k: convlab.corr2d(x, k, algorithm="host"))(x, k)
assert (np.asarray(y) == 49).all()
assert not child or os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_plans() -> None:
    plans = []
    x, k = jnp.asarray(normal((512, 512))), jnp.asarray(normal((31, 31)))
    jax.jit(lambda x, k: plans.append(convlab.plan(x, k)))(x, k)
    assert plans[0].algorithm == "fft"
    assert "fft@host" in plans[0].seconds
    assert plans[0].refused["separable@host"] == "only for kernels with values"


def test_where_xla_has_another_interface(monkeypatch) -> None:
    def refuse() -> str:
        raise ValueError("another interface")

    monkeypatch.setattr(handler, "registered", refuse)
    ffi.calls.cache_clear()
    x, k = integers((200, 180)), integers((31, 31), 1)
    run = jax.jit(lambda x, k: convlab.corr2d(x, k))
    with pytest.warns(RuntimeWarning, match="XLA can't call the compiled kernels: another interface"):
        program = run.lower(x, k)
    ffi.calls.cache_clear()
    assert "@convlab" not in program.as_text()
    np.testing.assert_array_equal(program.compile()(x, k), oracle(x, k))


def test_a_program_of_another_process_is_refused() -> None:
    x, k = integers((40, 40)), integers((3, 3), 1)
    program, there = jax.jit(by("host")).lower(x, k).compile(), handler._addresses.copy()
    handler._addresses[handler._STAGES :] = 0
    try:
        with pytest.raises(jax.errors.JaxRuntimeError, match=r"convlab: .* another process .* Hint: jit"):
            program(x, k).block_until_ready()
    finally:
        handler._addresses[:] = there
    np.testing.assert_array_equal(program(x, k), oracle(x, k))
