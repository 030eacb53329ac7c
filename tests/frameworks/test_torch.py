"""convlab inside PyTorch: autograd, torch.compile, torch.func, modules, optimisers, state dicts."""

from __future__ import annotations

import copy
import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import convlab
from convlab import errors
from convlab import torch as lab
from convlab.testing import error_bound
from convlab.truth.oracle import oracle

torch.manual_seed(0)
X = torch.randn(2, 3, 8, 9)
K = torch.randn(4, 3, 3, 2)


def close(y: torch.Tensor, x: torch.Tensor, k: torch.Tensor, **options) -> bool:
    x, k = x.detach().numpy(), k.detach().numpy()
    return bool((np.abs(y.detach().numpy() - oracle(x, k, **options)) <= error_bound(x, k, **options)).all())


def test_gradcheck_and_second_derivatives() -> None:
    x, k = (t[:, :2, :5, :4].double().requires_grad_() for t in (X, K))
    b = torch.randn(4, dtype=torch.float64, requires_grad=True)
    for options in (
        {},
        {"padding": "same", "padding_mode": "reflect", "stride": 2},
        {"padding": ((1, 0), (2, 1)), "dilation": (2, 1)},
    ):
        assert torch.autograd.gradcheck(lambda x, k, b: convlab.corr2d(x, k, bias=b, **options), (x, k, b))  # noqa: B023
        assert torch.autograd.gradgradcheck(lambda x, k: convlab.corr2d(x, k, **options), (x, k))  # noqa: B023
    image, kernel = x[0, 0].detach().requires_grad_(), k[0, 0].detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, k: convlab.conv2d(x, k), (image, kernel))


@pytest.mark.parametrize("options", [{}, {"padding": "same", "stride": 2}, {"padding": 1, "padding_mode": "circular"}])
def test_compile_in_one_graph(options) -> None:
    compiled = torch.compile(lambda x, k: convlab.corr2d(x, k, **options), fullgraph=True, backend="aot_eager")
    assert close(compiled(X, K), X, K, **options)
    assert close(compiled(X[0, 0], K[0, 0]), X[0, 0], K[0, 0], **options)


def test_compile_the_layer_with_gradients() -> None:
    layer = lab.Conv2D(3, in_channels=3, out_channels=4, padding="same", seed=0)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    compiled(X).square().sum().backward()
    got = layer.weight.grad.clone()
    layer.zero_grad()
    layer(X).square().sum().backward()
    torch.testing.assert_close(got, layer.weight.grad)


def test_the_first_call_of_a_process_is_compiled() -> None:
    """Nothing but the import comes before: finding adapters can't be traced."""
    code = (
        "import torch, convlab\n"
        "compiled = torch.compile(lambda x, k: convlab.corr2d(x, k), fullgraph=True, backend='aot_eager')\n"
        "print(compiled(torch.ones(3, 3), torch.ones(2, 2)).tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[[4.0, 4.0], [4.0, 4.0]]"


def test_compile_with_lists_arrays_and_numbers() -> None:
    image = X[0, 0]
    for kernel in ([[1.0, -1.0]], convlab.chapter.EDGE_KERNEL, np.array([[1, -1]])):
        function = lambda x: convlab.corr2d(x, kernel, bias=0.5)  # noqa: B023, E731
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
        expected = image[:, :-1] - image[:, 1:] + 0.5
        torch.testing.assert_close(compiled(image), expected)
        assert compiled(image.half()).dtype == torch.float16


def test_compile_with_dynamic_sizes() -> None:
    options = {"padding": "same", "stride": 2}
    compiled = torch.compile(
        lambda x, k: convlab.corr2d(x, k, **options), dynamic=True, fullgraph=True, backend="aot_eager"
    )
    for size in (6, 7, 10):
        x = torch.randn(2, 3, size, size + 1)
        assert close(compiled(x, K), x, K, **options)


def test_inductor() -> None:
    assert close(torch.compile(lab.corr2d, fullgraph=True)(X[0, 0], K[0, 0]), X[0, 0], K[0, 0])


def test_export() -> None:
    layer = lab.Conv2D(3, in_channels=3, out_channels=4, padding="same", seed=0)
    exported = torch.export.export(layer, (X,))
    torch.testing.assert_close(exported.module()(X), layer(X))


def test_vmap_and_functional_gradients() -> None:
    images, kernels = X[:, 0], K[:2, 0]
    y = torch.func.vmap(convlab.corr2d)(images, kernels)
    for got, x, k in zip(y, images, kernels, strict=True):
        assert close(got, x, k)
    over_kernels = torch.func.vmap(convlab.corr2d, in_dims=(None, 0))(images[0], kernels)
    torch.testing.assert_close(over_kernels[1], convlab.corr2d(images[0], kernels[1]))
    gradient = torch.func.grad(lambda k: convlab.corr2d(images[0], k).sum())(kernels[0])
    expected = images[0].unfold(0, 6, 1).unfold(1, 8, 1).sum((2, 3))
    torch.testing.assert_close(gradient, expected)
    hessian = torch.func.hessian(lambda k: convlab.corr2d(images[0], k).square().sum())(kernels[0])
    assert hessian.shape == (3, 2, 3, 2)


def test_integers_under_vmap_and_compile() -> None:
    images = torch.arange(24, dtype=torch.uint8).reshape(2, 3, 4)
    expected = images.long()[:, :, :-1] - images.long()[:, :, 1:]
    function = lambda x: convlab.corr2d(x, [[1, -1]])  # noqa: E731
    assert torch.equal(torch.func.vmap(function)(images), expected)
    assert torch.equal(torch.compile(function, fullgraph=True, backend="aot_eager")(images), expected)


def test_strides_and_views_are_no_matter() -> None:
    assert close(convlab.corr2d(X.mT, K), X.mT, K)
    flipped = X.flip(-1)
    assert close(convlab.corr2d(flipped[..., ::2, :], K), flipped[..., ::2, :], K)
    channels_last = X.to(memory_format=torch.channels_last)
    assert close(convlab.corr2d(channels_last, K), X, K)


def test_a_numpy_image_is_copied() -> None:
    image = np.ones((3, 3), "float32")
    tensor = lab.asarray(image)
    image[:] = 0
    assert tensor.sum() == 9


def test_a_kernel_beside_a_tensor_takes_its_dtype() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        y = convlab.corr2d(X[0, 0].to(dtype), convlab.filters.edge(45))
        assert y.dtype == dtype


def test_mixed_devices() -> None:
    with pytest.raises(errors.MixedDevicesError, match="got K on meta, X on cpu"):
        convlab.corr2d(X, K.to("meta"))
    y = convlab.corr2d(X.to("meta"), K.to("meta"))
    assert y.shape == (2, 4, 6, 8)
    assert y.device.type == "meta"


def test_empty_batch() -> None:
    k = K.clone().requires_grad_()
    y = convlab.corr2d(X[:0], k)
    assert y.shape == (0, 4, 6, 8)
    y.sum().backward()
    assert not k.grad.any()
    assert convlab.corr2d(torch.ones(3, 0, 5, 6), torch.ones(2, 2)).shape == (3, 0, 4, 5)


def test_autocast() -> None:
    """As torch's own layer: bfloat16 out, float32 gradients."""
    ours, theirs = lab.Conv2D(3, in_channels=3, out_channels=4), nn.Conv2d(3, 4, 3)
    ours.load_state_dict(theirs.state_dict())
    with torch.autocast("cpu", torch.bfloat16):
        y, expected = ours(X), theirs(X)
    assert y.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(y, expected, rtol=2e-2, atol=2e-2)
    y.sum().backward()
    assert ours.weight.grad.dtype == torch.float32


# The layer.


def test_the_chapters_layer() -> None:
    layer = lab.Conv2D((1, 2))
    assert isinstance(layer, nn.Module)
    assert [(n, tuple(p.shape)) for n, p in layer.named_parameters()] == [("weight", (1, 2)), ("bias", (1,))]
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -1.0]]))
        layer.bias.zero_()
    image = torch.from_numpy(convlab.chapter.edge_image())
    assert layer(image)[0].tolist() == [0, 1, 0, 0, 0, -1, 0]
    # Exercise 3: its gradient by autograd raises nothing.
    layer(image).sum().backward()
    assert layer.weight.grad.tolist() == [[image[:, :-1].sum(), image[:, 1:].sum()]]
    assert layer.bias.grad.tolist() == [42]


