"""convlab inside MXNet: the facade for NumPy, arrays of both kinds, gluon, hybridize, saving, dlpack."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import convlab
from convlab import errors
from convlab import mxnet as lab
from convlab.compiled import tiling
from convlab.testing import error_bound, gradient_bounds, oracle_gradients
from convlab.truth.oracle import oracle

import mxnet as mx  # isort: skip (an ordinary import, after convlab's)
from mxnet import autograd, gluon, npx  # isort: skip

rng = np.random.default_rng(0)
X = mx.np.array(rng.standard_normal((2, 3, 8, 9)), dtype="float32")
K = mx.np.array(rng.standard_normal((4, 3, 3, 2)), dtype="float32")
OPTIONS = [
    {},
    {"padding": "same"},
    {"padding": ((1, 0), (0, 2)), "stride": 2, "dilation": (2, 1)},
    {"padding": ((2, 1), (0, 2)), "padding_mode": "reflect"},
    {"padding": ((2, 1), (0, 2)), "padding_mode": "symmetric"},
    {"padding": 1, "padding_mode": "replicate", "stride": (1, 2)},
    {"padding": "same", "padding_mode": "circular"},
]


def close(y, x, k, **options) -> bool:
    x, k = x.asnumpy(), k.asnumpy()
    return bool((np.abs(y.asnumpy() - oracle(x, k, **options)) <= error_bound(x, k, **options)).all())


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# The facade.


def test_the_chapters_own_numbers() -> None:
    printed = run(
        "from convlab import chapter, corr2d, mxnet as lab\n"
        "X = chapter.edge_image()\n"
        "found = lab.learn_kernel(X, corr2d(X, chapter.EDGE_KERNEL), (1, 2), log_every=2)\n"
        "print(found.kernel)"
    )
    assert printed.splitlines() == [
        "epoch 2, loss 4.949",
        "epoch 4, loss 0.831",
        "epoch 6, loss 0.140",
        "epoch 8, loss 0.024",
        "epoch 10, loss 0.004",
        "[[ 0.9895    -0.9873705]]",
    ]


def test_numpy_and_others_never_see_the_facade() -> None:
    printed = run(
        "import builtins, sys, numpy\n"
        "before, importer = set(dir(numpy)), builtins.__import__\n"
        "from convlab import mxnet as lab\n"
        "from convlab_mxnet import facade\n"
        "import numpy as again, scipy\n"
        "assert again is numpy and sys.modules['numpy'] is numpy and builtins.__import__ is importer\n"
        "new = set(dir(numpy)) - before\n"
        "assert not new & {'PZERO', 'in1d', 'compat', 'trapz'} or hasattr(numpy, 'trapz'), new\n"
        "seen = {name for name, module in sys.modules.items()\n"
        "        if any(value is facade._facade for value in vars(module).values())}\n"
        "assert {name.partition('.')[0] for name in seen} == {'mxnet', 'convlab_mxnet'}, seen\n"
        "print('clean')"
    )
    assert printed == "clean\n"


def test_an_import_that_failed_half_way_is_mended() -> None:
    printed = run(
        "try:\n"
        "    import mxnet\n"
        "except AttributeError:\n"
        "    import sys\n"
        "    assert any(name.startswith('mxnet.') for name in sys.modules)\n"
        "from convlab import mxnet as lab\n"
        "import mxnet, mxnet.contrib.text, mxnet.gluon.contrib\n"
        "print(mxnet.np.ones(2).sum(), lab.ops.version)"
    )
    assert printed == "2.0 1.9.1\n"


def test_ordinary_use_of_mxnet() -> None:
    x = mx.np.array([1.5, 2.5])
    assert mx.np.pad(x, (1, 1), mode="edge").asnumpy().tolist() == [1.5, 1.5, 2.5, 2.5]
    assert (x * np.float32(2)).asnumpy().tolist() == [3, 5]
    assert mx.nd.ones((np.int64(2), 3)).reshape((np.int64(3), -1)).shape == (3, 2)  # NumPy 2 scalars as attributes
    assert mx.np.in1d(x, mx.np.array([1.5])).asnumpy().tolist() == [True, False]
    assert float(mx.np.trapz(x)) == 2.0


def test_saving_and_dlpack(tmp_path) -> None:
    mx.nd.save(str(tmp_path / "x"), {"x": X.as_nd_ndarray()})
    assert (mx.nd.load(str(tmp_path / "x"))["x"].asnumpy() == X.asnumpy()).all()
    with mx.util.np_shape(True), mx.util.np_array(True):
        npx.save(str(tmp_path / "y"), {"x": X})
        assert (npx.load(str(tmp_path / "y"))["x"] == X).all()
    capsule = mx.nd.ones((2, 3)).to_dlpack_for_read()
    assert mx.nd.from_dlpack(capsule).asnumpy().sum() == 6


# corr2d.


@pytest.mark.parametrize("options", OPTIONS)
def test_legacy_arrays_come_back_as_such(options) -> None:
    x, k = X.as_nd_ndarray(), K.as_nd_ndarray()
    y = convlab.corr2d(x, k, **options)
    assert type(y) is mx.nd.NDArray
    assert close(y, x, k, **options)
    k.attach_grad()
    with autograd.record():
        y = convlab.corr2d(x, k, **options).sum()
    y.backward()
    reference = mx.np.array(k.asnumpy())
    reference.attach_grad()
    with autograd.record():
        y = convlab.corr2d(X, reference, **options).sum()
    y.backward()
    assert (k.grad.asnumpy() == reference.grad.asnumpy()).all()


def test_gradient_requests_are_respected() -> None:
    k = K.copy()
    k.attach_grad(grad_req="add")
    for _ in range(2):
        with autograd.record():
            y = convlab.corr2d(X, k).sum()
        y.backward()
    once = lab.ops.vjp(convlab.corr2d, (X, K), mx.np.ones((2, 4, 6, 8)))[1]
    np.testing.assert_allclose(k.grad.asnumpy(), 2 * once.asnumpy(), rtol=1e-5)


def test_mixed_devices() -> None:
    other = mx.np.ones((2, 2), ctx=mx.cpu(1))
    with pytest.raises(errors.MixedDevicesError, match=r"got K on cpu\(1\), X on cpu\(0\)"):
        convlab.corr2d(X, other)
    assert convlab.corr2d(X.as_in_ctx(mx.cpu(1)), other).ctx == mx.cpu(1)


def test_batches_of_a_data_loader() -> None:
    """Its workers leave them in shared memory, which is a context of its own."""
    with mx.util.np_shape(True), mx.util.np_array(True):
        images = gluon.data.ArrayDataset(X.asnumpy())
        batch = next(iter(gluon.data.DataLoader(images, batch_size=2, num_workers=1, thread_pool=True)))
        assert batch.ctx.device_type == "cpu_shared"
        layer = lab.Conv2D(3, in_channels=3, out_channels=2)
        layer.initialize()
        expected = layer(X).asnumpy()
        assert (layer(batch).asnumpy() == expected).all()
        assert convlab.corr2d(batch.astype("float16"), np.ones((2, 2))).dtype == np.float16


def test_kernels_that_the_engine_rearranges() -> None:
    """After a convolution has read its kernel, oneDNN's layout of it takes the kernel's place in memory."""
    kernel = np.random.default_rng(0).standard_normal((64, 64, 3, 3)).astype("float32")
    y, k = mx.nd.ones((1, 64, 64, 64)), mx.nd.array(kernel)
    for weight in [*(mx.nd.array(kernel / 64) for _ in range(8)), k]:
        y = mx.nd.Convolution(y, weight, kernel=(3, 3), pad=(1, 1), num_filter=64, no_bias=True)
    memory, copied = lab.ops.as_host(k), lab.to_numpy(k)  # all that is still going on now
    mx.nd.waitall()
    np.testing.assert_array_equal(memory, kernel)
    np.testing.assert_array_equal(copied, kernel)


@pytest.mark.parametrize("algorithm", ["native", *(["host"] if tiling.numba_installed() else [])])
def test_arrays_in_onednns_layout(algorithm) -> None:
    x, k = (mx.np.array(rng.integers(-2, 3, shape), dtype="float32") for shape in ((1, 64, 9, 8), (64, 64, 3, 3)))
    exact = oracle(x.asnumpy(), k.asnumpy())
    y = mx.npx.convolution(x, k, kernel=(3, 3), num_filter=64, no_bias=True)  # k and y are rearranged now
    assert lab.corr2d(x, k, algorithm=algorithm).asnumpy().tolist() == exact.tolist()
    assert lab.corr2d(y, k, algorithm=algorithm).asnumpy().tolist() == oracle(exact, k.asnumpy()).tolist()


def test_few_output_channels_of_large_kernels() -> None:
    """Where zero channels are added to avoid MXNet's slow path: from 7x7 with fewer than four output channels."""
    for shape, kernel in (
        ((1, 1, 40, 41), (1, 1, 7, 9)),
        ((2, 3, 30, 30), (2, 3, 7, 7)),
        ((3, 1, 64, 64), (3, 1, 8, 8)),
    ):
        x = mx.np.array(rng.standard_normal(shape), dtype="float32")
        k = mx.np.array(rng.standard_normal(kernel), dtype="float32")
        for options in ({}, {"padding": 2, "stride": 2}):
            assert close(convlab.corr2d(x, k, **options), x, k, **options)
            y = convlab.corr2d(x, k, **options)
            dy = mx.np.array(rng.standard_normal(y.shape), dtype="float32")
            slopes = lab.ops.vjp(lambda x, k: convlab.corr2d(x, k, **options), (x, k), dy)  # noqa: B023
            arrays = x.asnumpy(), k.asnumpy(), dy.asnumpy()
            expected = oracle_gradients(*arrays, **options)
            bounds = gradient_bounds(*arrays, "float32", **options)
            for got, want, bound in zip(slopes, expected, bounds, strict=False):
                assert (np.abs(got.asnumpy() - want) <= bound).all()


