"""What is known of the shapes of a model's values, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from ...errors import ConvlabError, ShapeError
from .attention import FirstPixel
from .dot_product import DotProductAttention
from .flattening import Flatten, Unflatten
from .joining import Concatenate, Joining, Like
from .layer import Dense, Layer
from .outputs import Outputs
from .pooling import AdaptivePool, GlobalPool
from .ranks import own_rank
from .reading import Part
from .resizing import Resize
from .spatial import WHAT, Size
from .tokens import Tokens


class Known(NamedTuple):
    """What is known of a value.

    Attributes:
        channels: how many channels an image has, or how many numbers a row; 0 where no layer has told.
        size: an image's rows and columns, a sequence's length; None where they aren't known, and for rows of numbers.
        rows: whether it is known to be rows of numbers.
    """

    channels: int = 0
    size: Size | None = None
    rows: bool = False


def known_after(layer: Layer | None, inputs: Sequence[Known]) -> Known:
    """What is known of a layer's result; nothing of that of an unknown layer.

    >>> known_after(Flatten(), [Known(3, (2, 5))])
    Known(channels=30, size=None, rows=True)

    Raises:
        GeometryError, ShapeError: images of the known size don't go through.
    """
    if layer is None:
        return Known()
    channels, size, rows = inputs[0]
    if size is not None and own_rank(layer) not in (0, len(size)) and not isinstance(layer, Unflatten):
        raise ShapeError(
            f"{layer.kind}: got {WHAT[len(size)]}, expected {WHAT[own_rank(layer)]}.",
            hint="a model has layers of one number of axes.",
        )
    if isinstance(layer, Joining):
        return _joined(layer, inputs)
    if isinstance(layer, Flatten):
        return Known(channels if rows else channels * math.prod(size) if size else 0, None, True)
    if isinstance(layer, Unflatten):
        return Known(layer.output_channels(channels), layer.size)
    if gives_rows(layer):
        return Known(channels, None, True)
    if isinstance(layer, Tokens):
        return Known(channels)
    if isinstance(layer, GlobalPool):
        return Known(channels, (1,) * layer.rank)
    if isinstance(layer, Dense):
        return Known(layer.output_channels(channels), None, True)
    channels = layer.output_channels(channels_taken(layer) or channels)
    if isinstance(layer, (AdaptivePool, Resize)):
        return Known(channels, layer.size)
    return Known(channels, None if size is None else layer.output_size(size), rows)


def _joined(layer: Joining, inputs: Sequence[Known]) -> Known:
    if isinstance(layer, Outputs):
        return Known()
    channels, sizes = [each.channels for each in inputs], [each.size for each in inputs if each.size is not None]
    size = layer.joined_size(sizes) if len(sizes) == len(inputs) else None
    rows = all(each.rows for each in inputs)
    if isinstance(layer, Like):
        return Known(channels[0], inputs[1].size, rows)
    if isinstance(layer, DotProductAttention):
        return Known(layer.joined_channels(channels), size, rows)
    if isinstance(layer, Concatenate):
        return Known(sum(channels) if all(channels) else 0, size, rows)
    return Known(max(channels), size, rows)


def channels_at(parts: Sequence[Part], value: str) -> int:
    """The channels of a value, as far as the layers tell; 0 where they don't."""
    return known_at(parts, value, {}).channels


def known_at(parts: Sequence[Part], value: str, given: Mapping[str, Known]) -> Known:
    """What the layers tell of a value, from what is known of those that the model is given, by their names."""
    values = {**given}
    for part in parts:
        inputs = [values.get(each, Known()) for each in part.inputs]
        with suppress(ConvlabError):
            values[part.value] = known_after(part.layer, inputs)
    return values.get(value, Known())


def gives_rows(layer: Layer | None) -> bool:
    """Whether a layer makes one row of numbers, one for each channel, of each image."""
    return isinstance(layer, FirstPixel) or (isinstance(layer, GlobalPool) and not layer.keepdims)


def channels_taken(layer: Layer | None) -> int:
    """How many channels a layer takes; 0 if any number will do."""
    return 0 if layer is None else layer.input_channels
