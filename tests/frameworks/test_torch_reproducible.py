"""`reproducible=True` under torch's transforms and compilers: the bits of NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from revealing import OPTIONS, arrays

import convlab
from convlab.testing import reproducible_gradients

pytestmark = pytest.mark.usefixtures("way")


def same(tensor: torch.Tensor, array: np.ndarray) -> bool:
    return tensor.detach().numpy().tobytes() == array.tobytes()


def function(x, k, b):
    return convlab.corr2d(x, k, bias=b, reproducible=True, **OPTIONS)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_with_gradients(backend, dtype) -> None:
    torch.compiler.reset()
    x, k, b, y, dy = arrays(dtype)
    leaves = [torch.from_numpy(each).requires_grad_() for each in (x, k, b)]
    result = torch.compile(function, fullgraph=True, backend=backend)(*leaves)
    assert same(result, y)
    result.backward(torch.from_numpy(dy))
    for leaf, want in zip(leaves, reproducible_gradients(x, k, dy, **OPTIONS), strict=True):
        assert same(leaf.grad, want)


def test_compiled_with_dynamic_sizes() -> None:
    torch.compiler.reset()
    compiled = torch.compile(
        lambda x, k: convlab.corr2d(x, k, padding=1, reproducible=True),
        dynamic=True, fullgraph=True, backend="aot_eager",
    )  # fmt: skip
    for size in (6, 7, 10):
        x, k = arrays()[0][:1, :1, : size - 1], arrays()[1][:1, :1]
        assert same(
            compiled(torch.from_numpy(x), torch.from_numpy(k)), convlab.corr2d(x, k, padding=1, reproducible=True)
        )


def test_vmap_and_functional_gradients() -> None:
    x, k, b, _, dy = arrays()
    images = torch.from_numpy(np.stack([x, x[::-1].copy()]))
    for result, image in zip(
        torch.func.vmap(function, (0, None, None))(images, *map(torch.from_numpy, (k, b))), images, strict=True
    ):
        assert torch.equal(result, function(image, torch.from_numpy(k), torch.from_numpy(b)))
    seed = torch.from_numpy(dy)
    slope = torch.func.grad(lambda k: (function(torch.from_numpy(x), k, torch.from_numpy(b)) * seed).sum())
    assert same(slope(torch.from_numpy(k)), reproducible_gradients(x, k, dy, **OPTIONS).K)


def test_only_what_needs_a_gradient_gets_one() -> None:
    x, k, b, _, dy = map(torch.from_numpy, arrays())
    k.requires_grad_()
    function(x, k, b).backward(dy)
    assert x.grad is None
    assert b.grad is None
    assert k.grad is not None


def test_derivatives_of_any_order() -> None:
    rng = np.random.default_rng(0)
    x, k, b = (torch.from_numpy(rng.standard_normal(s)).requires_grad_() for s in ((1, 2, 5, 4), (2, 1, 2, 2), (2,)))
    assert torch.autograd.gradcheck(function, (x, k, b))
    assert torch.autograd.gradgradcheck(function, (x, k, b))
    slope = lambda x, k, b: torch.autograd.grad(function(x, k, b).square().sum(), k, create_graph=True)[0]  # noqa: E731
    assert torch.autograd.gradgradcheck(slope, (x, k, b))


def test_threads_and_autocast_are_no_matter() -> None:
    x, k, b, y, _ = arrays()
    tensors = [torch.from_numpy(each) for each in (x, k, b)]
    threads = torch.get_num_threads()
    try:
        for count in (1, 3, 7):
            torch.set_num_threads(count)
            assert same(function(*tensors), y)
    finally:
        torch.set_num_threads(threads)
    with torch.autocast("cpu"):
        assert same(function(*tensors), y)


def test_training_a_model() -> None:
    """Adam, a step after another: torch's own arithmetic is elementwise and the same in every run."""
    rng = np.random.default_rng(0)
    x, y = (torch.from_numpy(rng.standard_normal(s).astype("float32")) for s in ((4, 3, 8, 8), (4, 5, 8, 8)))
    trained = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        layer = convlab.Conv2D(3, out_channels=5, padding="same", seed=0, reproducible=True, backend="torch")
        layer(x)
        optimiser = torch.optim.Adam(layer.parameters())
        for _ in range(5):
            optimiser.zero_grad()
            (layer(x) - y).square().sum().backward()
            optimiser.step()
        trained.append(torch.cat([p.detach().flatten() for p in layer.parameters()]))
    assert torch.equal(*trained)


def test_learning_from_images_with_gradients() -> None:
    """They are data to it: no graph grows over the steps."""
    x, k, *_ = arrays(kind="normal")
    y = convlab.corr2d(x[0, 0], k[0, 0])
    expected = convlab.learn_kernel(x[0, 0], y, (3, 2), lr=1e-3, reproducible=True)
    images = torch.from_numpy(x[0, 0]).requires_grad_(), torch.from_numpy(y).requires_grad_()
    learned = convlab.learn_kernel(*images, (3, 2), lr=1e-3, reproducible=True)
    assert same(learned.kernel, expected.kernel)
    assert not learned.kernel.requires_grad
    assert learned.losses == expected.losses


def test_export() -> None:
    x, *_ = arrays()
    layer = convlab.torch.Conv2D(3, in_channels=4, out_channels=2, seed=0, reproducible=True)
    image = torch.from_numpy(x)
    assert torch.equal(torch.export.export(layer, (image,)).module()(image), layer(image))
