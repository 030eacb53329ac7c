"""Code that only moves the numbers of images, known by what becomes of numbers that all differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from .channels import ChannelShuffle, PixelShuffle, PixelUnshuffle
from .layer import Layer
from .pixels import Upsample

# Rows, columns and scales of the images: what clips, or depends on the size, differs on one of them.
_IMAGES = (((6, 4), 2.0**-6), ((4, 2), 2.0**12))


def layer_that_moves(compute: Callable[[np.ndarray], np.ndarray], channels: int) -> Layer | None:
    """The layer that moves numbers as a function of images (N, C, H, W) does; None if none is known.

    >>> layer_that_moves(lambda x: x.repeat(2, axis=2).repeat(3, axis=3), 4)
    Upsample(factor=(2, 3), method='nearest', align_corners=False)
    """
    layers: list[Layer] | None = None
    for size, scale in _IMAGES:
        shape = (2, channels, *size)
        count = int(np.prod(shape))
        x = ((np.arange(count) - count // 2) * scale).astype("float32").reshape(shape)
        try:
            y = np.asarray(compute(x))
        except Exception:  # It may be anyone's code.
            return None
        layers = [*_candidates(x.shape, y.shape)] if layers is None else layers
        layers = [layer for layer in layers if np.array_equal(layer.reference(x), y)]
    return layers[0] if layers else None


def _candidates(before: tuple[int, ...], after: tuple[int, ...]) -> Iterator[Layer]:
    """The layers that may give images of a shape."""
    if len(after) != 4:
        return
    channels, factor = before[1], before[2] // max(after[2], 1)
    if factor > 1 and after[1:] == (channels * factor**2, before[2] // factor, before[3] // factor):
        yield from (PixelUnshuffle(factor, last) for last in (False, True))
    if any(larger % smaller for smaller, larger in zip(before[2:], after[2:], strict=True)):
        return
    down, across = after[2] // before[2], after[3] // before[3]
    if down == across > 1 and channels == after[1] * down**2:
        yield from (PixelShuffle(down, last) for last in (False, True))
    elif (down, across) != (1, 1) and channels == after[1]:
        yield Upsample((down, across), "nearest")
    elif channels == after[1]:
        yield from (ChannelShuffle(groups) for groups in range(2, channels) if channels % groups == 0)
