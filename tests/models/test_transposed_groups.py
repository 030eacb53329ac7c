"""Transposed convolutions of groups, and instance norms that keep running statistics, in every framework."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from making import run
from sources import check
from torch import nn

from convlab import load, port, save
from convlab.models.layers.transposed import TransposedConvolution, turned

X = np.random.default_rng(3).integers(-4, 5, (2, 4, 6, 5)).astype("float32")
TRANSPOSED = {
    "cropped": nn.ConvTranspose2d(4, 6, 3, 2, 1, groups=2),
    "more at the end": nn.ConvTranspose2d(4, 4, (3, 2), 2, (1, 0), (1, 0), groups=4, bias=False),
    "whole": nn.ConvTranspose2d(4, 2, 3, 2, groups=2),
}
for _module in TRANSPOSED.values():
    for _parameter in _module.parameters():
        _parameter.data = torch.round(8 * _parameter.data)


@pytest.mark.parametrize("name", TRANSPOSED)
def test_groups(framework, name, tmp_path) -> None:
    model = TRANSPOSED[name].eval()
    expected = model(torch.from_numpy(X)).detach().numpy()
    ported = port(model, to=framework)
    assert ported.evidence.same
    np.testing.assert_array_equal(run(framework, ported.model, X), expected)  # of integers
    check(framework, ported, tmp_path, X)
    back = port(ported.model, to="torch")
    assert back.evidence.same
    np.testing.assert_array_equal(run("torch", back.model, X), expected)
    save(model, a := tmp_path / "a.safetensors")
    save(ported, b := tmp_path / "b.safetensors")
    assert a.read_bytes() == b.read_bytes()
    np.testing.assert_array_equal(run(framework, load(a, into=ported.model), X), expected)


def test_groups_of_sequences_and_volumes(framework) -> None:
    for module, shape in ((nn.ConvTranspose1d, (7,)), (nn.ConvTranspose3d, (3, 2, 4))):
        model = module(4, 4, 3, 2, groups=2).eval()
        x = np.arange(4 * np.prod(shape), dtype="float32").reshape(1, 4, *shape) / 64
        ported = port(model, to=framework)
        assert ported.evidence.same
        difference = run(framework, ported.model, x) - model(torch.from_numpy(x)).detach().numpy()
        assert np.abs(difference).max() < 1e-5


def test_the_kernel_is_turned() -> None:
    """By SciPy: the convolution of an image with zeros between its pixels by the turned kernel is the same."""
    signal = pytest.importorskip("scipy.signal")
    kernel = np.random.default_rng(0).integers(-4, 5, (4, 3, 3, 2)).astype(float)
    between = np.zeros((4, 9, 11))
    between[:, ::2, ::3] = X[0, :, :5, :4]
    by_convolution = turned(kernel, 2)
    assert by_convolution.shape == (6, 2, 3, 2)
    expected = [
        sum(signal.correlate2d(between[2 * (o // 3) + i], by_convolution[o, i], "full") for i in range(2))
        for o in range(6)
    ]
    layer = TransposedConvolution(kernel, stride=(2, 3), groups=2)
    # The last rows and columns come from zeros behind the last pixel.
    whole = layer.reference(X[:1, :, :5, :4])[0]
    np.testing.assert_array_equal(whole, np.array(expected)[:, : whole.shape[1], : whole.shape[2]])
    np.testing.assert_array_equal(turned(by_convolution, 2), kernel)


def test_running_statistics_of_instance_norms(framework, tmp_path) -> None:
    """In inference they are those of a batch norm."""
    torch.manual_seed(0)
    norm = nn.InstanceNorm2d(4, affine=True, track_running_stats=True)
    model = nn.Sequential(nn.Conv2d(4, 4, 1), norm, nn.Conv2d(4, 3, 1))
    with torch.no_grad():
        norm.weight.copy_(torch.arange(1.0, 5))
        model(torch.from_numpy(X))  # in training
        expected = model.eval()(torch.from_numpy(X)).numpy()
    ported = port(model, to=framework)
    assert ported.evidence.same
    assert np.abs(run(framework, ported.model, X) - expected).max() < 1e-5
    check(framework, ported, tmp_path, X)
    assert norm.running_mean.abs().max() > 0
    save(model, path := tmp_path / "a.safetensors")
    assert np.array_equal(run("torch", load(path, into=model), X), run("torch", model, X))
