"""The conformance suite, and the bits of `reproducible=True`, on a GPU: `nox -s gpu`.

PyTorch's tensors are put on the device CONVLAB_GPU ("cuda" if it isn't set); JAX uses a GPU if it sees one.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

import convlab
from convlab.testing.conformance import Conformance
from convlab.truth.bounds import error_bound, worst_ratio
from convlab.truth.oracle import oracle

DEVICE = os.environ.get("CONVLAB_GPU", "cuda")


@pytest.fixture
def on_gpu(monkeypatch) -> None:
    """What convlab makes of arrays lies on the GPU."""
    ops = convlab.backend("torch").ops
    place = ops.asarray
    monkeypatch.setattr(ops, "asarray", lambda array, dtype, like=None: place(array, dtype, like).to(DEVICE))


@pytest.mark.usefixtures("on_gpu")
class TestTorch(Conformance, backend="torch"):
    pass


class TestJax(Conformance, backend="jax"):
    examples = 5

    def test_jax_has_a_gpu(self) -> None:
        import jax

        assert jax.default_backend() != "cpu"


def tensors(*shapes: tuple[int, ...]) -> tuple[list[np.ndarray], list]:
    """Random arrays of these shapes, and the same as tensors on the GPU."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    return arrays, [torch.tensor(array, device=DEVICE, requires_grad=True) for array in arrays]


LAYERS = [((2, 3, 17, 19), (4, 3, 3, 5), {"padding": 2, "stride": 2}), ((1, 4, 12, 9), (4, 1, 3, 3), {"groups": 4})]


@pytest.mark.parametrize(("image", "kernel", "options"), LAYERS)
def test_the_bits_are_numpys(image, kernel, options) -> None:
    (x, k), (X, K) = tensors(image, kernel)
    ours = convlab.corr2d(X, K, reproducible=True, **options)
    assert ours.device.type == DEVICE.partition(":")[0]
    assert ours.detach().cpu().numpy().tobytes() == convlab.corr2d(x, k, reproducible=True, **options).tobytes()
    ours.backward(ours.detach())
    elsewhere = [torch.tensor(array, requires_grad=True) for array in (x, k)]
    y = convlab.corr2d(*elsewhere, reproducible=True, **options)
    y.backward(y.detach())
    for gpu, cpu in zip((X, K), elsewhere, strict=True):
        assert gpu.grad.cpu().numpy().tobytes() == cpu.grad.numpy().tobytes()


@pytest.mark.parametrize("algorithm", ["auto", "native", "direct", "fft"])
@pytest.mark.parametrize("size", [7, 63])
def test_large_kernels(algorithm, size) -> None:
    (x, k), (X, K) = tensors((200, 210), (size, size))
    y = convlab.corr2d(X, K, algorithm=algorithm).detach().cpu().numpy()
    bound = error_bound(x, k, algorithm="fft" if algorithm != "direct" else "direct")
    assert worst_ratio(y, oracle(x, k), bound) <= 1
