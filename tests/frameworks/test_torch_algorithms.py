"""Planned calls under torch's own machinery: autograd of any order, compile, func, autocast, devices, export."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import convlab
from convlab.truth.oracle import oracle

X = torch.tensor(np.random.default_rng(0).standard_normal((2, 24, 26)), dtype=torch.float64)
K = torch.tensor(np.random.default_rng(1).standard_normal((5, 4)), dtype=torch.float64)
PLANNED = ["host", "fft", "taps", "phase"]


def native(x: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    return F.conv2d(x[:, None], k[None, None])[:, 0]


@pytest.mark.parametrize("algorithm", PLANNED)
def test_first_and_second_derivatives_by_finite_differences(algorithm) -> None:
    inputs = X[:1, :5, :4].clone().requires_grad_(), K[:2, :2].clone().requires_grad_()
    function = lambda x, k: convlab.corr2d(x, k, algorithm=algorithm)  # noqa: E731
    assert torch.autograd.gradcheck(function, inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("algorithm", PLANNED)
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled_in_one_graph(algorithm, dynamic) -> None:
    torch._dynamo.reset()

    def function(x: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return convlab.corr2d(x * 2, k, algorithm=algorithm, padding=1).tanh()

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for x in (X, X[:1, 3:]):
        x, k = x.clone().requires_grad_(), K.clone().requires_grad_()
        y = compiled(x, k)
        dx, dk = torch.autograd.grad(y.sum(), (x, k))
        expected = torch.tanh(F.conv2d(2 * x[:, None], k[None, None], padding=1)[:, 0])
        torch.testing.assert_close(y, expected)
        torch.testing.assert_close((dx, dk), torch.autograd.grad(expected.sum(), (x, k)))
    torch.testing.assert_close(torch.compile(function, backend="aot_eager")(X, K), function(X, K))


@pytest.mark.parametrize("algorithm", ["auto", "host", "fft"])
def test_functional_transforms(algorithm) -> None:
    function = lambda x, k: convlab.corr2d(x, k, algorithm=algorithm)  # noqa: E731
    torch.testing.assert_close(torch.func.vmap(function, (0, None))(X, K), native(X, K))
    kernels = torch.stack([K, 2 * K])
    torch.testing.assert_close(torch.func.vmap(function, (None, 0))(X[0], kernels)[1], 2 * native(X, K)[0])
    both = torch.func.vmap(torch.func.grad(lambda x, k: function(x, k).square().sum(), argnums=1))(X, kernels)
    wanted = torch.func.grad(lambda k: native(X[1:], k).square().sum())(kernels[1])
    torch.testing.assert_close(both[1], wanted)
    tangents = torch.ones_like(X), torch.ones_like(K)
    _, forward = torch.func.jvp(function, (X, K), tangents)
    torch.testing.assert_close(forward, native(tangents[0], K) + native(X, tangents[1]))
    jacobian = torch.func.jacfwd(lambda k: function(X[0, :8, :8], k).sum())(K)
    torch.testing.assert_close(jacobian, torch.func.jacrev(lambda k: function(X[0, :8, :8], k).sum())(K))


def test_gradients_are_recorded_only_when_asked_for() -> None:
    x, k = torch.randn(300, 300), torch.randn(5, 5)
    layer = torch.nn.Parameter(k.clone())
    for _ in range(3):  # remembered calls too
        assert not convlab.corr2d(x, k).requires_grad
        assert convlab.corr2d(x, layer).requires_grad
        with torch.no_grad():
            assert not convlab.corr2d(x, layer).requires_grad
        with torch.inference_mode():
            assert not convlab.corr2d(x, layer).requires_grad
    assert convlab.plan(x, layer).algorithm == "host"


def test_the_result_owns_its_memory() -> None:
    x, k = torch.randn(300, 300), torch.zeros(3, 3)
    k[1, 1] = 1
    first = convlab.corr2d(x, k)
    kept = first.clone()
    second = convlab.corr2d(x + 1, k)
    second += 5
    assert torch.equal(first, kept)
    assert torch.equal(first, x[1:-1, 1:-1])


def test_autocast_and_tracing_keep_the_frameworks_own_operators() -> None:
    x, k = torch.randn(1, 1, 300, 300), torch.randn(1, 1, 5, 5)
    convlab.corr2d(x, k)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert convlab.corr2d(x, k).dtype == torch.bfloat16
    program = torch.export.export(_Filter(), (x, k))
    assert "convlab" not in str(program.graph)
    torch.testing.assert_close(program.module()(x, k), F.conv2d(x, k))
    with pytest.raises(convlab.errors.UnsupportedError, match="own operators"), torch.autocast("cpu"):
        convlab.corr2d(x, k, algorithm="fft")


class _Filter(torch.nn.Module):
    def forward(self, x: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return convlab.corr2d(x, k)


def test_on_another_device_only_the_framework_computes() -> None:
    x, k = torch.empty(300, 300, device="meta"), torch.empty(5, 5, device="meta")
    assert convlab.plan(x, k).algorithm == "native"
    assert convlab.corr2d(x, k).device.type == "meta"
    with pytest.raises(convlab.errors.MixedDevicesError):
        convlab.corr2d(torch.ones(300, 300), k)


@pytest.mark.parametrize("strided", [lambda x: x.mT, lambda x: x[:, ::2], lambda x: x.flip(0)])
def test_views(strided) -> None:
    x, k = strided(torch.randn(400, 410)), strided(torch.randn(6, 6))
    for algorithm in ("host", "fft", "auto"):
        y = convlab.corr2d(x, k, algorithm=algorithm)
        np.testing.assert_allclose(y.numpy(), oracle(x.numpy(), k.numpy()), atol=1e-4)


def test_views_that_negate_and_other_layouts() -> None:
    """After a call like it has been remembered, too."""
    x, k = torch.randn(300, 300), torch.randn(9, 9)
    negated = torch.imag(torch.randn(300, 300, dtype=torch.complex64).conj())
    convlab.corr2d(x, k)
    np.testing.assert_allclose(
        convlab.corr2d(negated, k).numpy(), oracle(negated.numpy(force=True), k.numpy()), atol=1e-3
    )
    with pytest.raises(RuntimeError, match=r"(?i)sparse"):  # torch's own refusal
        convlab.corr2d(x.to_sparse(), k)
    x.requires_grad_()
    y = convlab.corr2d(x, k)
    seed = torch.imag(torch.randn(y.shape, dtype=torch.complex64).conj())
    expected = torch.autograd.grad(F.conv2d(x[None, None], k[None, None]), x, seed[None, None])
    torch.testing.assert_close(torch.autograd.grad(y, x, seed), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_separated_in_float32(dtype) -> None:
    x, k = torch.rand(92, 92).to(dtype), torch.ones(40, 40).to(dtype)
    y = convlab.corr2d(x, k, stride=2).double().numpy()
    true = oracle(x.double().numpy(), k.double().numpy(), stride=2)
    assert np.abs(y - true).max() <= np.abs(true).max() * torch.finfo(dtype).eps
