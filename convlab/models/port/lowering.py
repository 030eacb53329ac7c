"""A model's layers, changed so that a target framework has them: paddings in integers, pixels in its order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from ...contract.layer import LayerSpec
from ...errors import ConvlabError, ModelError, UnsupportedError
from ...geometry.geometry import Pads, Pair
from ..adapters import Models
from ..layers.activations import NEVER_NEGATIVE, Activation
from ..layers.layer import LOWEST, ORDERS, Convolution, Dense, Flatten, Layer, Pad, join_border, padding_in
from ..layers.pooling import AdaptivePool, GlobalPool, Pool
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
        blockers: paths of what keeps the whole model from being ported, and so pixels from being flattened in another
            order: a dense layer is only reordered together with the flattening.
        built: the native layers for each part.
        untouched: paths of what has none, and why.
        tied: whether the result holds for images of the given size alone.
        at: the sizes of the images that reach the layers whose padding was made for them, by path.
    """

    def __init__(
        self, source: Model, target: Models, style: str, size: Pair | None, blockers: Iterable[str] = ()
    ) -> None:
        self.blockers = [*blockers]
        self.channels: int | None = None
        self.target, self.whole = target, source.whole
        self.style = style if target.BUILTIN else "convlab"
        self.order = "CHW" if target.LAYOUT == "NCHW" else "HWC"
        # The size of the images that reach the next part, where it is known.
        self.size = size if source.whole else None
        # Why it isn't known, and what helps.
        self.size_unknown, self.size_hint = "", "give input_size=(rows, columns)"
        if not source.whole:
            self.size_unknown = "; it isn't known here, since the model isn't its layers one after another"
            self.size_hint = ""
        # The pixels that were flattened in another order than the source's, and the path of the layer that did it.
        self.pixels: Pair | None = None
        self.flattened = ""
        self.before: Layer | None = None
        self.built: Built = []
        self.untouched: dict[str, str] = {}
        self.refused: tuple[str, UnsupportedError] | None = None
        self.tied = False
        self.at: dict[str, Pair] = {}
        for part in joined(source.parts) if self.style == "convlab" else source.parts:
            self._add(part)
        if self.pixels not in (None, (1, 1)):
            self.untouched[self.flattened] = (
                f"the target flattens pixels {ORDERS[self.order]}, and no dense layer comes that could be reordered"
            )
        self._refuse_without_weights()

    def _refuse_without_weights(self) -> None:
        """Raise the error of the first convolution if none of the layers with weights could be built."""
        if self.refused and not any(part.layer and part.layer.arrays for part, _ in self.built):
            path, error = self.refused
            raise UnsupportedError(f"{path}: {error}") from error

    def _add(self, part: Part) -> None:
        layer = part.layer
        try:
            if layer is None:
                why = part.note or type(part.native).__name__
                raise UnsupportedError(why if ":" in why else f"convlab doesn't know {why}")
            layer = self._lowered(layer, part.path)
            self.built.append((part, self._natives(layer)))
        except UnsupportedError as error:
            if isinstance(layer, Convolution):
                self.refused = self.refused or (part.path or part.note, error)
            self.untouched[part.path] = str(error)
        self.before = layer
        if isinstance(layer, Convolution):
            self.channels = layer.spec.out_channels
        known = self.size is not None
        self.size = self._next_size(layer)
        if known and self.size is None:
            self.size_unknown, self.size_hint = f"; it isn't known behind {part.path!r}", ""

    def _lowered(self, layer: Layer, path: str) -> Layer:
        if isinstance(layer, Convolution):
            padding = self._padding(layer.spec, path)
            return replace(layer, spec=replace(layer.spec, padding=padding))
        if isinstance(layer, Pool):
            spec = LayerSpec(layer.size, stride=layer.stride, padding=layer.padding)
            return replace(layer, padding=self._padding(spec, path, convolution=False))
        if isinstance(layer, Flatten):
            self.tied = self.tied or self.size not in (None, (1, 1))
            if layer.order != self.order:
                # A single pixel has no order.
                return Flatten(self.order) if self.size == (1, 1) else self._other_order(layer, path)
        if isinstance(layer, Dense) and self.pixels:
            layer, self.pixels = self._reordered(layer, self.pixels), None
        return layer

    def _other_order(self, layer: Flatten, path: str) -> Flatten:
        """A flattening in the target's order, for which the next dense layer will be reordered."""
        orders = f"it flattens pixels {ORDERS[layer.order]}, the target {ORDERS[self.order]}"
        if self.size is None:
            raise self._needs_size(f"{orders}; to reorder the next dense layer needs the image's size")
        others = [repr(other) for other in self.blockers if other != path]
        if others:
            raise UnsupportedError(
                f"{orders}; the next dense layer can be reordered only in a whole model, which {others[0]} prevents"
            )
        self.pixels, self.flattened = self.size, path
        return Flatten(self.order)

    def _needs_size(self, what: str, *others: str) -> UnsupportedError:
        """The error where the image's size isn't known; `others` are other ways to help."""
        hints = [each for each in (self.size_hint, *others) if each]
        return UnsupportedError(f"{what}{self.size_unknown}.", hint=f"{', or '.join(hints)}." if hints else "")

    def _padding(self, spec: LayerSpec, path: str, convolution: bool = True) -> Pads | str:
        """The padding, in integers where the target doesn't know its name and the image's size is known."""
        padding: Pads | str = spec.padding
        known = (convolution and self.style == "convlab") or (self.target.SAME and padding == "same")
        if not isinstance(padding, str) or known:
            return padding
        if self.size is None:
            what = f"padding={padding!r} with a stride needs the image's size, since the target has no such padding"
            raise self._needs_size(what, *(["layers='convlab'"] if convolution else []))
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
            if isinstance(layer, AdaptivePool):
                raise self._adaptive(layer) from None
            if not isinstance(layer, Pool) or isinstance(layer.padding, str) or layer.ceil:
                raise
            if layer.function == "average" and not layer.count_padding:
                raise
            before = self.before if self.whole else None
            never_negative = isinstance(before, Activation) and before.function in NEVER_NEGATIVE
            border = Pad(layer.padding, "zeros" if never_negative or layer.function == "average" else LOWEST)
            inner = replace(layer, padding=((0, 0), (0, 0)), count_padding=False)
            return [*self.target.build(border, self.style), *self.target.build(inner, self.style)]

    def _adaptive(self, layer: AdaptivePool) -> UnsupportedError:
        to = f"{layer.size[0]}x{layer.size[1]}"
        if self.size is None:
            return self._needs_size(f"its windows, of an adaptive pooling to {to} pixels, depend on the image's size")
        pixels = f"{self.size[0]}x{self.size[1]}"
        return UnsupportedError(f"it pools {pixels} pixels to {to} by windows of different sizes, as only PyTorch can.")

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
