"""A model's layers, changed so that a target framework has them: paddings in integers, pixels in its order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ...contract.layer import LayerSpec
from ...errors import ConvlabError, ModelError, UnsupportedError
from ...geometry.geometry import Pads, Pair
from ..adapters import Models
from ..layers.activations import NEVER_NEGATIVE, Activation
from ..layers.layer import LOWEST, Convolution, Dense, Flatten, Layer, Pad, join_border, padding_in
from ..layers.pooling import GlobalPool, Pool
from ..layers.reading import Model, Part

Built = list[tuple[Part, list[Any]]]


def joined(parts: Sequence[Part]) -> list[Part]:
    """The parts, with each border in the convolution that follows it."""
    result: list[Part] = []
    for part in parts:
        before = result[-1].layer if result else None
        if isinstance(before, Pad) and isinstance(part.layer, Convolution):
            convolution = join_border(before, part.layer)
            if convolution is not None:
                result[-1] = replace(part, layer=convolution)
                continue
        result.append(part)
    return result


class Lowering:
    """One model on its way to a framework.

    Attributes:
        reorder: whether pixels may be flattened in another order, which needs all layers to be ported.
        built: the native layers for each part.
        untouched: paths of what has none, and why.
        tied: whether the result holds for images of the given size alone.
        at: the sizes of the images that reach the layers whose padding was made for them, by path.
    """

    def __init__(self, source: Model, target: Models, style: str, size: Pair | None, reorder: bool = True) -> None:
        self.reorder = reorder
        self.channels: int | None = None
        self.target, self.whole = target, source.whole
        self.style = style if target.BUILTIN else "convlab"
        self.order = "CHW" if target.LAYOUT == "NCHW" else "HWC"
        # The size of the images that reach the next part, where it is known.
        self.size = size if source.whole else None
        # The pixels that were flattened in another order than the source's, and the path of the layer that did it.
        self.pixels: Pair | None = None
        self.flattened = ""
        self.before: Layer | None = None
        self.built: Built = []
        self.untouched: dict[str, str] = {}
        self.tied = False
        self.at: dict[str, Pair] = {}
        for part in joined(source.parts) if self.style == "convlab" else source.parts:
            self._add(part)
        if self.pixels not in (None, (1, 1)):  # No dense layer came that could be reordered.
            self.untouched[self.flattened] = "it flattens pixels in another order than the target"

    def _add(self, part: Part) -> None:
        layer = part.layer
        try:
            if layer is None:
                raise UnsupportedError(f"convlab doesn't know {part.note or type(part.native).__name__}")
            layer = self._lowered(layer, part.path)
            self.built.append((part, self._natives(layer)))
        except UnsupportedError as error:
            if isinstance(layer, Convolution):
                raise UnsupportedError(f"{part.path or part.note}: {error}") from error
            self.untouched[part.path] = str(error)
        self.before = layer
        if isinstance(layer, Convolution):
            self.channels = layer.spec.out_channels
        self.size = self._next_size(layer)

    def _lowered(self, layer: Layer, path: str) -> Layer:
        if isinstance(layer, Convolution):
            padding = self._padding(layer.spec, self.style == "convlab", path)
            return replace(layer, spec=replace(layer.spec, padding=padding))
        if isinstance(layer, Pool):
            spec = LayerSpec(layer.size, stride=layer.stride, padding=layer.padding)
            return replace(layer, padding=self._padding(spec, False, path))
        if isinstance(layer, Flatten):
            self.tied = self.tied or self.size not in (None, (1, 1))
        if isinstance(layer, Flatten) and layer.order != self.order:
            if self.size is None or not self.reorder:
                raise UnsupportedError(
                    f"it flattens pixels in the order {layer.order}, the target in the order {self.order}.",
                    hint="give input_size=(rows, columns), and the next dense layer is reordered.",
                )
            self.pixels, self.flattened = self.size, path
            return Flatten(self.order)
        if isinstance(layer, Dense) and self.pixels:
            layer, self.pixels = self._reordered(layer, self.pixels), None
        return layer

    def _padding(self, spec: LayerSpec, by_convlab: bool, path: str) -> Pads | str:
        """The padding, in integers where the target doesn't know its name and the image's size is known."""
        padding: Pads | str = spec.padding
        known = by_convlab or (self.target.SAME and padding == "same")
        if not isinstance(padding, str) or known or self.size is None:
            return padding
        self.tied, self.at[path] = True, self.size
        return padding_in(spec, self.size)

    def _reordered(self, layer: Dense, pixels: Pair) -> Dense:
        """A dense layer for pixels that are now flattened in the target's order."""
        (outputs, inputs), (h, w) = layer.kernel.shape, pixels
        if inputs % (h * w) or self.channels not in (None, inputs // (h * w)):
            raise ModelError(
                f"input_size: {h}x{w} pixels of {self.channels or 'some'} channels reach a dense layer of {inputs} "
                "inputs.",
                hint="give the size of the images that the model was made for.",
            )
        c = inputs // (h * w)
        if self.order == "CHW":
            pixel_by_pixel = layer.kernel.reshape(outputs, h, w, c)
            kernel = pixel_by_pixel.transpose(0, 3, 1, 2)
        else:
            channel_by_channel = layer.kernel.reshape(outputs, c, h, w)
            kernel = channel_by_channel.transpose(0, 2, 3, 1)
        return replace(layer, kernel=kernel.reshape(outputs, inputs))

    def _natives(self, layer: Layer) -> list[Any]:
        """The target's layers for a layer; for a pooling whose border it lacks, a border layer and the pooling."""
        try:
            return self.target.build(layer, self.style)
        except UnsupportedError:
            if not isinstance(layer, Pool) or isinstance(layer.padding, str) or layer.ceil:
                raise
            if layer.function == "average" and not layer.count_padding:
                raise
            before = self.before if self.whole else None
            never_negative = isinstance(before, Activation) and before.function in NEVER_NEGATIVE
            border = Pad(layer.padding, "zeros" if never_negative or layer.function == "average" else LOWEST)
            inner = replace(layer, padding=((0, 0), (0, 0)), count_padding=False)
            return [*self.target.build(border, self.style), *self.target.build(inner, self.style)]

    def _next_size(self, layer: Layer | None) -> Pair | None:
        if not self.whole or layer is None:
            return None
        if isinstance(layer, GlobalPool):
            return 1, 1
        try:
            return layer.output_size(self.size) if self.size else None
        except ConvlabError as error:
            why = str(error).partition(" Hint: ")[0]
            raise ModelError(f"input_size: the image doesn't go through: {why}", hint="give a larger one.") from error
