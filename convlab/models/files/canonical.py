"""One way to write what frameworks cut into layers differently, so that each of them saves the same file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..layers.activations import NEVER_NEGATIVE, Activation, Affine, Clip, shortest
from ..layers.flattening import Flatten
from ..layers.layer import LOWEST, BatchNorm, Convolution, Layer, Pad, dtype_of, join_border
from ..layers.norms import ChannelAffine
from ..layers.pixels import Crop
from ..layers.pooling import GlobalPool, Pool
from ..layers.reading import Part, consumers
from ..layers.spatial import is_padded
from ..layers.transposed import TransposedConvolution


def canonical(parts: Sequence[Part]) -> list[Part]:
    """Parts that compute the same, with borders in the layers that they are for, and integer paddings where possible.

    >>> from convlab.models.layers.reading import parts_of
    >>> pad = Pad(((0, 1), (0, 1)))
    >>> [part.layer.padding for part in canonical(parts_of([pad, Pool("average", (2, 2), (2, 2))]))]
    [((0, 1), (0, 1))]
    """
    result: dict[str, Part] = {}
    takers = consumers(parts)
    wide = any(part.layer is not None and dtype_of(part.layer) == "float64" for part in parts)
    for part in parts:
        assert part.layer is not None
        layer = _plain(part.layer if wide else _narrow(part.layer))
        part = replace(part, layer=layer)
        while (last := result.get(part.inputs[0])) and len(takers[last.value]) == 1 and len(part.inputs) == 1:
            before = result.get(last.inputs[0])
            joined = _joined(last.layer, layer, before.layer if before else None)
            if joined is None:
                break
            layer = _plain(joined)
            part = replace(part, layer=layer, inputs=result.pop(last.value).inputs)
        result[part.value] = part
    return [*result.values()]


def apart(parts: Sequence[Part], like: Sequence[Part]) -> list[Part]:
    """Canonical parts, with a scale and a shift of channels in two layers where a model's own code has them so."""
    own = iter([part.layer for part in like if isinstance(part.layer, ChannelAffine)])
    result: list[Part] = []
    for part in parts:
        layer = part.layer
        if isinstance(layer, ChannelAffine):
            wanted = next(own, layer)
            if layer.shift is not None and layer.scale is not None and wanted.shift is None:
                next(own, None)
                scaled = f"{part.value}.scaled"
                result.append(replace(part, layer=replace(layer, shift=None), value=scaled))
                part = replace(part, layer=replace(layer, scale=None), inputs=(scaled,))
        result.append(part)
    return result


def _narrow(layer: Layer) -> Layer:
    """The layer, with its parameter in as few digits as float32 needs: TensorFlow keeps no more of a slope."""
    if isinstance(layer, Activation) and abs(layer.parameter) < 1e38:
        return replace(layer, parameter=shortest(float(np.float32(layer.parameter))))
    if isinstance(layer, Affine) and max(abs(layer.scale), abs(layer.shift)) < 1e38:
        scale, shift = (shortest(float(np.float32(number))) for number in (layer.scale, layer.shift))
        return replace(layer, scale=scale, shift=shift)
    if isinstance(layer, Clip):
        least, most = (shortest(float(np.float32(limit))) if abs(limit) < 1e38 else limit for limit in layer.limits)
        return Clip(least, most)
    return layer


def _plain(layer: Layer) -> Layer:
    """The layer, without the options that make no difference to what it computes."""
    if isinstance(layer, Convolution):
        if is_padded(layer.spec.padding):
            return layer
        return replace(layer, spec=replace(layer.spec, padding_mode="zeros", padding_value=0.0))
    if isinstance(layer, Pool):
        count_padding = layer.count_padding and layer.function == "average" and is_padded(layer.padding)
        return replace(layer, count_padding=count_padding)
    if isinstance(layer, BatchNorm):
        # PyTorch keeps 1 - momentum, which is rounded.
        return replace(layer, momentum=float(f"{layer.momentum:.12g}"))
    return layer


def _joined(last: Layer | None, layer: Layer, before: Layer | None) -> Layer | None:
    """The one layer that computes the same as two; None if there is none."""
    if isinstance(last, GlobalPool) and isinstance(layer, Flatten):
        return replace(last, keepdims=False)
    if isinstance(last, ChannelAffine) and isinstance(layer, ChannelAffine):
        alike = (last.trained, last.count) == (layer.trained, layer.count)
        return replace(last, shift=layer.shift) if alike and last.shift is None and layer.scale is None else None
    if isinstance(last, TransposedConvolution) and isinstance(layer, Crop):
        return last.with_crop(layer.pads)
    if not isinstance(last, Pad):
        return None
    if isinstance(layer, Convolution):
        return join_border(last, layer)
    if isinstance(layer, Pool) and _is_border(last, layer, before):
        return replace(layer, padding=last.pads, count_padding=True)
    return None


def _is_border(pad: Pad, layer: Pool, before: Layer | None) -> bool:
    """Whether a border before a pooling is the same as its own padding, which frameworks have up to half a window."""
    if pad.mode not in ("zeros", LOWEST) or pad.value or is_padded(layer.padding):
        return False
    if layer.ceil and (layer.function == "max" or replace(layer, padding=pad.pads).whole_padding is None):
        return False
    if any(2 * max(pads) > size for pads, size in zip(pad.pads, layer.size, strict=True)):
        return False
    if pad.mode == LOWEST:
        return layer.function == "max"
    never_negative = isinstance(before, Activation) and before.function in NEVER_NEGATIVE
    return layer.function == "average" or never_negative
