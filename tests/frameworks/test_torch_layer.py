"""convlab's layer as users of `torch.nn.Conv2d` know theirs, with the same weights as theirs."""

from __future__ import annotations

import copy
import pickle

import native_arguments
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from convlab import errors
from convlab import torch as lab
from convlab_torch.layers import NATIVE

X = torch.randn(2, 4, 9, 8, generator=torch.Generator().manual_seed(0))
OPTIONS = (
    {},
    {"stride": 2, "padding": (1, 2)},
    {"padding": "same", "dilation": 2},
    {"groups": 2, "bias": False},
    {"padding": 1, "padding_mode": "circular", "dtype": torch.float64, "device": "cpu"},
)
NAMES = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")


def pair(**options):
    """torch's layer and convlab's, made by the same call, with the same weights."""
    theirs, ours = (layer(4, 6, (3, 2), **options) for layer in (nn.Conv2d, lab.Conv2D))
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def same(ours, theirs, x=X) -> None:
    torch.testing.assert_close(ours(x), theirs(x))


def test_every_argument_of_torchs_is_known() -> None:
    assert native_arguments.unknown_arguments(NATIVE, nn.Conv2d.__init__) == []
    assert native_arguments.positional(nn.Conv2d.__init__) == list(NATIVE.order)


@pytest.mark.parametrize("options", OPTIONS)
def test_torchs_arguments_and_attributes(options) -> None:
    theirs, ours = pair(**options)
    same(ours, theirs, X.to(options.get("dtype", torch.float32)))
    assert {name: getattr(ours, name) for name in NAMES} == {name: getattr(theirs, name) for name in NAMES}


def test_attributes_that_torch_has_not() -> None:
    layer = lab.Conv2D(3, out_channels=2, padding=((1, 0), (2, 2)))
    assert layer.padding == ((1, 0), (2, 2))
    assert layer.in_channels is None
    layer(X)
    assert layer.in_channels == 4
    assert lab.Conv2D(4, 6, kernel_size=3).weight.shape == (6, 4, 3, 3)
    assert lab.Conv2D(3, out_channels=2, in_channels=4, device="meta").weight.device.type == "meta"


@pytest.mark.parametrize("options", OPTIONS)
def test_torch_fx(options) -> None:
    theirs, ours = pair(**options)
    x = X.to(options.get("dtype", torch.float32))
    traced = torch.fx.symbolic_trace(nn.Sequential(ours, nn.ReLU()))
    for graph in (traced, pickle.loads(pickle.dumps(traced)), copy.deepcopy(traced)):
        torch.testing.assert_close(graph(x), theirs(x).relu())
    traced(x).sum().backward()
    theirs(x).relu().sum().backward()
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)


def test_torch_fx_needs_the_number_of_channels() -> None:
    with pytest.raises(errors.ShapeError, match=r"X: got a tracer of torch\.fx, .* Hint: give in_channels"):
        torch.fx.symbolic_trace(nn.Sequential(lab.Conv2D(3, out_channels=2)))


def test_pruning() -> None:
    theirs, ours = pair()
    for layer in (theirs, ours):
        prune.l1_unstructured(layer, "weight", 0.5)
    assert int((ours.weight == 0).sum()) == ours.weight.numel() // 2
    same(ours, theirs)
    same(torch.fx.symbolic_trace(nn.Sequential(ours)), theirs)
    assert sorted(ours.state_dict()) == sorted(theirs.state_dict())
    for layer in (theirs, ours):
        prune.remove(layer, "weight")
    same(ours, theirs)


class Symmetric(nn.Module):
    def forward(self, weight):
        return weight + weight.flip(-1)


@pytest.mark.parametrize(
    "parametrized",
    [
        parametrizations.weight_norm,
        parametrizations.spectral_norm,
        parametrizations.orthogonal,
        lambda layer: parametrize.register_parametrization(layer, "weight", Symmetric()),
    ],
)
def test_parametrisations(parametrized) -> None:
    theirs, ours = pair()
    for layer in (theirs, ours):
        torch.manual_seed(1)
        parametrized(layer)
        layer.eval()
    same(ours, theirs)
    assert sorted(ours.state_dict()) == sorted(theirs.state_dict())
    for layer in (theirs, ours):
        layer(X).sum().backward()
    for mine, own in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, own.grad)


def test_copies() -> None:
    theirs, ours = pair(stride=2)
    for layer in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        same(layer, theirs)
        layer.load_state_dict(theirs.state_dict())
    norm = nn.BatchNorm2d(6).eval()
    norm.running_mean += 0.5
    fused = nn.utils.fuse_conv_bn_eval(ours.eval(), norm)
    torch.testing.assert_close(fused(X), norm(theirs(X)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lab.Conv2D(3, 8), "kernel_size: got none"),
        (lambda: lab.Conv2D(4, 6, kernel_size=3, strides=2), r"strides: got an .* Hint: write stride=2\."),
        (lambda: lab.Conv2D(3, out_channels=4, bias=True, use_bias=True), "use_bias: got use_bias twice"),
    ],
)
def test_what_is_refused(call, message) -> None:
    with pytest.raises(errors.OptionError, match=message):
        call()


def test_an_image_that_looks_channels_last() -> None:
    layer = lab.Conv2D(3, out_channels=2)
    with pytest.warns(errors.LayoutWarning, match=r"X: got shape \(16, 16, 3\), which looks like \(H, W, C\)"):
        layer(torch.ones(16, 16, 3))
    layer(torch.ones(16, 16, 3))
    lab.Conv2D(3, out_channels=2, data_format="NCHW")(torch.ones(16, 16, 3))


def test_no_bias_as_torchs_none() -> None:
    assert lab.Conv2D(3, 4, 3, bias=None).bias is None
    assert nn.Conv2d(3, 4, 3, bias=None).bias is None
