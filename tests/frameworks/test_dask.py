"""What is special to Dask: chunks and their borders, laziness, the backend inside, schedulers and lost workers."""

from __future__ import annotations

import os
import pickle
import time
from unittest import mock

import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import convlab
from convlab import errors, registry
from convlab.testing import error_bound, random_case, worst_ratio
from convlab.truth.oracle import oracle

SEEDS = st.integers(0, 2**32 - 1)
rng = np.random.default_rng(0)
IMAGE, KERNEL = rng.standard_normal((50, 60)).astype("float32"), rng.standard_normal((5, 4)).astype("float32")


@pytest.fixture(autouse=True)
def one_thread():
    with dask.config.set(scheduler="sync"):
        yield


def chunked(array: np.ndarray, seed: int) -> da.Array:
    """In chunks of random sizes, ragged, some of a single pixel."""
    draw = np.random.default_rng(seed)
    chunks = []
    for n in array.shape:
        cuts = np.flatnonzero(draw.random(max(n - 1, 0)) < draw.choice([0.0, 0.2, 0.5, 1.0])) + 1
        chunks.append(tuple(map(int, np.diff([0, *cuts, n]))))
    return da.from_array(array, chunks=tuple(chunks))


def never(*shape: int, chunks: object = 16, dtype: str = "float32") -> da.Array:
    """An array whose chunks can't be computed."""

    def fail(block: np.ndarray) -> np.ndarray:
        raise AssertionError("computed")

    return da.zeros(shape, chunks=chunks, dtype=dtype).map_blocks(fail, dtype=dtype, meta=np.empty((0,) * len(shape)))


# Values, at the borders of chunks and everywhere.


@settings(max_examples=150)
@given(SEEDS, st.booleans())
def test_integer_valued_data_bit_for_bit(seed, integers) -> None:
    case = random_case(seed, integers=True)
    dtype = np.random.default_rng(seed).choice(["int8", "int32", "int64"] if integers else ["float32", "float64"])
    kernel, bias = (None if each is None else each.astype(dtype) for each in (case.K, case.bias))
    y = convlab.corr2d(chunked(case.X.astype(dtype), seed), kernel, bias=bias, **case.options)
    expected = oracle(case.X, case.K, bias=case.bias, **case.options)
    assert y.dtype == ("int64" if integers else dtype)
    assert y.shape == expected.shape
    array = y.compute()
    assert (array.dtype, array.shape) == (y.dtype, y.shape)
    np.testing.assert_array_equal(array, expected)


@settings(max_examples=100)
@given(SEEDS, st.sampled_from(["float16", "float32", "float64"]))
def test_any_data_within_the_bound(seed, dtype) -> None:
    case = random_case(seed)
    x, k, b = (None if each is None else each.astype(dtype) for each in (case.X, case.K, case.bias))
    y = convlab.corr2d(chunked(x, seed), k, bias=b, **case.options).compute()
    bound = error_bound(x, k, bias=b, dtype=dtype, **case.options)
    assert worst_ratio(y, oracle(x, k, bias=b, **case.options), bound) <= 1


@settings(max_examples=50)
@given(SEEDS)
def test_reproducible_chunks_have_the_bits_of_one_image(seed) -> None:
    case = random_case(seed)
    x, k, b = (None if each is None else each.astype("float32") for each in (case.X, case.K, case.bias))
    y = convlab.corr2d(chunked(x, seed), k, bias=b, reproducible=True, **case.options).compute()
    assert y.tobytes() == convlab.corr2d(x, k, bias=b, reproducible=True, **case.options).tobytes()


@settings(max_examples=40)
@given(SEEDS, st.sampled_from(["zeros", "reflect", "replicate", "circular"]))
def test_padding_beyond_whole_chunks_and_the_image(seed, mode) -> None:
    draw = np.random.default_rng(seed)
    x, k = draw.integers(-9, 10, draw.integers(1, 9, 2)), draw.integers(-9, 10, draw.integers(1, 4, 2))
    pads = tuple(tuple(map(int, each)) for each in draw.integers(2, 20, (2, 2)))
    options = {"padding": pads, "padding_mode": mode, "stride": tuple(map(int, draw.integers(1, 4, 2)))}
    y = convlab.corr2d(chunked(x, seed), k, **options).compute()
    np.testing.assert_array_equal(y, oracle(x, k, **options))