# Gluon.


class Block(gluon.HybridBlock):
    """A user's block that calls corr2d itself."""

    def __init__(self, shape, **options) -> None:
        super().__init__()
        self.options = options
        with self.name_scope():
            self.weight = self.params.get("weight", shape=shape)

    def hybrid_forward(self, F, x, weight):
        return convlab.corr2d(x, weight, **self.options)


@pytest.mark.parametrize("arrays", ["np", "nd"])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kernel", [(4, 3, 3, 2), (3, 2), (7, 7)])
def test_hybridized_corr2d(options, kernel, arrays) -> None:
    if kernel == (7, 7) and "stride" in options:
        options = {"stride": 2, "padding": 3}
    with mx.util.np_shape(arrays == "np"), mx.util.np_array(arrays == "np"):
        block = Block(kernel, **options)
        block.initialize(mx.init.Normal(1.0))
        x = X if arrays == "np" else X.as_nd_ndarray()
        eager = block(x)
        block.hybridize()
        for image in (x, x[:1]):
            assert close(block(image), image, block.weight.data(), **options)
        with autograd.record():
            y = (block(x) ** 2).sum()
        y.backward()
        gradient = block.weight.grad().asnumpy()
        block.hybridize(active=False)
        with autograd.record():
            y = (block(x) ** 2).sum()
        y.backward()
        np.testing.assert_allclose(gradient, block.weight.grad().asnumpy(), rtol=1e-4, atol=1e-3)
        assert (eager.asnumpy() == block(x).asnumpy()).all()


