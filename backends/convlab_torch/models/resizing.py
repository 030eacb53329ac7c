"""`nn.Upsample` and `F.interpolate` as layers."""

from __future__ import annotations

from typing import Any

from torch import nn

from convlab.errors import UnsupportedError
from convlab.models.layers.layer import Layer
from convlab.models.layers.pixels import Upsample
from convlab.models.layers.resizing import Resize, ResizeLike
from convlab.models.layers.spatial import per_axis

# PyTorch's names of the ways to resize.
RESIZING = {"nearest": "nearest", "nearest_exact": "nearest-exact", "bilinear": "bilinear"}

# PyTorch's names of linear interpolation, by the number of axes.
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def read_resizing(size: Any, mode: str, align_corners: bool | None = None) -> Layer:
    """The resize to a size, a number or two, or for None to that of another image."""
    if mode not in RESIZING.values():
        raise UnsupportedError(f"its mode is {mode}, expected {', '.join(RESIZING.values())}")
    method = next(ours for ours, theirs in RESIZING.items() if theirs == mode)
    if size is None:
        return ResizeLike(method, bool(align_corners))
    rows, columns = per_axis(size, 2)
    return Resize((int(rows), int(columns)), method, bool(align_corners))


def read_upsample(m: nn.Upsample) -> Layer:
    """The layer; one of nearest pixels and a single factor is read as one for images."""
    if m.size is not None:
        return read_resizing(m.size, m.mode, m.align_corners)
    rank = next((rank for rank, mode in LINEAR.items() if mode == m.mode), 2)
    given: Any = m.scale_factor
    factor = given if isinstance(given, tuple) else (given,) * rank
    if m.recompute_scale_factor or any(number != int(number) for number in factor):
        raise UnsupportedError("it resizes by a fraction, expected a size or a scale_factor of integers")
    if m.mode not in ("nearest", *LINEAR.values()):
        raise UnsupportedError(f"its mode is {m.mode}, expected nearest, linear, bilinear or trilinear")
    method = "nearest" if m.mode == "nearest" else "bilinear"
    return Upsample(tuple(map(int, factor)), method, bool(m.align_corners))


def is_of_any_rank(native: Any) -> bool:
    """Whether a layer says nothing about how many axes its images have."""
    return isinstance(native, nn.Upsample) and native.mode == "nearest" and isinstance(native.scale_factor, float)