def test_seeded_weights_and_repr() -> None:
    layer = lab.Conv2D(3, in_channels=4, out_channels=6, groups=2, seed=7)
    bound = 1 / np.sqrt(18)
    expected = np.random.default_rng(7).uniform(-bound, bound, (6, 2, 3, 3)).astype("float32")
    assert layer.weight.detach().numpy().tobytes() == expected.tobytes()
    assert not layer.bias.any()
    assert repr(layer) == "Conv2D((3, 3), in_channels=4, out_channels=6, groups=2, seed=7)"
    hwio = lab.Conv2D(3, in_channels=4, out_channels=6, groups=2, seed=7, data_format="NHWC")
    assert torch.equal(hwio.weight.permute(3, 2, 0, 1), layer.weight)


def test_lazy_layer_state_dict_and_pickling() -> None:
    layer = lab.Conv2D(3, out_channels=4, stride=2)
    assert layer.has_uninitialized_params()
    y = layer(X)
    assert not layer.has_uninitialized_params()
    assert tuple(layer.weight.shape) == (4, 3, 3, 3)
    twin = lab.Conv2D(3, in_channels=3, out_channels=4, stride=2)
    twin.load_state_dict(layer.state_dict())
    assert torch.equal(twin(X), y)
    fresh = lab.Conv2D(3, out_channels=4, stride=2)  # lazy, loaded before its first use
    fresh.load_state_dict(layer.state_dict())
    assert torch.equal(fresh(X), y)
    again = lab.Conv2D(3, out_channels=4, stride=2, seed=3)  # its shapes known from a state dict alone
    again.load_state_dict(layer.state_dict())
    again.reset_parameters()
    assert torch.equal(again.weight, lab.Conv2D(3, in_channels=3, out_channels=4, seed=3).weight)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(X), y)
    assert torch.equal(copy.deepcopy(layer)(X), y)


def test_training_in_an_ordinary_model() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(
        lab.Conv2D(3, in_channels=1, out_channels=4, padding="same"),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 36, 2),
    )
    images = torch.randn(64, 1, 6, 6)
    labels = (images.mean((1, 2, 3)) > 0).long()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        loss = nn.functional.cross_entropy(model(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4


def test_matches_torchs_own_layer() -> None:
    theirs = nn.Conv2d(3, 4, 3, stride=2, padding=1, padding_mode="reflect", groups=1)
    ours = lab.Conv2D(3, in_channels=3, out_channels=4, stride=2, padding=1, padding_mode="reflect")
    ours.load_state_dict(theirs.state_dict())
    assert close(
        ours(X), X, theirs.weight, bias=theirs.bias.detach().numpy(), stride=2, padding=1, padding_mode="reflect"
    )
    torch.testing.assert_close(ours(X), theirs(X))
