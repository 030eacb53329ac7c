"""Images that are resized to a size, or to that of another: PSPNet's pyramid, arXiv:1612.01105, and its like."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from making import built, port_parts, run, words
from sources import check
from torch import nn
from torch.nn import functional as F

from convlab import compare, load, port, save
from convlab.errors import UnsupportedError
from convlab.models.adapters import models_of, read
from convlab.models.files.neutral import read_layers
from convlab.models.layers.resizing import METHODS, Resize, ResizeLike

X = np.random.default_rng(0).normal(size=(2, 3, 6, 7)).astype("float32")
WAYS = [*((method, False) for method in METHODS), ("bilinear", True)]
# Smaller on one axis and larger on the other, by no whole factor.
SIZE = 4, 11
LACKED = {"mxnet": ("nearest", "nearest_exact")}


def by_hand(x: np.ndarray, size: tuple[int, int], method: str, aligned: bool) -> np.ndarray:
    """Each pixel by itself."""
    result = np.zeros((*x.shape[:2], *size))
    for i, j in np.ndindex(size):
        places = []
        for at, n, m in ((i, x.shape[2], size[0]), (j, x.shape[3], size[1])):
            if method != "bilinear":
                places.append([(int((at + (method == "nearest_exact") / 2) * n / m), 1.0)])
                continue
            place = at * (n - 1) / (m - 1) if aligned else (at + 0.5) * n / m - 0.5
            place = min(max(place, 0), n - 1)
            low = min(int(place), n - 2)
            places.append([(low, 1 - (place - low)), (low + 1, place - low)])
        result[:, :, i, j] = sum(x[:, :, p, q].astype(float) * a * b for p, a in places[0] for q, b in places[1])
    return result


@pytest.mark.parametrize(("method", "aligned"), WAYS)
def test_a_layer_by_hand_and_in_each_framework(framework, method, aligned) -> None:
    layer, models = Resize(SIZE, method, aligned), models_of(framework)
    expected = by_hand(X, SIZE, method, aligned)
    np.testing.assert_allclose(layer.reference(X.astype(float)), expected, rtol=1e-12, atol=1e-13)
    if method in LACKED.get(framework, ()):
        with pytest.raises(UnsupportedError, match=r"bilinear interpolation alone.* Hint: give input_size="):
            models.build(layer, "builtin")
        return
    (native,) = models.build(layer, "builtin")
    error = layer.error(X.astype(float), np.zeros(X.shape), "float32")
    assert (np.abs(models.run([native], X, "float32") - expected) <= error).all()
    assert error.max() < 1e-3
    (again,) = (part.layer for part in models.read(native).parts)
    assert (again.size, again.method, again.align_corners) == (SIZE, method, aligned)


class Pyramid(nn.Module):
    """Features beside what is pooled of them, made as large again."""

    def __init__(self, mode: str, aligned: bool | None) -> None:
        super().__init__()
        self.features, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(8, 5, 1)
        self.mode, self.aligned = mode, aligned

    def forward(self, x):
        x = self.features(x)
        options = {"mode": self.mode, "align_corners": self.aligned}
        pooled = F.interpolate(F.max_pool2d(x, 3, 2), size=x.shape[2:], **options)
        return F.interpolate(self.head(torch.cat([x, pooled], dim=1)), size=SIZE, **options)


@pytest.mark.parametrize("aligned", [False, True], ids=["centres", "corners"])
def test_a_pyramid_is_ported_saved_and_written(framework, aligned, tmp_path) -> None:
    torch.manual_seed(0)
    model = Pyramid("bilinear", aligned).eval()
    kinds = [part.layer.kind for part in read(model).parts]
    assert kinds == ["conv2d", "pool", "resize_like", "concatenate", "conv2d", "resize"]
    ported = port(model, to=framework)
    expected = run("torch", model, X)
    assert np.abs(run(framework, ported.model, X) - expected).max() < 1e-5
    assert compare(model, ported).same
    save(ported, path := tmp_path / "neutral.safetensors")
    assert {Resize, ResizeLike} <= set(map(type, read_layers(path)))
    assert np.abs(run(framework, load(path, backend=framework), X) - expected).max() < 1e-5
    check(framework, ported, tmp_path, X)
    back = port(ported.model, to="torch")
    assert np.abs(run("torch", back.model, X) - expected).max() < 1e-5


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
def test_what_the_nearest_pixel_is(framework, mode) -> None:
    torch.manual_seed(0)
    model = Pyramid(mode, None).eval()
    if framework in LACKED:
        assert "resizes to a size by bilinear" in words(port_parts(model, "MXNet resizes", to=framework).untouched)
        return
    assert np.abs(run(framework, port(model, to=framework).model, X) - run("torch", model, X)).max() < 1e-5


def test_at_a_size_it_is_an_upsampling(framework) -> None:
    """MXNet has it then, too."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Upsample(size=(12, 7)), nn.Conv2d(4, 2, 1), nn.Upsample((12, 7)))
    ported = port(model.eval(), to=framework, input_size=(6, 7))
    assert [row.kind for row in ported.evidence.rows] == ["conv2d", "upsample", "conv2d"]
    assert np.abs(run(framework, ported.model, X) - run("torch", model, X)).max() < 1e-5


def test_a_decoder_keeps_its_factors_where_they_are_whole() -> None:
    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x):
            x = self.conv(x)
            return x + F.interpolate(F.max_pool2d(x, 2), size=x.shape[2:])

    model = read(Decoder())
    assert ([part.layer.kind for part in model.parts][-2], model.multiple) == ("upsample", 2)


@pytest.mark.parametrize(
    ("options", "why"),
    [({"mode": "bicubic"}, "its mode is bicubic"), ({"antialias": True}, "it has options beyond size")],
)
def test_other_ways_are_refused_by_name(options, why) -> None:
    class Other(Pyramid):
        def forward(self, x):
            x = self.features(x)
            return x + F.interpolate(F.max_pool2d(x, 3, 2), size=x.shape[2:], **{"mode": "bilinear", **options})

    assert f"resize_like: {why}" in words(read(Other("", None)).loose)


def test_how_they_differ_is_said() -> None:
    conv = nn.Conv2d(3, 4, 3)
    a, b = (nn.Sequential(conv, nn.Upsample((9, 5), mode="bilinear", align_corners=c)) for c in (False, True))
    assert (
        "it takes bilinear interpolation of aligned corners (align_corners=True) instead"
        in compare(a, b).first.diagnosis
    )
    exact = nn.Sequential(conv, nn.Upsample((9, 5), mode="nearest-exact"))
    assert (
        "(nearest_exact) instead of the nearest pixel"
        in compare(nn.Sequential(conv, nn.Upsample((9, 5))), exact).first.diagnosis
    )
    assert built("torch", Resize((9, 5), "nearest")).size == (9, 5)