def test_kernels_and_biases_of_every_kind() -> None:
    x, k = da.from_array(IMAGE, chunks=(17, 13)), KERNEL.astype(int)
    expected = oracle(IMAGE, k, bias=2)
    for kernel in (k, k.tolist(), da.from_array(k, chunks=2), k.astype("float32")):
        for bias in (2, [2.0], np.float32(2), da.from_array(np.array([2.0], "float32"))):
            y = convlab.corr2d(x, kernel, bias=bias)
            assert y.dtype == "float32"
            assert worst_ratio(y.compute(), expected, error_bound(IMAGE, k, bias=2)) <= 1
    np.testing.assert_array_equal(convlab.conv2d(x, k).compute(), convlab.corr2d(x, k[::-1, ::-1]).compute())
    y = convlab.corr2d(IMAGE, da.from_array(KERNEL, chunks=3))
    assert isinstance(y, da.Array)
    assert worst_ratio(y.compute(), oracle(IMAGE, KERNEL), error_bound(IMAGE, KERNEL)) <= 1


def test_a_layer() -> None:
    layer = convlab.Conv2D(3, out_channels=4, padding="same", stride=2, seed=0, backend="dask")
    image = rng.integers(-9, 10, (2, 3, 20, 21)).astype("float32")
    layer(da.from_array(image, chunks=5))  # the image tells the number of input channels
    layer.weight, layer.bias = np.round(9 * layer.weight), np.arange(4, dtype="float32")
    y = layer(da.from_array(image, chunks=(1, 2, 8, 8)))
    expected = oracle(image, layer.weight, bias=layer.bias, padding="same", stride=2)
    np.testing.assert_array_equal(y.compute(), expected)
    assert y.chunks == ((1, 1), (4,), (4, 4, 2), (4, 4, 3))


# The lazy result.


def test_nothing_is_computed_before_it_is_asked_for() -> None:
    k = never(3, 3).sum() + np.ones((3, 3), "float32")
    for x, options in (
        (never(50, 60), {}),
        (never(50, 60), {"padding": "full", "padding_mode": "circular", "stride": 3}),
        (never(50, 60, dtype="uint64"), {"algorithm": "fft"}),
        (never(2, 50, 60, chunks=7), {"reproducible": True, "bias": never(1)}),
    ):
        y = convlab.corr2d(x, k, **options)
        assert isinstance(y, da.Array)
        with pytest.raises(AssertionError, match="computed"):
            y.compute()
    assert convlab.plan(never(50, 60), np.ones((3, 3))).reason == "each chunk as it is planned on numpy"


@pytest.mark.parametrize("options", [{}, {"padding": "same", "padding_mode": "circular"}, {"padding": "full"}])
@pytest.mark.parametrize("kernel", [1, 5, 40])
def test_a_task_for_each_chunk_and_one_for_its_halo(kernel, options) -> None:
    x = da.zeros((640, 640), chunks=32, dtype="float32").persist()
    y = dask.optimize(convlab.corr2d(x, np.ones((kernel, kernel), "float32"), **options))[0]
    assert y.numblocks[0] * y.numblocks[1] <= len(y.__dask_graph__()) <= 3 * 22 * 22 + 1


def test_a_part_of_the_result_needs_a_part_of_the_image() -> None:
    chunks = []

    def look(block, block_info):
        chunks.append(block_info[0]["chunk-location"])
        return block

    x = da.zeros((160, 160), chunks=16).map_blocks(look, dtype=float)
    convlab.corr2d(x, np.ones((3, 3)), padding="same")[40:44, 100:104].compute()
    assert set(chunks) <= {(i, j) for i in (1, 2, 3) for j in (5, 6, 7)}


def test_chunks_follow_the_images() -> None:
    x, k = da.zeros((100, 100), chunks=30), np.ones((5, 5))
    for options, expected in (
        ({"padding": "same"}, (30, 30, 30, 10)),
        ({}, (30, 30, 30, 6)),
        ({"padding": "full"}, (30, 30, 30, 14)),
        ({"padding": 20}, (30, 30, 30, 30, 16)),
        ({"padding": "same", "stride": 2}, (15, 15, 15, 5)),
        ({"padding": "same", "stride": 31}, (1, 1, 1, 1)),
        ({"padding": "same", "stride": 70}, (1, 1)),
    ):
        assert convlab.corr2d(x, k, **options).chunks[0] == expected


