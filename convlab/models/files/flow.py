"""The axes and channels that reach each layer of a file, as far as the layers before it tell."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from ..layers.across_channels import OF_PARTS
from ..layers.channels import ChannelShuffle, ChannelSlice, Chunk, PixelShuffle
from ..layers.dot_product import DotProductAttention
from ..layers.flattening import Flatten, Unflatten
from ..layers.joining import Concatenate, Joining, Like
from ..layers.layer import Dense, Layer
from ..layers.outputs import Outputs
from ..layers.ranks import own_rank
from ..layers.reading import INPUT
from ..layers.shapes import channels_taken, gives_rows
from ..layers.tokens import Anchors, ConcatenatePixels, Tokens

_MOVING = (Chunk, ChannelSlice, ChannelShuffle, PixelShuffle, *OF_PARTS, Anchors)
# Images of any number of axes.
_ANY = 1
# What `Tokens` gives.
_TOKENS = 6
_NAMES = {_ANY: "images", 2: "rows of numbers", 3: "sequences", 4: "images", 5: "volumes", _TOKENS: "tokens"}


class Flow:
    """How many axes and channels each value has; 0 where no layer has told yet.

    >>> from convlab.models.layers.layer import Pad
    >>> from convlab.models.layers.pooling import GlobalPool
    >>> flow = Flow()
    >>> flow.through(GlobalPool("max", keepdims=False), ["input"], "0"), flow.through(Pad(((1, 1), (1, 1))), ["0"], "1")
    (None, ('rows of numbers', 'images'))
    """

    def __init__(self, inputs: Iterable[str] = (INPUT,)) -> None:
        self.inputs = tuple(inputs)
        self.values = dict.fromkeys(self.inputs, (0, 0))

    def through(self, layer: Layer, inputs: Sequence[str], value: str) -> tuple[str, str] | None:
        """Go on through a layer; if that is impossible, say what the layer gets and what it takes."""
        if isinstance(layer, Outputs):
            self.values[value] = 0, 0
            return None
        ranks, channels = (max(each) for each in zip(*map(self.values.__getitem__, inputs), strict=True))
        wanted = _taken(layer)
        for rank, _ in map(self.values.__getitem__, inputs):
            if rank == _TOKENS or (rank and not _goes_with(rank, wanted or ranks)):
                return _NAMES[rank], _NAMES[wanted or min(ranks, 4)]
        taken = channels_taken(layer)
        if isinstance(layer, Unflatten) and channels % math.prod(layer.size):
            return f"{channels} numbers from the layer before it", f"a multiple of {math.prod(layer.size)}"
        if isinstance(layer, _MOVING) and channels % layer.divisor:
            return f"{channels} channels from the layer before it", f"a multiple of {layer.divisor}"
        if taken and channels not in (0, taken):
            return f"{channels} channels from the layer before it", f"{taken}"
        if isinstance(layer, Joining):
            each = [self.values[name][1] for name in inputs]
            if (wrong := _apart(layer, each)) is not None:
                return wrong
            channels = _joined(layer, each)
        self.values[value] = self._after(layer, max(wanted, ranks), taken or channels)
        return None

    def _after(self, layer: Layer, rank: int, channels: int) -> tuple[int, int]:
        if isinstance(layer, Flatten):
            return 2, channels if rank == 2 else 0
        if isinstance(layer, Unflatten):
            return len(layer.size) + 2, layer.output_channels(channels)
        if isinstance(layer, Tokens):
            return _TOKENS, channels
        return 2 if gives_rows(layer) else rank, layer.output_channels(channels)


def _apart(layer: Joining, channels: Sequence[int]) -> tuple[str, str] | None:
    """What a layer gets and what it takes, if values of so many channels don't go together."""
    got = f"{' and '.join(map(str, channels))} channels"
    if isinstance(layer, DotProductAttention):
        alike = channels[0] == channels[1] or not all(channels[:2])
        fits = alike and not any(count % layer.heads for count in channels)
        return None if fits else (got, f"multiples of {layer.heads}, of which the first two are alike")
    any_number = isinstance(layer, (Concatenate, Like))
    least = 0 if isinstance(layer, ConcatenatePixels) else 1  # one channel counts for all, but for pixels in a row
    alike = any_number or len({count for count in channels if count > least}) < 2
    return None if alike else (got, "the same number")


def _joined(layer: Joining, channels: Sequence[int]) -> int:
    """The channels of what a layer makes of several values."""
    if isinstance(layer, Concatenate):
        return sum(channels) if all(channels) else 0
    if isinstance(layer, DotProductAttention):
        return channels[2]
    return channels[0] if isinstance(layer, Like) else max(channels)


def _taken(layer: Layer) -> int:
    """How many axes a layer takes; 0 if any number will do."""
    if isinstance(layer, (Dense, Unflatten)):
        return 2
    if rank := own_rank(layer):
        return rank + 2
    return _ANY if isinstance(layer, _MOVING) and not isinstance(layer, (Chunk, ChannelSlice)) else 0


def _goes_with(rank: int, wanted: int) -> bool:
    return rank == wanted or (_ANY in (rank, wanted) and 2 not in (rank, wanted))