def test_the_chapters_layer() -> None:
    layer = lab.Conv2D((1, 2))
    assert isinstance(layer, gluon.HybridBlock)
    with mx.util.np_shape(True), mx.util.np_array(True):
        layer.initialize()
        assert {n.split("_")[-1]: p.shape for n, p in layer.collect_params().items()} == {
            "weight": (1, 2),
            "bias": (1,),
        }
        layer.weight.set_data(mx.np.array([[1.0, -1.0]]))
        image = mx.np.array(convlab.chapter.edge_image())
        assert layer(image)[0].asnumpy().tolist() == [0, 1, 0, 0, 0, -1, 0]
        # Exercise 3: its gradient raises nothing.
        with autograd.record():
            y = layer(image).sum()
        y.backward()
        assert layer.weight.grad().asnumpy().tolist() == [[float(image[:, :-1].sum()), float(image[:, 1:].sum())]]
        assert layer.bias.grad().asnumpy().tolist() == [42]


@pytest.mark.parametrize("arrays", ["np", "nd"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": "same", "data_format": "NHWC"},
        {"padding": "same", "padding_mode": "reflect", "data_format": "NHWC"},
        {"groups": 3, "out_channels": 3},
    ],
)
def test_layers_infer_channels_save_and_load(tmp_path, options, arrays) -> None:
    options = {"out_channels": 4, **options}
    with mx.util.np_shape(arrays == "np"), mx.util.np_array(arrays == "np"):
        x = (X if arrays == "np" else X.as_nd_ndarray()).transpose(
            (0, 2, 3, 1) if "data_format" in options else (0, 1, 2, 3)
        )
        net = gluon.nn.HybridSequential()
        net.add(lab.Conv2D(3, **options), gluon.nn.Activation("relu"))
        net.initialize()
        net.hybridize()
        y = net(x)
        layer = net[0]
        bias = layer.bias.data().asnumpy()
        geometry = {key: options[key] for key in options if key != "out_channels"}
        expected = np.maximum(oracle(x.asnumpy(), layer.weight.data().asnumpy(), bias=bias, **geometry), 0)
        np.testing.assert_allclose(y.asnumpy(), expected, rtol=1e-5, atol=1e-5)
        net.save_parameters(str(tmp_path / "net"))
        again = gluon.nn.HybridSequential()
        again.add(lab.Conv2D(3, **options), gluon.nn.Activation("relu"))
        again.load_parameters(str(tmp_path / "net"))
        assert (again(x).asnumpy() == y.asnumpy()).all()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_layers_in_every_dtype(dtype) -> None:
    with mx.util.np_shape(True), mx.util.np_array(True):
        layer = lab.Conv2D(3, out_channels=4, dtype=dtype)
        layer.initialize(mx.init.Uniform(0.5))
        y = layer(X.astype(dtype))
        weight = layer.weight.data()
        assert y.dtype == weight.dtype == np.dtype(dtype)
        assert 0.4 < float(mx.np.abs(weight.astype("float32")).max()) <= 0.5
    message = "got dtype bfloat16, expected integers or one of float16, float32, float64"
    with pytest.raises(errors.DTypeError, match=message):
        lab.Conv2D(3, dtype="bfloat16")


