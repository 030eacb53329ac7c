"""Upsampling of sequences and volumes by linear interpolation, in every framework."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from making import run
from sources import check
from torch import nn

from convlab import load, port, save

X = {
    1: np.random.default_rng(0).normal(size=(2, 3, 7)).astype("float32"),
    3: np.random.default_rng(1).normal(size=(1, 2, 3, 4, 5)).astype("float32"),
}


@pytest.mark.parametrize("aligned", [False, True], ids=["centres", "corners"])
@pytest.mark.parametrize("rank", X)
def test_pytorchs_goes_everywhere_and_back(framework, rank, aligned, tmp_path) -> None:
    factor, mode = (3.0, "linear") if rank == 1 else ((2.0, 3.0, 2.0), "trilinear")
    conv = nn.Conv1d(3, 2, 1) if rank == 1 else nn.Conv3d(2, 2, 1)
    model = nn.Sequential(conv, nn.Upsample(scale_factor=factor, mode=mode, align_corners=aligned)).eval()
    with torch.no_grad():
        expected = model(torch.from_numpy(X[rank])).numpy()
    ported = port(model, to=framework, inputs=X[rank])
    assert ported.evidence.same
    assert np.abs(run(framework, ported.model, X[rank]) - expected).max() < 1e-5
    check(framework, ported, tmp_path, X[rank])
    back = port(ported.model, to="torch", inputs=X[rank])
    assert np.abs(run("torch", back.model, X[rank]) - expected).max() < 1e-5
    save(model, a := tmp_path / "a.safetensors")
    save(ported, b := tmp_path / "b.safetensors")
    assert a.read_bytes() == b.read_bytes()
    assert np.abs(run(framework, load(a, backend=framework), X[rank]) - expected).max() < 1e-5
