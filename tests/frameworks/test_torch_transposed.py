"""`conv_transpose2d` on PyTorch: beside its own, under its compiler, and its derivatives."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

import convlab

torch.manual_seed(0)
Y = torch.randint(-8, 9, (2, 4, 5, 6)).float()
K = torch.randint(-8, 9, (4, 3, 3, 2)).float()
OPTIONS = [
    {},
    {"stride": 2, "padding": 1, "output_padding": 1},
    {"stride": (2, 3), "dilation": (1, 2), "padding": (2, 0)},
]


def test_it_is_pytorchs_own() -> None:
    """The same arguments by the same names."""
    for stride, padding, dilation, groups in itertools.product((1, 2, (3, 2)), (0, 1, (1, 0)), (1, 2), (1, 2)):
        for output_padding in (0, 1):
            options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
            if output_padding and (stride, dilation) == (1, 1):
                continue
            theirs = F.conv_transpose2d(Y, K, torch.arange(3.0 * groups), output_padding=output_padding, **options)
            ours = convlab.conv_transpose2d(
                Y, K, bias=torch.arange(3.0 * groups), output_padding=output_padding, **options
            )
            assert torch.equal(ours, theirs), options


def test_its_layer() -> None:
    layer = torch.nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2)
    ours = convlab.conv_transpose2d(Y, layer.weight, bias=layer.bias, stride=2, padding=1, output_padding=1, groups=2)
    torch.testing.assert_close(ours, layer(Y))


@pytest.mark.parametrize("reproducible", [False, True])
@pytest.mark.parametrize("options", OPTIONS)
def test_compile_in_one_graph_with_gradients(options, reproducible) -> None:
    def function(y, k, b):
        return convlab.conv_transpose2d(y, k, bias=b, **options, reproducible=reproducible)

    torch.compiler.reset()  # more programs of one function than dynamo keeps
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    for y, k, b in ((Y, K, torch.arange(3.0)), (Y[:, :1], K[:1, :1], torch.ones(1))):
        leaves = [t.clone().requires_grad_() for t in (y, k, b)]
        own = [t.clone().requires_grad_() for t in (y, k, b)]
        x, expected = compiled(*leaves), F.conv_transpose2d(*own, **options)
        assert torch.equal(x, expected)
        seeds = torch.randint(-3, 4, x.shape).float()
        x.backward(seeds)
        expected.backward(seeds)
        assert all(torch.equal(a.grad, b.grad) for a, b in zip(leaves, own, strict=True))


def test_compile_with_dynamic_sizes() -> None:
    options = {"stride": 2, "padding": "same"}
    compiled = torch.compile(
        lambda y, k: convlab.conv_transpose2d(y, k, **options), dynamic=True, fullgraph=True, backend="aot_eager"
    )
    for size in (6, 7, 10):
        y = torch.randint(-8, 9, (2, 4, size, size + 1)).float()
        whole = F.conv_transpose2d(y, K, stride=2)
        assert torch.equal(compiled(y, K), whole[:, :, : 2 * size, : 2 * size + 2])


def test_inductor_and_export() -> None:
    assert torch.equal(torch.compile(convlab.conv_transpose2d, fullgraph=True)(Y, K), F.conv_transpose2d(Y, K))

    class Model(torch.nn.Module):
        def forward(self, y):
            return convlab.conv_transpose2d(y, K, stride=2)

    exported = torch.export.export(Model(), (Y,))
    assert torch.equal(exported.module()(Y), F.conv_transpose2d(Y, K, stride=2))


@pytest.mark.parametrize("reproducible", [False, True])
def test_second_derivatives(reproducible) -> None:
    y, k = (t[:, :, :3, :2].double().requires_grad_() for t in (Y / 8, K / 8))
    for options in OPTIONS:
        function = lambda y, k: convlab.conv_transpose2d(y, k, **options, reproducible=reproducible)  # noqa: B023, E731
        assert torch.autograd.gradcheck(function, (y, k))
        assert torch.autograd.gradgradcheck(function, (y, k))


def test_second_derivatives_of_the_planned_image() -> None:
    """Where the gradients are rules of convlab's, which the planner computes."""
    y, k = torch.randn(40, 40).double().requires_grad_(), torch.randn(3, 4).double().requires_grad_()
    x = convlab.conv_transpose2d(y, k)
    (slope,) = torch.autograd.grad((x**2).sum(), k, create_graph=True)
    (ours,) = torch.autograd.grad(slope.sum(), y)
    x = F.conv_transpose2d(y[None, None], k[None, None])
    (slope,) = torch.autograd.grad((x**2).sum(), k, create_graph=True)
    torch.testing.assert_close(ours, torch.autograd.grad(slope.sum(), y)[0])


def test_vmap_and_functional_gradients() -> None:
    images = Y[:, 0]
    by_vmap = torch.vmap(lambda y: convlab.conv_transpose2d(y, K[0, 0]))(images)
    assert torch.equal(by_vmap, F.conv_transpose2d(images[:, None], K[:1, :1])[:, 0])
    gradient = torch.func.grad(lambda k: convlab.conv_transpose2d(images[0], k).sum())(K[0, 0])
    assert torch.equal(gradient, torch.full((3, 2), float(images[0].sum())))
