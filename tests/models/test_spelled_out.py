"""PyTorch's code that is several layers: selective kernels, split attention, norms of axes, sums of a stack."""

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


class Selective(nn.Module):
    """Two branches, weighed for each channel by shares: arXiv:1903.06586, as timm writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Conv2d(3, 4, 3, padding=n, dilation=n) for n in (1, 2))
        self.select = nn.Conv2d(4, 8, 1)

    def forward(self, x):
        x = torch.stack([branch(x) for branch in self.branches], dim=1)
        torch._assert(x.shape[1] == 2, "")
        shares = self.select(x.sum(1).mean((2, 3), keepdim=True))
        n, channels, h, w = shares.shape
        return torch.sum(x * torch.softmax(shares.view(n, 2, channels // 2, h, w), dim=1), dim=1)


class Split(nn.Module):
    """Parts of the channels, weighed by shares: arXiv:2004.08955, as timm writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.select = nn.Conv2d(3, 6, 3, groups=3, padding=1), nn.Conv2d(3, 6, 1)

    def forward(self, x):
        x = self.conv(x)
        n, channels, h, w = x.shape
        x = x.reshape((n, 2, channels // 2, h, w))
        shares = self.select(x.sum(dim=1).mean((2, 3), keepdim=True))
        shares = F.softmax(shares.view(n, 1, 2, -1).transpose(1, 2), dim=1).reshape(n, -1).view(n, -1, 1, 1)
        return (x * shares.reshape((n, 2, channels // 2, 1, 1))).mean(dim=1)


class Response(nn.Module):
    """The global response norm of ConvNeXt V2, arXiv:2301.00808, as timm writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.weight, self.bias = (nn.Parameter(torch.rand(4)) for _ in range(2))

    def forward(self, x):
        x = self.conv(x).permute(0, 2, 3, 1)
        norm = x.norm(p=2, dim=(1, 2), keepdim=True)
        norm = norm / (norm.mean(dim=-1, keepdim=True) + 1e-6)
        x = x + torch.addcmul(self.bias.view(1, 1, 1, -1), self.weight.view(1, 1, 1, -1), x * norm)
        return x.permute(0, 3, 1, 2)


class Squares(nn.Module):
    """TResNet's stem, arXiv:2003.13630: squares of pixels as channels, in TensorFlow's order."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(12, 4, 1)

    def forward(self, x):
        n, c, h, w = x.size()
        x = x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4).contiguous()
        return self.conv(x.view(n, c * 4, h // 2, w // 2))


class Words(nn.Module):
    """Other spellings, one after another."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1), nn.Linear(4, 2)

    def forward(self, x):
        x = self.first(x)
        y = torch.add(x, self.second(x), alpha=0.5)
        y = torch.stack([x, y, torch.sub(x, y, alpha=2)]).mean(0) + torch.stack([x, y], dim=1).sum(1)
        y = y / (1 + torch.linalg.vector_norm(x, dim=1, keepdim=True)) * F.normalize(x, dim=1)
        n, c, _, _ = x.shape
        rows = (y * x).reshape(n, c, -1).mean(-1) + F.adaptive_max_pool2d(y, 1).squeeze() + y.sum(3).sum(2)
        return self.last(F.normalize(rows, eps=1e-3))


MODELS = {kind.__name__: kind for kind in (Selective, Split, Response, Squares, Words)}


@pytest.mark.parametrize("name", MODELS)
def test_it_is_ported(framework, name, tmp_path) -> None:
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    ported = port(model, to=framework)
    assert ported.evidence.same
    assert not ported.untouched
    expected = run("torch", model, X)
    np.testing.assert_allclose(run(framework, ported.model, X), expected, rtol=1e-4, atol=1e-5)
    if name == "Selective":
        check(framework, ported, tmp_path, X)
    back = port(ported.model, to="torch").model
    np.testing.assert_allclose(run("torch", back, X), expected, rtol=1e-4, atol=1e-5)


def _size(x):
    return x.shape[2], x.shape[3]


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (lambda x: torch.stack([x, x], dim=1).prod(1), "stack: convlab doesn't know it"),
        (lambda x: torch.stack([x, x], dim=2).sum(1)[:, 0], "stack: convlab doesn't know it"),
        (lambda x: F.normalize(x, p=1, dim=1), "normalize: convlab doesn't know it"),
        (lambda x: x * torch.linalg.norm(x, 2, (2, 3), True), "norm: convlab doesn't know it"),
        (lambda x: x.view(x.shape[0], 2, 2, *_size(x)).sum(2), "sum: it reduces the axes 2"),
        (lambda x: x.view(x.shape[0], 2, 2, *_size(x)).sum((2, 3)), "view: convlab doesn't know it before sum"),
        (
            lambda x: x.view(x.shape[0], 2, 2, *_size(x)).contiguous().exp(),
            "contiguous: convlab doesn't know it before exp",
        ),
    ],
)
def test_what_is_read_otherwise_is_refused(code, why) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x):
            return code(self.conv(x))

    assert why in str(read(Odd()).loose)


def test_what_is_left_out_comes_with_a_hint() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.odd = nn.Conv2d(3, 4, 1), nn.Softsign()

        def forward(self, x):
            return self.odd(self.conv(x)).cumsum(1)

    with pytest.warns(PartialPortWarning, match=r"Hint: write their code and these layers with what docs/reference"):
        port(Odd(), to="torch")
