"""PyTorch's borders and crops, read."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from convlab.errors import UnsupportedError
from convlab.models.layers.layer import LOWEST, Layer, Pad
from convlab.models.layers.pixels import Crop

from .functions import of_rank

_CONSTANT = tuple(of_rank(name, rank) for name in ("ZeroPad", "ConstantPad") for rank in (1, 2, 3))


def crop_and_border(m: Any) -> list[nn.Module]:
    """The crop and the border that a module is which takes off at one end and adds at another; else itself alone."""
    if type(m) not in _CONSTANT or not min(m.padding) < 0 < max(m.padding):
        return [m]
    ends: tuple[int, ...] = tuple(m.padding)
    kept = [tuple(min(n, 0) for n in ends), tuple(max(n, 0) for n in ends)]
    rank = len(ends) // 2
    crop, border = of_rank("ZeroPad", rank)(kept[0]), of_rank("ConstantPad", rank)(kept[1], getattr(m, "value", 0.0))
    return [crop, border]


def _pad(m: Any, mode: str, value: float = 0.0) -> Layer:
    # The last axis comes first.
    pads = tuple(zip(m.padding[::2], m.padding[1::2], strict=True))[::-1]
    if max(m.padding) <= 0 > min(m.padding):
        return Crop(tuple((-start, -end) for start, end in pads))
    if min(m.padding) < 0:
        raise UnsupportedError(f"it pads and crops at once, by {m.padding}")
    return Pad(pads, mode, value)


def _constant_pad(m: Any) -> Layer:
    if m.value == -math.inf:
        return _pad(m, LOWEST)
    if not math.isfinite(m.value):
        raise UnsupportedError(f"its border is {m.value}, expected a finite number or -inf")
    return _pad(m, "zeros", float(m.value))


READERS: dict[type[nn.Module], Callable[[Any], Layer]] = {
    **{
        kind: partial(_pad, mode=mode)
        for mode, kinds in (
            ("zeros", (nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d)),
            ("reflect", (nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReflectionPad3d)),
            ("replicate", (nn.ReplicationPad1d, nn.ReplicationPad2d, nn.ReplicationPad3d)),
            ("circular", (nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d)),
        )
        for kind in kinds
    },
    # They stand after those of zeros, which are subclasses of them.
    **dict.fromkeys((nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d), _constant_pad),
}
