"""A photograph in memory: its pixels, and what its file says of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConvlabError


class ImageError(ConvlabError, OSError):
    """A file that can't be read or written as an image."""


def check_dtype(path: Path, dtype: np.dtype[Any]) -> None:
    """Raise `ImageError` unless pixels of a dtype can be filtered: integers of up to 32 bits, floats of up to 64."""
    if dtype.kind not in "uif" or dtype.itemsize > (8 if dtype.kind == "f" else 4):
        raise ImageError(
            f"{path}: got dtype {dtype}, expected integers of up to 32 bits or floats.", hint="save it as float64."
        )


@dataclass
class Photograph:
    """The pixels of an image file, upright, with what is written beside them.

    Attributes:
        pages: the pages or frames, each (H, W) or (H, W, C), all of one shape and dtype.
        alpha: whether the last channel is opacity.
        inks: whether the four channels are cyan, magenta, yellow and black.
        durations: the milliseconds for which each frame is shown; empty for pages.
        loop: how often the animation is played, 0 for ever; None if the file doesn't say.
        profile: the ICC profile, or nothing.
        dpi: pixels per inch (to the right, down), or None.
        exif: the EXIF data, whose orientation is 1, or nothing.
        subsampling: how much colour a JPEG stores, in Pillow's numbers: 0 is 4:4:4, 1 is 4:2:2, 2 is 4:2:0.
        notes: what became another thing on the way, in a few words each.
    """

    pages: list[np.ndarray]
    alpha: bool = False
    inks: bool = False
    durations: list[float] = field(default_factory=list)
    loop: int | None = None
    profile: bytes = b""
    dpi: tuple[float, float] | None = None
    exif: bytes = b""
    subsampling: int | None = None
    notes: list[str] = field(default_factory=list)