def test_dtypes_are_known() -> None:
    u8, f16, f32, f64 = (da.ones((4, 4), dtype=dtype) for dtype in ("uint8", "float16", "float32", "float64"))
    for x, k, expected in (
        (u8, u8, "int64"),
        (u8, [[0.5]], "float32"),
        (f16, f32, "float32"),
        (f32, np.ones((1, 1)), "float32"),
        (f32, f64, "float64"),
        (f32, [[1j]], "complex64"),
    ):
        y = convlab.corr2d(x, k)
        assert y.dtype == y.compute().dtype == expected


def test_the_image_keeps_its_dtype_until_a_chunk_is_computed() -> None:
    pixels = rng.integers(0, 256, (64, 64)).astype("uint8")
    y = convlab.corr2d(da.from_array(pixels, chunks=16), [[0.5, 0.5]])
    assert not [key for key in y.__dask_graph__() if "astype" in str(key)]
    np.testing.assert_array_equal(y.compute(), oracle(pixels.astype(float), [[0.5, 0.5]]))


# Errors, at the call where it can know.


def test_errors_are_raised_by_the_call() -> None:
    x, ones = never(50, 60), np.ones((3, 3), "float32")
    unknown = x[da.from_array(np.ones(50, bool), chunks=16)]
    for wrong, options, error, part in (
        (unknown, {}, errors.ShapeError, r"nan.*Hint: call its compute_chunk_sizes\(\)"),
        (x, {"stride": 0}, errors.GeometryError, "stride: got 0"),
        (x, {"padding_mode": "mirrored"}, errors.GeometryError, "padding_mode"),
        (x, {"algorithm": "fastest"}, errors.GeometryError, "algorithm: got 'fastest'"),
        (x, {"algorithm": "fft", "dilation": 2}, errors.UnsupportedError, "algorithm: got 'fft'"),
        (x, {"backend": "theano"}, errors.UnknownBackendError, "got 'theano'"),
        (x, {"bias": [1, 2]}, errors.ShapeError, "bias: got shape"),
        (x.astype("complex64"), {"reproducible": True}, errors.UnsupportedError, "got dtype complex64"),
        (x.astype("M8[s]"), {}, errors.DTypeError, "X: got dtype datetime64"),
        (x[:2], {}, errors.ShapeError, "K: got a kernel of height 3"),
        (x[0], {}, errors.ShapeError, "X: got shape"),
    ):
        with pytest.raises(error, match=part):
            convlab.corr2d(wrong, ones, **options)
    known = da.from_array(IMAGE, chunks=16)[da.from_array(np.arange(50) < 20, chunks=16)].compute_chunk_sizes()
    np.testing.assert_array_equal(convlab.corr2d(known, [[1.0]]).compute(), IMAGE[:20])


def test_integers_beyond_int64_are_told_when_they_are_computed() -> None:
    big = da.from_array(np.array([[2**63, 1]], "uint64"), chunks=1)
    for x, k in ((big, [[1]]), (da.ones((2, 2), dtype=int, chunks=1), big)):
        y = convlab.corr2d(x, k, padding=1)
        with pytest.raises(errors.IntegerOverflowError, match="expected integers below"):
            y.compute()
    small = da.from_array(np.array([[2**62, 2**62]], "uint64"), chunks=1)
    with pytest.raises(errors.IntegerOverflowError, match="got a result of 9223372036854775808"):
        convlab.corr2d(small, [[1, 1]]).compute()


# The backend inside.


