"""A model's layers, changed so that a target framework has them: paddings in integers, pixels in its order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from ...errors import ConvlabError, ModelError, UnsupportedError
from ..adapters import Models
from ..layers.activations import NEVER_NEGATIVE, Activation, Affine, Clip, shortest
from ..layers.attention import PositionEmbedding
from ..layers.flattening import ORDERS, Flatten
from ..layers.inputs import given_values
from ..layers.layer import LOWEST, BatchNorm, Convolution, Dense, Dropout, Layer, Pad, dtype_of, join_border
from ..layers.pooling import AdaptivePool, GlobalPool, Pool, average_of_inside
from ..layers.reading import Model, Part, consumers, without
from ..layers.shapes import Known, known_after
from ..layers.shared import SharedLayers
from ..layers.spatial import Ends, Size, Spec, padding_in, times, window
from ..layers.transposed import TransposedConvolution
from ..layers.windows import WindowAttention

Built = list[tuple[Part, list[Any]]]


def joined(parts: Sequence[Part]) -> list[Part]:
    """The parts, with each border in the convolution that follows it, if nothing else takes it."""
    takers, by_value = consumers(parts), {part.value: part for part in parts}
    with_border: dict[str, Layer] = {}
    needless: set[str] = set()
    for part in parts:
        border = by_value.get(part.inputs[0])
        if border is None or not isinstance(border.layer, Pad) or not isinstance(part.layer, Convolution):
            continue
        convolution = join_border(border.layer, part.layer)
        if convolution is not None and len(takers[border.value]) == 1:
            with_border[part.value] = convolution
            needless.add(border.value)
    changed = [replace(part, layer=with_border.get(part.value, part.layer)) for part in parts]
    return without(changed, lambda part: part.value in needless)


class Reaching(NamedTuple):
    """What is known of a value on its way to a framework.

    Attributes:
        shape: of the value; its size is None where it isn't known.
        unknown, hint: why the size isn't known, and what helps.
        flattened: the path of the layer that flattened the value's pixels in another order than the source's; "" for
            none.
        image: what is known of the image that it flattened.
        layer: the layer that gives the value, if it has no arrays.
    """

    shape: Known
    unknown: str = ""
    hint: str = ""
    flattened: str = ""
    image: Known = Known()
    layer: Layer | None = None


class Lowering:
    """One model on its way to a framework.

    Attributes:
        kept: paths of what flattens pixels in the source's order, since no dense layer behind it could be reordered.
        blockers: paths of what keeps the whole model from being ported, and so pixels from being flattened in another
            order: a dense layer is only reordered together with the flattening.
        built: the native layers for each part; the same list for calls of the same layer.
        untouched: paths of what has none, and why.
        tied: whether the result holds for images of the given size alone.
        sized: whether the new layers take others, and compute something else there.
        wide: whether it computes in float64.
        at: the sizes of the images that reach the layers whose padding was made for them, by path.
    """

    def __init__(
        self,
        source: Model,
        target: Models,
        style: str,
        size: Size | None,
        blockers: Iterable[str] = (),
        kept: Iterable[str] = (),
    ) -> None:
        self.blockers, self.kept = [*blockers], {*kept}
        self.target, self.whole = target, source.whole
        self.style = style if target.BUILTIN else "convlab"
        self.order = "CHW" if target.LAYOUT == "NCHW" else "HWC"
        unknown, hint = "", f"give input_size={_SIZES[source.rank]}"
        if not source.whole:
            unknown, hint = "; it isn't known here, since the model isn't its layers alone", ""
        image = Reaching(Known(), unknown, hint)
        given = given_values(source, size) if source.whole else dict.fromkeys(source.inputs, Known())
        self.values = {value: image._replace(shape=each) for value, each in given.items()}
        self.built: Built = []
        self.untouched: dict[str, str] = {}
        self.refused: tuple[str, UnsupportedError] | None = None
        self.tied = self.sized = False
        self.at: dict[str, Size] = {}
        self.wide = any(part.layer and dtype_of(part.layer) == "float64" for part in source.parts)
        parts = joined(source.parts) if self.style == "convlab" else source.parts
        self._shared = SharedLayers(parts)
        for part in parts:
            inputs = [self.values.get(value, image) for value in part.inputs]
            self.values[part.value] = self._add(part, inputs)
        if parts:
            self._keep_order(self.values[parts[-1].value])
        self._refuse_without_weights()

    def _keep_order(self, value: Reaching) -> None:
        """Note of a value that its pixels must stand in the source's order, where no dense layer can be reordered."""
        if value.flattened:
            self.kept.add(value.flattened)

    def _refuse_without_weights(self) -> None:
        """Raise the error of the first convolution if none of the layers with weights could be built."""
        if self.refused and not any(part.layer and part.layer.arrays for part, _ in self.built):
            path, error = self.refused
            raise UnsupportedError(f"{path}: {error}") from error

    def _add(self, part: Part, inputs: Sequence[Reaching]) -> Reaching:
        """Build a part's layers; what is known of its result comes back."""
        layer, given = part.layer, inputs[0]
        try:
            if layer is None:
                why = part.note or type(part.native).__name__
                raise UnsupportedError(why if ":" in why else f"convlab doesn't know {why}")
            new = layer = self._lowered(layer, part.path, given)
            self.built.append((part, self._shared.built(part, new, lambda: self._natives(new, given))))
        except UnsupportedError as error:
            if isinstance(layer, Convolution):
                self.refused = self.refused or (part.path or part.note, error)
            self.untouched[part.path] = str(error)
        if not isinstance(layer, (*_KEEPS_ORDER, Dense)):
            for value in inputs:
                self._keep_order(value)
        return self._after(part, layer, inputs)

    def _after(self, part: Part, layer: Layer | None, inputs: Sequence[Reaching]) -> Reaching:
        given = inputs[0]
        shape = self._next_shape(layer, [value.shape for value in inputs])
        if given.shape.size is not None and shape.size is None:
            given = given._replace(unknown=f"; it isn't known behind {part.path!r}", hint="")
        flattened, image = given.flattened, given.image
        if isinstance(layer, Flatten):
            other = isinstance(part.layer, Flatten) and layer.order != part.layer.order
            flattened, image = (part.path, given.shape) if other and not _has_no_order(given.shape) else ("", Known())
        elif not isinstance(layer, _KEEPS_ORDER):
            flattened, image = "", Known()
        # A layer with arrays isn't asked for, and would keep their memory.
        alone = None if layer is None or layer.arrays else layer
        return Reaching(shape, given.unknown, given.hint, flattened, image, alone)

    def _lowered(self, layer: Layer, path: str, given: Reaching) -> Layer:
        if isinstance(layer, Convolution):
            padding = self._padding(layer.spec, path, given)
            return replace(layer, spec=replace(layer.spec, padding=padding))
        if isinstance(layer, Pool):
            spec = window(layer.size, stride=layer.stride, padding=layer.padding)
            padding = self._padding(spec, path, given, convolution=False)
            if layer.function == "average" and not layer.count_padding and not layer.ceil:
                return average_of_inside(layer.size, layer.stride, padding)
            return replace(layer, padding=padding)
        if isinstance(layer, Flatten):
            # Behind a window as large as the image it is one pixel at this size of the image alone.
            always = given.shape.size is None or isinstance(given.layer, (GlobalPool, AdaptivePool))
            self.tied = self.tied or not always or not (given.shape.size is None or _is_pixel(given.shape))
            if layer.order != self.order and path not in self.kept:
                return (
                    replace(layer, order=self.order)
                    if _has_no_order(given.shape)
                    else self._other_order(layer, path, given)
                )
        if isinstance(layer, PositionEmbedding):
            self.tied = self.tied or given.shape.size is not None
            self.at[path] = given.shape.size or layer.embedding.shape[1:]
        if isinstance(layer, WindowAttention):
            self.tied = self.tied or layer.size is not None
            return replace(layer, size=given.shape.size)  # type: ignore[arg-type]  # it is for images
        if isinstance(layer, Dense) and given.flattened:
            return self._reordered(layer, given)
        # Some frameworks hold these numbers in float32.
        if isinstance(layer, Activation) and not self.wide:
            return replace(layer, parameter=shortest(layer.parameter))
        if isinstance(layer, Affine) and not self.wide:
            return Affine(shortest(layer.scale), shortest(layer.shift))
        if isinstance(layer, Clip) and not self.wide:
            return Clip(*map(shortest, layer.limits))
        return layer

    def _other_order(self, layer: Flatten, path: str, given: Reaching) -> Flatten:
        """A flattening in the target's order, for which the next dense layer will be reordered."""
        orders = f"it flattens pixels {ORDERS[layer.order]}, the target {ORDERS[self.order]}"
        if given.shape.size is None and not given.shape.channels:
            raise self._needs_size(f"{orders}; to reorder the next dense layer needs the image's size", given)
        others = [repr(other) for other in self.blockers if other != path]
        if others or not self.whole:
            why = f"which {others[0]} prevents" if others else "and only its layers are ported"
            raise UnsupportedError(f"{orders}; the next dense layer can be reordered only in a whole model, {why}")
        return replace(layer, order=self.order)

    def _needs_size(self, what: str, given: Reaching, *others: str) -> UnsupportedError:
        """The error where the image's size isn't known; `others` are other ways to help."""
        hints = [each for each in (given.hint, *others) if each]
        return UnsupportedError(f"{what}{given.unknown}.", hint=f"{', or '.join(hints)}." if hints else "")

    def _padding(self, spec: Spec, path: str, given: Reaching, convolution: bool = True) -> Ends | str:
        """The padding, in integers where the target doesn't know its name and the image's size is known."""
        padding: Ends | str = spec.padding
        known = (convolution and self.style == "convlab") or (self.target.SAME and padding == "same")
        if not isinstance(padding, str) or known:
            return padding
        size = given.shape.size
        if size is None:
            what = f"padding={padding!r} with a stride needs the image's size, since the target has no such padding"
            raise self._needs_size(what, given, *(["layers='convlab'"] if convolution else []))
        self.tied, self.sized, self.at[path] = True, True, size
        return padding_in(spec, size)

    def _reordered(self, layer: Dense, given: Reaching) -> Dense:
        """A dense layer for pixels that are now flattened in the target's order."""
        inputs, (channels, size, _) = layer.input_channels, given.image
        pixels = math.prod(size) if size else inputs // channels
        if inputs % pixels or inputs // pixels != (channels or inputs // pixels):
            raise ModelError(
                f"input_size: {f'{times(size)} pixels' if size else 'images'} of {channels or 'some'} channels "
                f"reach a dense layer of {inputs} inputs.",
                hint="give the size of the images that the model was made for.",
            )
        return layer.reordered(inputs // pixels, self.order)

    def _natives(self, layer: Layer, given: Reaching) -> list[Any]:
        """The target's layers for a layer; where it lacks a border or a crop, that is a layer of its own."""
        if isinstance(layer, BatchNorm) and given.shape.rows:
            layer = replace(layer, rank=0)
        try:
            return self.target.build(layer, self.style)
        except UnsupportedError:
            if isinstance(layer, AdaptivePool):
                raise self._adaptive(layer, given) from None
            cropped = layer.cropped() if isinstance(layer, TransposedConvolution) else None
            if cropped is not None:
                return [native for each in cropped for native in self.target.build(each, self.style)]
            if not isinstance(layer, Pool):
                raise
            whole = None if isinstance(layer.padding, str) else layer.whole_padding
            if layer.ceil and layer.count_padding and whole is not None and whole != layer.padding:
                # A border that counts is a part of the image; what lies beyond it doesn't count.
                inside = replace(layer, padding="valid", count_padding=False)
                counted = self.target.build(Pad(layer.padding), self.style)  # type: ignore[arg-type]
                return [*counted, *self._natives(inside, given)]
            pads = _border_of(layer)
            if pads is None:
                raise
            before = given.layer if self.whole else None
            never_negative = isinstance(before, Activation) and before.function in NEVER_NEGATIVE
            border = Pad(pads, "zeros" if never_negative or layer.function == "average" else LOWEST)
            inner = replace(layer, padding="valid", count_padding=False, ceil=False)
            return [*self.target.build(border, self.style), *self.target.build(inner, self.style)]

    def _adaptive(self, layer: AdaptivePool, given: Reaching) -> UnsupportedError:
        to = times(layer.size)
        size = given.shape.size
        if size is None:
            return self._needs_size(
                f"its windows, of an adaptive pooling to {to} pixels, depend on the image's size", given
            )
        return UnsupportedError(
            f"it pools {times(size)} pixels to {to} by windows of different sizes, which the target has not.",
            hint="another input_size has windows alike, or take a mean, which each target has for images.",
        )

    def _next_shape(self, layer: Layer | None, shapes: Sequence[Known]) -> Known:
        if not self.whole:
            return Known()
        try:
            return known_after(layer, shapes)
        except ConvlabError as error:
            why = str(error).partition(" Hint: ")[0]
            raise ModelError(f"input_size: the image doesn't go through: {why}", hint="give a larger one.") from error


def lowered(source: Model, target: Models, style: str, size: Size | None) -> Lowering:
    """A model on its way to a framework, once it is known which of its layers have to stay as they are."""
    lowering = Lowering(source, target, style, size)
    if lowering.untouched or lowering.kept:
        return Lowering(source, target, style, size, lowering.untouched, lowering.kept)
    return lowering


def _border_of(layer: Pool) -> Ends | None:
    """The border with which a pooling without padding computes the same; None if there is none."""
    padding = layer.padding
    if isinstance(padding, str) or (layer.function == "average" and (layer.ceil or not layer.count_padding)):
        return None
    return layer.whole_padding


def _is_pixel(shape: Known) -> bool:
    """Whether images are known to have one pixel."""
    return shape.size is not None and max(shape.size) == 1


def _has_no_order(shape: Known) -> bool:
    """Whether the numbers of images stand in the same order, whichever way they are flattened."""
    return _is_pixel(shape) or shape.channels == 1


# How a size is given, by its number of axes.
_SIZES = {1: "length", 2: "(rows, columns)", 3: "(depth, rows, columns)"}

# What may stand between a flattening and the dense layer that is reordered for it.
_KEEPS_ORDER = (Dropout,)
