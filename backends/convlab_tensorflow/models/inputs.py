"""The shape of the images that layers, one after another or in branches, are for."""

from __future__ import annotations

from collections.abc import Container, Sequence
from fractions import Fraction
from typing import Any

import keras
from keras import layers as kl

from convlab.models.adapters import Node
from convlab.models.layers.arguments import argument
from convlab.models.layers.reading import INPUT, InputShape

from ..channel_layers import PixelUnshuffle
from ..image_layers import ChannelPool, ChannelSlice, Chunk, PixelShuffle
from .readers import each_rank

GLOBAL = (*each_rank("GlobalMaxPooling"), *each_rank("GlobalAveragePooling"))
# Those that give as many channels whatever they take, or a number that the layer alone doesn't tell.
_OTHER_CHANNELS = (ChannelPool, ChannelSlice)


def input_shape(layer: kl.Layer) -> tuple[int | None, ...] | None:
    """The shape, without the number of images, that a layer was built for; None where it takes any."""
    if layer.weights:
        return tuple(layer.get_build_config()["input_shape"][1:])
    if isinstance(layer, GLOBAL):
        return (None,) * int(layer.input_spec.ndim - 1)
    return (None, None, None) if isinstance(layer, kl.Flatten) else None


def image_shape(nodes: Sequence[Node]) -> tuple[int | None, ...] | None:
    """The shape of the image that nodes are for, without the number of images; None where they take any."""
    times: dict[str, Fraction | None] = {INPUT: Fraction(1)}
    for _, native, inputs, value in nodes:
        shape, before = input_shape(native), times[inputs[0]]
        if shape is not None:
            channels = shape[-1] if before is None or shape[-1] is None else Fraction(shape[-1]) / before
            whole = before is not None and isinstance(channels, Fraction) and channels.denominator == 1
            return (*shape[:-1], int(channels) if whole and channels is not None else None)
        several = [times[name] for name in inputs]
        if isinstance(native, kl.Concatenate):
            times[value] = None if None in several else sum(filter(None, several), Fraction(0))
        else:
            times[value] = None if before is None or isinstance(native, _OTHER_CHANNELS) else before * _times(native)
    return None


def symbol(value: str, shape: InputShape | None, dtype: str | None, layers: Container[str]) -> Any:
    """The symbolic tensor of one of several inputs, by its value and its shape, channels first.

    It has the name of the input, but for that of one of the layers, which Keras takes no two of.
    """
    assert shape is not None
    name = argument(value)
    return keras.Input((*shape[1:], shape[0]), dtype=dtype, name=f"{name}_input" if name in layers else name)


def _times(native: Any) -> Fraction:
    """How many times as many channels a layer gives as it takes."""
    if isinstance(native, Chunk):
        return Fraction(1, native.count)
    if isinstance(native, (PixelShuffle, PixelUnshuffle)):
        square = Fraction(native.factor**2)
        return square if isinstance(native, PixelUnshuffle) else 1 / square
    return Fraction(1)
