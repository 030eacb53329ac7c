"""The axes and channels that reach each layer of a file, as far as the layers before it tell."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..layers.attention import Attention, ClassToken, FirstPixel, PositionEmbedding
from ..layers.channels import ChannelShuffle, ChannelSlice, Chunk, PixelShuffle
from ..layers.flattening import Flatten, Unflatten
from ..layers.joining import BroadcastLike, Concatenate, Joining
from ..layers.layer import Convolution, Dense, Layer, Pad
from ..layers.pixels import Crop, Subsample, Upsample
from ..layers.pooling import GlobalPool, Pool
from ..layers.reading import INPUT
from ..layers.shapes import channels_taken, gives_rows
from ..layers.transposed import TransposedConvolution

_MOVING = (Chunk, ChannelSlice, ChannelShuffle, PixelShuffle)
_ATTENTION = (Attention, ClassToken, PositionEmbedding, FirstPixel)
_OF_IMAGES = (
    Convolution,
    TransposedConvolution,
    Pad,
    Crop,
    Subsample,
    Upsample,
    Pool,
    GlobalPool,
    *_MOVING,
    *_ATTENTION,
)
_NAMES = {2: "rows of numbers", 4: "images"}


class Flow:
    """How many axes and channels each value has; 0 where no layer has told yet.

    >>> flow = Flow()
    >>> flow.through(GlobalPool("max", keepdims=False), ["input"], "0"), flow.through(Pad(((1, 1), (1, 1))), ["0"], "1")
    (None, ('rows of numbers', 'images'))
    """

    def __init__(self) -> None:
        self.values = {INPUT: (0, 0)}

    def through(self, layer: Layer, inputs: Sequence[str], value: str) -> tuple[str, str] | None:
        """Go on through a layer; if that is impossible, say what the layer gets and what it takes."""
        ranks, channels = (max(each) for each in zip(*map(self.values.__getitem__, inputs), strict=True))
        wanted = 4 if isinstance(layer, _OF_IMAGES) else 0
        wanted = 2 if isinstance(layer, (Dense, Unflatten)) else wanted
        for rank, _ in map(self.values.__getitem__, inputs):
            if rank and rank != (wanted or ranks):
                return _NAMES[rank], _NAMES[wanted or ranks]
        taken = channels_taken(layer)
        if isinstance(layer, Unflatten) and channels % math.prod(layer.size):
            return f"{channels} numbers from the layer before it", f"a multiple of {math.prod(layer.size)}"
        if isinstance(layer, _MOVING) and channels % layer.divisor:
            return f"{channels} channels from the layer before it", f"a multiple of {layer.divisor}"
        if taken and channels not in (0, taken):
            return f"{channels} channels from the layer before it", f"{taken}"
        if isinstance(layer, Joining):
            each = [self.values[name][1] for name in inputs]
            if isinstance(layer, Concatenate):
                channels = sum(each) if all(each) else 0
            elif isinstance(layer, BroadcastLike):
                channels = each[0]
            elif len({count for count in each if count > 1}) > 1:
                return f"{' and '.join(map(str, each))} channels", "the same number"
        self.values[value] = self._after(layer, wanted or ranks, taken or channels)
        return None

    def _after(self, layer: Layer, rank: int, channels: int) -> tuple[int, int]:
        if isinstance(layer, Flatten):
            return 2, channels if rank == 2 else 0
        if isinstance(layer, Unflatten):
            return 4, layer.output_channels(channels)
        return 2 if gives_rows(layer) else rank, layer.output_channels(channels)
