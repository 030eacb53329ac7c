"""Learning from Dask arrays: the sums of chunks are those of the images, and each chunk is read once."""

from __future__ import annotations

from collections import Counter

import dask
import dask.array as da
import numpy as np
import pytest
import zarr

import convlab
from convlab.errors import CheckpointError, DataError, DivergedError, UnsupportedError
from convlab.testing import descent

rng = np.random.default_rng(0)
METHODS = ("autograd", "gram", "lstsq")
# X's shape, the kernel's shape, learn_kernel's options.
PROBLEMS = {
    "image": ((40, 50), (3, 4), {}),
    "images": ((3, 40, 30), (3, 4), {"padding": "same", "padding_mode": "reflect", "use_bias": True}),
    "zeros": ((40, 30), (2, 2), {"padding": ((3, 0), (9, 1)), "stride": (2, 1)}),
    "layer": ((2, 3, 40, 30), (4, 3, 3, 4), {"out_channels": 4, "stride": 2, "padding": 1, "use_bias": True}),
    "one image": ((3, 20, 30), (2, 3, 2, 2), {"out_channels": 2, "dilation": 2}),
    "grouped": (
        (2, 20, 30, 4),
        (3, 2, 2, 4),
        {"out_channels": 4, "groups": 2, "data_format": "NHWC", "padding": "full", "padding_mode": "circular"},
    ),
}


@pytest.fixture(autouse=True)
def one_thread():
    with dask.config.set(scheduler="sync"):
        yield


def planted(name: str, noise: float = 0.0):
    """Images, the kernel and the bias that made Y of X, and the options."""
    shape, kernel, options = PROBLEMS[name]
    x, k = rng.standard_normal(shape), rng.standard_normal(kernel)
    bias = rng.standard_normal(options.get("out_channels", 1)) if options.get("use_bias") else None
    geometry = {key: value for key, value in options.items() if key not in ("use_bias", "out_channels")}
    y = convlab.corr2d(x, k, bias=bias, **geometry)
    return x, y + noise * rng.standard_normal(y.shape), k, bias, options


def size(kernel: np.ndarray, options: dict) -> tuple[int, ...]:
    return kernel.shape[:2] if options.get("data_format") == "NHWC" else kernel.shape[-2:]