def test_seeded_weights() -> None:
    layer = lab.Conv2D(3, in_channels=4, out_channels=6, groups=2, seed=7)
    layer.initialize(mx.init.Xavier())  # the seed wins
    bound = 1 / np.sqrt(18)
    expected = np.random.default_rng(7).uniform(-bound, bound, (6, 2, 3, 3)).astype("float32")
    assert layer.weight.data().asnumpy().tobytes() == expected.tobytes()


def test_training_in_an_ordinary_model() -> None:
    mx.random.seed(0)
    with mx.util.np_shape(True), mx.util.np_array(True):
        net = gluon.nn.HybridSequential()
        net.add(lab.Conv2D(3, out_channels=4, padding="same"), gluon.nn.Activation("relu"), gluon.nn.Dense(1))
        net.initialize(mx.init.Xavier())
        net.hybridize()
        images = np.random.default_rng(1).standard_normal((64, 1, 6, 6))
        x, labels = mx.np.array(images, dtype="float32"), mx.np.array(images.mean((1, 2, 3)) > 0, dtype="float32")
        trainer = gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 1e-2})
        criterion = gluon.loss.SigmoidBinaryCrossEntropyLoss()
        losses = []
        for _ in range(40):
            with autograd.record():
                loss = criterion(net(x), labels)
            loss.backward()
            trainer.step(64)
            losses.append(float(loss.mean()))
    assert losses[-1] < losses[0] / 4


def test_matches_gluons_own_layer() -> None:
    with mx.util.np_shape(True), mx.util.np_array(True):
        theirs = gluon.nn.Conv2D(4, 3, strides=2, padding=1, in_channels=3)
        theirs.initialize(mx.init.Normal(1.0))
        ours = lab.Conv2D(3, in_channels=3, out_channels=4, stride=2, padding=1)
        ours.initialize()
        ours.weight.set_data(theirs.weight.data())
        np.testing.assert_allclose(ours(X).asnumpy(), theirs(X).asnumpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.xfail(strict=True, raises=mx.MXNetError, reason="MXNet's convolution gradient isn't differentiable")
def test_second_derivatives() -> None:
    assert not lab.adapter.second_derivatives
    k = K.copy()
    k.attach_grad()
    with autograd.record():
        y = (convlab.corr2d(X, k) ** 2).sum()
        gradient = autograd.grad(y, [k], create_graph=True, retain_graph=True)[0]
        gradient.sum().backward()
    k.grad.asnumpy()


def test_a_symbol_without_a_shape_is_named() -> None:
    x, k = mx.sym.var("x").as_np_ndarray(), mx.sym.var("k").as_np_ndarray()
    with pytest.raises(errors.UnsupportedError, match="K: got a symbol of unknown shape"):
        convlab.corr2d(x, k)


def test_importing_mxnet_leaves_openmp_as_many_threads() -> None:
    """Which PyTorch shares: fewer would make it slower, and its sums other ones than in another thread."""
    code = """
        from concurrent.futures import ThreadPoolExecutor
        from convlab import mxnet as lab
        import mxnet
        lab.version
        threads = mxnet.base._LIB.omp_get_max_threads
        with ThreadPoolExecutor(1) as pool:
            print(threads(), pool.submit(threads).result())
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "3"}
    )
    assert done.stdout.split() == ["3", "3"]