def test_another_backend_computes_the_chunks(monkeypatch) -> None:
    x = da.from_array(IMAGE, chunks=20)
    assert registry.inner_backend(None) == registry.inner_backend("dask") == "numpy"
    calls = []
    other = convlab.contract.Adapter("other", "convlab_numpy", ("numpy",), lambda x: False, "1.0", ("float32",))
    monkeypatch.setitem(registry._adapters, "other", other)
    monkeypatch.setitem(registry._loaded, "other", lab := convlab.Backend(other, convlab.backend("numpy").ops))
    monkeypatch.setattr(type(lab.ops), "asarray", lambda ops, array, dtype, like=None: calls.append(1) or array)
    y = convlab.corr2d(x, KERNEL, backend="other")
    with convlab.use_backend("other"):
        same = convlab.corr2d(x, KERNEL)
        default = convlab.dask.corr2d(x, KERNEL)
        with convlab.use_backend("dask"):
            plain = convlab.corr2d(x, KERNEL)
    assert y.name == same.name == default.name != plain.name == convlab.corr2d(x, KERNEL).name
    monkeypatch.setenv("CONVLAB_BACKEND", "other")
    with convlab.use_backend("dask"):
        assert convlab.corr2d(x, KERNEL).name == y.name
    calls.clear()
    y.compute()
    assert calls
    with pytest.raises(errors.DTypeError, match="backend 'other': got dtype float64"):
        convlab.corr2d(x.astype("float64"), KERNEL)


def test_any_backend_computes_the_chunks(lab) -> None:
    options = {"padding": "same", "padding_mode": "reflect", "stride": 2}
    for x, k in ((IMAGE, KERNEL), (IMAGE.astype(np.uint8), KERNEL.astype(int))):
        y = convlab.corr2d(da.from_array(x, chunks=20), k, backend=lab.name, **options).compute(scheduler="threads")
        assert type(y) is np.ndarray
        bound = error_bound(x, k, **options) if x.dtype == "float32" else 0
        assert worst_ratio(y, oracle(x, k, **options), bound) <= 1


@pytest.mark.parametrize("scheduler", ["sync", "threads", "processes"])
def test_schedulers(scheduler) -> None:
    x = da.from_array(IMAGE, chunks=16)
    y = convlab.corr2d(x, KERNEL, padding="same", padding_mode="circular")
    expected = oracle(IMAGE, KERNEL, padding="same", padding_mode="circular")
    bound = error_bound(IMAGE, KERNEL, padding="same", padding_mode="circular")
    assert worst_ratio(y.compute(scheduler=scheduler, num_workers=2), expected, bound) <= 1


def test_a_task_takes_one_thread_beside_others() -> None:
    from convlab.compiled import threads

    counts = da.zeros(2, chunks=1).map_blocks(_threads_within_a_call, dtype=int).compute(scheduler="threads")
    assert set(counts) == {1}
    assert threads.count() == threads.available()


def _threads_within_a_call(block: np.ndarray) -> np.ndarray:
    from convlab.compiled import threads
    from convlab_dask.blocks import one_thread_in_workers

    with one_thread_in_workers():
        return np.full(block.shape, threads.count())


def test_tasks_travel_with_the_name_of_their_backend() -> None:
    y = convlab.corr2d(da.from_array(IMAGE, chunks=16), KERNEL, padding=1)
    again = pickle.loads(pickle.dumps(y))
    np.testing.assert_array_equal(again.compute(), y.compute())


def test_a_worker_that_dies_costs_time_and_nothing_else(tmp_path) -> None:
    """Two processes with little memory; one is killed while it works."""
    from distributed import Client, LocalCluster

    shape, k = (1200, 1100), np.outer([1, 2, 4, 2, 1], [1, -2, 4, -2, 1]).astype("float32")
    image = rng.integers(-9, 10, shape).astype("float32")
    with (
        mock.patch.dict(os.environ),  # in which distributed leaves OMP_NUM_THREADS=1
        dask.config.set({"distributed.scheduler.allowed-failures": 10}),
        LocalCluster(
            n_workers=2, threads_per_worker=1, memory_limit="500MB", dashboard_address=None, local_directory=tmp_path
        ) as cluster,
        Client(cluster) as client,
    ):
        x = da.from_array(image, chunks=100).map_blocks(_slowly, dtype="float32")
        y = client.compute(convlab.corr2d(x, k, padding="same", padding_mode="reflect"))
        pids = client.run(os.getpid)
        while sum(map(len, client.has_what().values())) < 10:
            time.sleep(0.05)
        os.kill(next(iter(pids.values())), 9)
        result = y.result(timeout=120)
    np.testing.assert_array_equal(result, oracle(image, k, padding="same", padding_mode="reflect"))


def _slowly(block: np.ndarray) -> np.ndarray:
    time.sleep(0.03)
    return block
