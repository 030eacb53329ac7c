"""What users write between layers, composed of what convlab knows: pools of sizes, slices, statistics, gates, parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from making import run
from sources import check
from torch import nn
from torch.nn import functional as F

from convlab import port
from convlab.errors import PartialPortWarning
from convlab.models.adapters import read

X = np.random.default_rng(0).normal(size=(2, 3, 8, 12)).astype("float32")


class Code(nn.Module):
    """A convolution, and code behind it that uses layers and parameters of these names."""

    def __init__(self, code, *names) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.code, self.conv = code, nn.Conv2d(3, 4, 1)
        layers = {"one": nn.Conv2d(4, 4, 1), "two": nn.Conv2d(4, 4, 3, padding=1), "narrow": nn.Conv2d(2, 1, 1)}
        layers |= {"dense": nn.Linear(4, 4), "relu": nn.ReLU(inplace=True), "inner": nn.Conv2d(4, 4, 3)}
        layers |= {name: nn.Linear(4, 4) for name in ("dense2", "dense3", "dense4")}
        layers |= {name: nn.Conv2d(4, 4, 1) for name in ("three", "four")}
        layers |= {"power": nn.Parameter(torch.full((1,), 2.5)), "of_pixel": nn.LayerNorm([4, 1, 1])}
        layers |= {"down": nn.Conv2d(4, 4, 3, stride=2, padding=1)}
        layers |= {name: nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1) for name in ("up", "up_again")}
        layers |= {"mask": nn.Conv2d(4, 1, 1), "among_pixels": nn.Softmax(dim=2)}
        layers |= {"among_branches": nn.Softmax(dim=0), "among_parts": nn.Softmax(dim=1)}
        for name in names:
            setattr(self, name, layers[name] if name in layers else nn.Parameter(torch.rand(4)))

    def forward(self, x):
        return self.code(self, self.conv(x))


def gates(net, x):
    """The channel gate of CBAM as its authors wrote it, and its spatial gate; arXiv:1807.06521."""
    size = x.size(2), x.size(3)
    pools = F.avg_pool2d(x, size, stride=size), F.max_pool2d(x, size, stride=(x.size(2), x.size(3)))
    shares = sum(net.dense(pool.view(pool.size(0), -1)) for pool in pools)
    x = x * torch.sigmoid(shares).unsqueeze(2).unsqueeze(3).expand_as(x)
    described = torch.cat((torch.max(x, 1)[0].unsqueeze(1), torch.mean(x, 1).unsqueeze(1)), dim=1)
    return x * torch.sigmoid(net.narrow(described))


def statistics(net, x):
    """Normalisations by hand and by functions without arrays; the mean of powers, arXiv:1711.02512."""
    mean = x.mean(1, keepdim=True)
    y = (x - mean) / torch.sqrt((x - mean).pow(2).mean(1, keepdim=True) + 1e-6)
    y = net.weight[:, None, None] * y + net.bias[:, None, None]  # ConvNeXt's norm of channels
    spread, centre = torch.var_mean(x, dim=(2, 3), keepdim=True, unbiased=False)
    y = y + (x - centre) * torch.rsqrt(spread + 1e-5) + x / (x.std((2, 3), keepdim=True) + 1)
    y = y + x.var(1, keepdim=True) + x.mean(3, keepdim=True).mean(2, keepdim=True)
    powers = F.avg_pool2d(x.clamp(min=1e-3).pow(3), (x.size(-2), x.size(-1))).pow(1 / 3)
    powers = powers + x.clamp(min=1e-3).pow(net.power).mean((2, 3), keepdim=True).pow(1 / 2.5)
    powers = net.of_pixel(powers) + net.dense(powers.reshape(len(x), -1))[:, :, None, None]
    y = y + F.instance_norm(x) + F.group_norm(x, 2, eps=1e-3)
    y = y + F.layer_norm(x.movedim(1, -1), (x.shape[1],)).movedim(-1, 1)
    y = y * powers + torch.logsumexp(x, dim=(2, 3), keepdim=True) + torch.logsumexp(x, 1, keepdim=True)
    return y * F.cosine_similarity(x, net.one(x), dim=1).unsqueeze(1)


def functions(net, x):
    """Functions of numbers, and of two tensors."""
    y, above = net.one(x), x.abs() + 1
    z = torch.maximum(x, y) + torch.min(x, y) - torch.stack([x, y, net.two(x)]).max(dim=0)[0]
    z = (
        z
        + torch.where(x > 0, x, 0.1 * x)
        + torch.where(y >= 0, y, torch.zeros_like(y))
        + torch.amin(torch.stack([x, y], 1), 1)
    )
    z = z + x * (x > 0) + (y >= 0.5).float() * y + x * (x < 0) + torch.lerp(x, y, 0.75) + torch.lerp(x, y, above)
    z = z + x.masked_fill(x < 0, 0.0) + x.masked_fill(x > 0.25, 0.25) + torch.masked_fill(y, y <= 0.5, 0)
    z = z + above**0.5 + above.pow(-0.5) + 2 / above + torch.reciprocal(above) + torch.log(above) + x**3 + above**-2
    return torch.cat([F.glu(z, 1), F.logsigmoid(z), F.softsign(z), z.mean(1, keepdim=True).repeat(1, 2, 1, 1)], 1)


def slices(net, x):
    """Parts of images and of channels, and what is as large as other images."""
    smaller = net.inner(x)
    top, left = (x.shape[2] - smaller.shape[2]) // 2, (x.shape[3] - smaller.shape[3]) // 2
    y = smaller + x[:, :, top : top + smaller.shape[2], left : left + smaller.shape[3]] + x[..., 1:-1, 1:-1]
    y = y + x[:, :, : smaller.shape[2], : smaller.shape[3]]
    half = x.shape[1] // 2
    z = torch.mul(*torch.chunk(x, 2, 1)) + x[:, :half] * x[:, half:] + x.narrow(1, 0, 2) + x[:, -2:] * x[:, :-2]
    z = (
        z * x[:, 0].unsqueeze(1)
        + x[:, 1, None]
        + torch.cat([part.relu() for part in torch.split(x, [1, 1, 2], 1)][:2], 1)
    )
    even = x[:, :, : x.shape[2] // 2 * 2]
    shuffled = x.view(x.shape[0], 2, 2, *x.shape[2:]).permute(0, 2, 1, 3, 4).reshape(x.shape)
    return y, torch.cat([z, even, shuffled, x[:, [2, 0, 1]]], 1)


def shares(net, x):
    """Branches that are weighed by shares of each channel, in three spellings; arXiv:1903.06586."""
    branches, n = [net.one(x), net.two(x)], x.shape[0]
    rows = sum(branches).mean(-1).mean(-1)
    weights = torch.softmax(torch.stack([net.dense(rows), net.dense2(rows)], 1), 1)
    y = (torch.stack(branches, 1) * weights.unsqueeze(-1).unsqueeze(-1)).sum(1)
    weights = torch.stack([layer(rows).view(n, 4, 1, 1) for layer in (net.dense3, net.dense4)])
    y = y + (net.among_branches(weights) * torch.stack(branches, 0)).sum(0)
    parts = torch.cat(branches, 1).view(n, 2, 4, x.shape[2], x.shape[3])
    weights = torch.cat([layer(rows).unsqueeze(dim=1) for layer in (net.dense, net.dense4)], 1).softmax(1)
    y = y + (torch.cat([each.unsqueeze(1) for each in branches], 1) * weights[..., None, None]).sum(1)
    weights = torch.cat([layer(rows[:, :, None, None]) for layer in (net.three, net.four)], 1).view(n, 2, 4, 1, 1)
    return y + torch.sum(parts * net.among_parts(weights), dim=1)


def merged_pixels(net, x):
    """A context that a softmax over pixels weighs, arXiv:1904.11492, the log of sums of pixels, and statistics."""
    n, c, rows, columns = x.shape
    weights = net.among_pixels(net.mask(x).view(n, 1, rows * columns)).unsqueeze(-1)
    x = x + net.one(torch.matmul(x.view(n, c, rows * columns).unsqueeze(1), weights).view(n, c, 1, 1))
    flat = x.view(n, c, -1)
    greatest, _ = torch.max(flat, dim=2, keepdim=True)
    logs = greatest + (flat - greatest).exp().sum(dim=2, keepdim=True).log()
    spread = (flat.var(dim=2) + 1e-5).sqrt().view(n, c, 1, 1)
    x = (
        (x - flat.mean(dim=2).view(n, c, 1, 1))
        / spread
        * net.dense(logs.view(logs.size(0), -1)).unsqueeze(2).unsqueeze(3)
    )
    return x * torch.softmax(net.two(x).flatten(2), -1).view(x.shape)


def in_place(net, x):
    """What is changed in its place is so wherever it is taken later."""
    y = net.one(x)
    z = net.two(y)
    z.sigmoid_()
    other = y
    y += net.two(x)
    halves = z.chunk(2, 1)
    first = net.relu(halves[0] - 0.5)
    first *= 2
    return net.relu(y) + y * z + torch.cat([first, halves[1]], 1) + other


def casts(net, x):
    """Casts to the dtype that all numbers have, and functions that work in place."""
    y = net.one(x.to(net.one.weight.dtype).to(x.device)).float()
    F.leaky_relu_(y, 0.25)
    z = y.type_as(x)  # the same tensor
    F.elu_(z, 0.5)
    return y.type(torch.float32) + 2 * z.to(torch.float32).to(memory_format=torch.channels_last)


def restored(net, x):
    """A halved image gets its size back, whether it was even or not."""
    return net.up(net.down(x), output_size=x.size()) + net.up_again(net.down(x), output_size=x.shape[2:])


def channels_last(net, x):
    """Parts of images NHWC, and norms of rows of numbers without a module."""
    first, second = net.dense(x.permute(0, 2, 3, 1)).split([1, 3], dim=-1)
    tokens = torch.cat([second.permute(0, 3, 1, 2), first.permute(0, 3, 1, 2)], 1).flatten(2).transpose(1, 2)
    gate, value = net.dense2(tokens).chunk(2, dim=-1)
    gated = (F.silu(gate) * value).mean(1)
    rows = F.rms_norm(torch.cat([gated, gated], 1), (4,), net.weight, 1e-3)
    return F.layer_norm(net.dense3(rows), (4,), net.weight, net.bias)


CODES = {
    gates: ("dense", "narrow"),
    statistics: ("one", "weight", "bias", "power", "of_pixel", "dense"),
    functions: ("one", "two"),
    slices: ("inner",),
    shares: ["one", "two", "three", "four", "dense", "dense2", "dense3", "dense4", "among_branches", "among_parts"],
    merged_pixels: ("one", "two", "dense", "mask", "among_pixels"),
    in_place: ("one", "two", "relu"),
    casts: ("one",),
    restored: ("down", "up", "up_again"),
    channels_last: ("dense", "dense2", "dense3", "weight", "bias"),
}


def ported_as_it_was(code, to):
    """The ported model, whose results are those of PyTorch's."""
    model = Code(code, *CODES[code]).eval()
    with torch.no_grad():
        expected = model(torch.from_numpy(X))
    ported = port(model, to=to)
    assert ported.evidence.same
    assert not ported.untouched
    results = run(to, ported.model, X)
    several = expected if isinstance(expected, tuple) else (expected,)
    for result, each in zip(results if isinstance(expected, tuple) else (results,), several, strict=True):
        np.testing.assert_allclose(result, each.numpy(), rtol=1e-4, atol=2e-5)
    return ported


