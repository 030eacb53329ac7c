"""Resizing to a size, or to that of another image, which gluon has by bilinear interpolation: built and written."""

from __future__ import annotations

from typing import Any

from convlab.errors import UnsupportedError
from convlab.models.layers.pixels import Upsample
from convlab.models.layers.resizing import Resize, ResizeLike
from convlab.models.source.code import SourceCall

from .. import image_blocks


def build_upsample(layer: Upsample, style: str) -> list[Any]:
    """The block that makes images, sequences or volumes a whole number of times as large."""
    return [image_blocks.Upsample(layer.factor, layer.method, layer.align_corners)]


def build_resize(layer: Resize, style: str) -> list[Any]:
    """The block that resizes images to a size."""
    _check(layer)
    return [image_blocks.Resize(layer.size, layer.align_corners)]


def build_resize_like(layer: ResizeLike, style: str) -> list[Any]:
    """The block that resizes images to the size of others."""
    _check(layer)
    return [image_blocks.ResizeLike(layer.align_corners)]


def _check(layer: Resize | ResizeLike) -> None:
    if layer.method != "bilinear":
        at_a_size = "give input_size= where that makes it a whole number of times as large."
        raise UnsupportedError(
            f"MXNet resizes to a size by bilinear interpolation alone, not by {layer.method}.",
            hint=at_a_size if isinstance(layer, Resize) else "a resize by a scale_factor of integers has it.",
        )


def resize_like_source(known: ResizeLike) -> tuple[str, str]:
    """The expressions for arrays of `mx.nd` and of `mx.np`."""
    rest = SourceCall("", {"mode": "like", "align_corners": known.align_corners}).rest
    plain = f"F.contrib.BilinearResize2D({{0}}, {{1}}{rest})"
    return plain, f"{plain.format('{0}.as_nd_ndarray()', '{1}.as_nd_ndarray()')}.as_np_ndarray()"
