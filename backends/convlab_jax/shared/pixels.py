"""Rows of numbers that are images of one pixel: how models compute a scale for each channel."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from convlab.models.layers.activations import Activation
from convlab.models.layers.joining import Add, Multiply
from convlab.models.layers.layer import Convolution, Dense, Dropout
from convlab.models.layers.pooling import GlobalPool
from convlab.models.layers.reading import Part, consumers, without

from .read import pixel


def of_pixels(layer: Dense) -> Convolution:
    """What a dense layer computes of images: of each pixel."""
    return Convolution.of(layer.kernel[:, :, None, None], layer.bias, layer.dtype)


def makes_pixels(part: Part) -> bool:
    """Whether a part makes rows of numbers images."""
    return _function(part) is pixel


def _function(part: Part) -> Any:
    return part.native.func if isinstance(part.native, functools.partial) else part.native


def without_rows(parts: Sequence[Part]) -> list[Part]:
    """The parts, where rows of numbers that become images of one pixel again have been such images all along.

    That is how the scales of channels are computed: a global pooling, dense layers, `x * scale[:, None, None, :]`.
    """
    by_value, takers = {part.value: part for part in parts}, consumers(parts)
    changed: dict[str, Part] = {}
    stack = [part.inputs[0] for part in parts if makes_pixels(part)]
    while stack:
        value = stack.pop()
        if value in changed:
            continue
        part = by_value.get(value)
        if part is None:
            return [*parts]
        if isinstance(part.layer, GlobalPool):
            native = functools.partial(_function(part), axis=(1, 2), keepdims=True)
            changed[value] = replace(part, native=native, layer=replace(part.layer, keepdims=True))
            continue
        if isinstance(part.layer, Dense):
            part = replace(part, layer=of_pixels(part.layer))
        elif not isinstance(part.layer, (Activation, Dropout, Add, Multiply)):
            return [*parts]
        changed[value] = part
        stack += part.inputs
    kept = {*changed, *(part.value for part in parts if makes_pixels(part))}
    if parts and (
        parts[-1].value in kept or any(taker.value not in kept for value in changed for taker in takers[value])
    ):
        return [*parts]
    return without([changed.get(part.value, part) for part in parts], makes_pixels)