def test_gates_are_ported(framework) -> None:
    ported_as_it_was(gates, framework)


@pytest.mark.parametrize("code", [code for code in CODES if code is not gates])
def test_it_is_read(code, tmp_path) -> None:
    ported = ported_as_it_was(code, "torch")
    if code is functions:
        check("torch", ported, tmp_path, X)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (lambda net, x: torch.where(x > 1, x, 0.1 * x), "where"),
        (lambda net, x: torch.where(x > 0, x, 0.1 * net.one(x)), "where"),
        (lambda net, x: x**9, "pow: convlab doesn't know it"),
        (lambda net, x: x.std(), "std: convlab doesn't know it"),
        (lambda net, x: x * (x > -1), "gt: convlab doesn't know it"),
        (lambda net, x: x * (net.one(x) > 0), "gt: convlab doesn't know it"),
        (lambda net, x: x.masked_fill(x > 1, 0.0), "masked_fill: convlab doesn't know it"),
        (lambda net, x: x.double(), "double: convlab doesn't know it"),
        (lambda net, x: x.to(torch.float64), "to: convlab doesn't know it"),
        (lambda net, x: x.type("torch.DoubleTensor"), "type: convlab doesn't know it"),
        (
            lambda net, x: net.one(x).__setitem__(0, x),
            "it can't be traced (it writes into a part of a tensor, as x[...]",
        ),
        (lambda net, x: x[:, ::2], "getitem: convlab doesn't know it"),
        (lambda net, x: x.expand(-1, 4, 8, 12), "expand: convlab doesn't know it"),
        (lambda net, x: torch.flip(x, [3]), "flip: convlab doesn't know it"),
        (lambda net, x: F.grid_sample(x, x[:, :2].permute(0, 2, 3, 1)), "grid_sample: convlab doesn't know it"),
        (lambda net, x: x[:, :, : x.shape[2] // 2], "getitem with numbers from the image's size"),
        (
            lambda net, x: F.avg_pool2d(x, (x.shape[2], x.shape[3] // 2)),
            "avg_pool2d with numbers from the image's size",
        ),
    ],
)
def test_what_is_something_else_is_refused(code, why) -> None:
    assert why in str(read(Code(code, "one").eval()).loose)


def _view_of_changed(net, x):
    view = x.permute(0, 2, 3, 1)
    x *= 2
    return net.one(x) + view.permute(0, 3, 1, 2)


def _changed_part(net, x):
    part = x[:, :2]
    part += 1
    return net.one(x)


def _changed_perhaps(net, x):
    y = net.one(x)
    F.elu_(y.to(memory_format=torch.channels_last))
    return y


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (_changed_perhaps, "elu_ in place: one, which is taken later, shares its numbers"),
        (_view_of_changed, "imul in place: permute, which is taken later, shares its numbers"),
        (_changed_part, "iadd in place: conv, which is taken later, shares its numbers"),
    ],
)
def test_a_view_of_what_is_changed_in_place_is_refused(code, why) -> None:
    assert why in str(read(Code(code, "one").eval()).loose)