def lazy(array: np.ndarray, chunk: int) -> da.Array:
    return da.from_array(array, chunks=chunk)


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_kernel_that_made_the_images_is_found(name) -> None:
    x, y, k, bias, options = planted(name)
    learned = convlab.learn_kernel(lazy(x, 13), lazy(y, 7), size(k, options), method="lstsq", **options)
    assert type(learned.kernel) is np.ndarray
    np.testing.assert_allclose(learned.kernel, k, atol=1e-9)
    if bias is not None:
        np.testing.assert_allclose(learned.bias, bias, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("weighted", ["", "each pixel", "shared"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_chunks_say_what_the_images_say(name, weighted, method) -> None:
    x, y, k, _, options = planted(name, noise=0.1)
    last = options.get("data_format") == "NHWC"
    weights = None
    if weighted:
        shape = y.shape if weighted == "each pixel" else (*y.shape[-3:-1], 1) if last else y.shape[-2:]
        weights = rng.random(shape)
        weights[(slice(None),) * (len(shape) - 2 - last) + (slice(15),)] = 0  # whole chunks that don't count
    arguments = {"method": method, "seed": 0, "num_steps": 4, **options}
    arguments |= {} if method == "lstsq" else {"lr": "auto"}
    expected = convlab.learn_kernel(x, y, size(k, options), weights=weights, **arguments)
    given = lazy(weights, 9) if weighted == "each pixel" else weights
    learned = convlab.learn_kernel(lazy(x, 11), lazy(y, 7), size(k, options), weights=given, **arguments)
    np.testing.assert_allclose(learned.kernel, expected.kernel, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(learned.losses, expected.losses, rtol=1e-7)
    if expected.bias is not None:
        np.testing.assert_allclose(learned.bias, expected.bias, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("method", ["autograd", "gram"])
def test_the_chapters_path(method) -> None:
    x, y, k, _, _ = planted("image")
    x, y = x.astype("float32"), y.astype("float32")
    init = np.zeros(k.shape, "float32")
    path = descent(x, y, init, lr=1e-4, num_steps=20)
    learned = convlab.learn_kernel(lazy(x, 11), lazy(y, 7), k.shape, init=init, lr=1e-4, num_steps=20, method=method)
    assert (np.abs(learned.kernel - path.kernel) <= path.kernel_bound).all()
    assert (np.abs(np.array(learned.losses) - path.losses) <= path.loss_bounds).all()


@pytest.mark.parametrize(("method", "reads"), [("gram", 1), ("autograd", 3)])
def test_how_often_each_chunk_is_read(method, reads) -> None:
    x, y, k, _, _ = planted("image")
    read: Counter = Counter()

    def look(block, block_info):
        read[block_info[0]["chunk-location"]] += 1
        return block

    watched = lazy(x, 10).map_blocks(look, dtype=float, meta=np.empty((0, 0)))
    convlab.learn_kernel(watched, lazy(y, 10), k.shape, method=method, seed=0, num_steps=3, lr=1e-5)
    assert read == {(i, j): reads for i in range(4) for j in range(5)}


def test_any_chunks_have_the_bits_of_one_image() -> None:
    x, y, k, _, _ = planted("image", noise=0.1)
    arguments = {"method": "gram", "reproducible": True, "lr": 1e-4, "num_steps": 20}
    expected = convlab.learn_kernel(x, y, k.shape, **arguments)
    for chunks, scheduler in (((11, 7), "sync"), ((13, 30), "threads")):
        with dask.config.set(scheduler=scheduler):
            learned = convlab.learn_kernel(lazy(x, chunks[0]), lazy(y, chunks[1]), k.shape, **arguments)
        assert learned.losses == expected.losses
        assert learned.kernel.tobytes() == expected.kernel.tobytes()


def test_missing_pixels_in_some_chunk() -> None:
    x, y, k, _, _ = planted("image")
    y[3, 5] = np.nan
    for method in METHODS:
        with pytest.raises(DataError, match="Y: got 1 pixels that are nan"):
            convlab.learn_kernel(lazy(x, 11), lazy(y, 7), k.shape, method=method, seed=0)
    learned = convlab.learn_kernel(lazy(x, 11), lazy(y, 7), k.shape, method="lstsq", weights=np.isfinite(y))
    np.testing.assert_allclose(learned.kernel, k, atol=1e-9)
    with pytest.raises(DataError, match="weights: all are 0"):
        convlab.learn_kernel(lazy(x, 11), lazy(y, 7), k.shape, method="gram", seed=0, weights=np.zeros(y.shape))


def test_what_it_refuses() -> None:
    x, y, k, _, _ = planted("image")
    with pytest.raises(UnsupportedError, match="optimizer: the backend 'dask' has no optimizers"):
        convlab.learn_kernel(lazy(x, 11), lazy(y, 7), k.shape, optimizer=object())
    with pytest.raises(DivergedError, match="the largest stable rate"):
        convlab.learn_kernel(lazy(x, 11), lazy(y, 7), k.shape, seed=0, lr=10.0)


def test_a_run_that_is_interrupted_goes_on(tmp_path) -> None:
    x, y, k, _, _ = planted("image")
    arguments = {"seed": 0, "lr": 1e-4, "num_steps": 6, "checkpoint_every": 2}
    for method in ("gram", "autograd"):

        def stop(step, loss, kernel):
            if step == 3:
                raise KeyboardInterrupt

        path = tmp_path / f"{method}.safetensors"
        whole = convlab.learn_kernel(lazy(x, 11), lazy(y, 7), k.shape, method=method, **arguments)
        with pytest.raises(KeyboardInterrupt):
            convlab.learn_kernel(
                lazy(x, 11), lazy(y, 7), k.shape, method=method, checkpoint=path, callback=stop, **arguments
            )
        again = convlab.learn_kernel(lazy(x, 11), lazy(y, 7), k.shape, method=method, checkpoint=path, **arguments)
        assert again.losses == whole.losses
        assert again.kernel.tobytes() == whole.kernel.tobytes()


def test_a_file_that_has_changed_is_another_image(tmp_path) -> None:
    """Dask's name of its array stays the same."""
    rng = np.random.default_rng(0)
    store = zarr.create_array(store=str(tmp_path / "x.zarr"), shape=(20, 20), chunks=(10, 10), dtype="float64")
    store[:] = rng.standard_normal((20, 20))
    y = da.from_array(rng.standard_normal((18, 18)), chunks=9)
    arguments = {"kernel_size": 3, "method": "gram", "seed": 0, "lr": "auto", "checkpoint": tmp_path / "run"}
    convlab.learn_kernel(da.from_zarr(str(tmp_path / "x.zarr")), y, **arguments)
    convlab.learn_kernel(da.from_zarr(str(tmp_path / "x.zarr")), y, **arguments)
    store[3, 4] = 0.0
    with pytest.raises(CheckpointError, match="begun with other images"):
        convlab.learn_kernel(da.from_zarr(str(tmp_path / "x.zarr")), y, **arguments)
