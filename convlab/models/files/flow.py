"""The axes and channels that reach each layer of a chain, as far as the layers before it tell."""

from __future__ import annotations

from ..layers.layer import BatchNorm, Convolution, Dense, Flatten, Layer, Pad
from ..layers.pooling import GlobalPool, Pool


class Flow:
    """How many axes and channels reach a layer; 0 where no layer has told yet.

    >>> flow = Flow()
    >>> flow.through(GlobalPool("max", keepdims=False)), flow.through(Pad(((1, 1), (1, 1))))
    (None, ('rows of numbers', 'images'))
    """

    def __init__(self) -> None:
        self.rank, self.channels = 0, 0

    def through(self, layer: Layer) -> tuple[str, str] | None:
        """Go on through a layer; if that is impossible, say what the layer gets and what it takes."""
        wanted = 4 if isinstance(layer, (Convolution, Pad, Pool, GlobalPool)) else 2 if isinstance(layer, Dense) else 0
        if wanted and self.rank not in (0, wanted):
            names = {2: "rows of numbers", 4: "images"}
            return names[self.rank], names[wanted]
        channels = _channels(layer)
        if channels and self.channels not in (0, channels):
            return f"{self.channels} channels from the layer before it", f"{channels}"
        self.rank = wanted or self.rank
        self.channels = channels or self.channels
        if isinstance(layer, (Convolution, Dense)):
            self.channels = layer.kernel.shape[0]
        elif isinstance(layer, Flatten):
            self.channels = self.channels if self.rank == 2 else 0
            self.rank = 2
        elif isinstance(layer, GlobalPool) and not layer.keepdims:
            self.rank = 2
        return None


def _channels(layer: Layer) -> int:
    """How many channels a layer takes; 0 if any number will do."""
    if isinstance(layer, Convolution):
        return int(layer.kernel.shape[1]) * int(layer.spec.groups)
    if isinstance(layer, Dense):
        return int(layer.kernel.shape[1])
    return len(layer.mean) if isinstance(layer, BatchNorm) else 0