def test_equal_numbers_of_a_parameter_stay_two() -> None:
    """So BiFPN begins, arXiv:1911.09070; `weight[0]` is taken twice, and stays one."""
    model = Code(
        lambda net, x: net.weight[0] * x + net.weight[1] * net.one(x) + net.weight[0] * net.two(x), "one", "two"
    )
    model.weight = nn.Parameter(torch.ones(2))
    with pytest.warns(PartialPortWarning, match="each time the code computes anew from weight"):
        ported = port(model.eval(), to="torch")
    scales = {name: each.numel() for name, each in ported.model.named_parameters() if name.startswith("weight")}
    assert scales == {"weight.0.weight": 1, "weight.1.weight": 1}
    with torch.no_grad():
        expected = model(torch.from_numpy(X)).numpy()
    np.testing.assert_allclose(run("torch", ported.model, X), expected, rtol=1e-4, atol=2e-5)


def test_an_unknown_operation_is_named_alone() -> None:
    def code(net, x):
        x = F.interpolate(F.max_pool2d(F.relu(net.one(x)), 2), scale_factor=2.0) * 2 + x
        return net.dense(torch.sigmoid(torch.cat([x, x], 1))[:, :4].cumsum(1).relu().mean((2, 3)))

    (why,) = read(Code(code, "one", "dense").eval()).loose.values()
    assert "(cumsum: convlab doesn't know it)" in why


def test_a_size_given_back_to_odd_images_is_for_those_alone() -> None:
    model = Code(restored, "down", "up", "up_again").eval()
    x = torch.from_numpy(X[:, :, :7, :11].copy())
    ported = port(model, to="torch", input_size=(7, 11))
    with torch.no_grad():
        np.testing.assert_allclose(ported.model(x).numpy(), model(x).numpy(), rtol=1e-4, atol=2e-5)
