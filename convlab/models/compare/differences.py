"""How the attributes of two layers differ, in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np

from ...errors import ConvlabError
from ...truth.suspects import padding_in_words
from ..layers.activations import Activation, Affine
from ..layers.flattening import ORDERS, Flatten, Unflatten
from ..layers.layer import Convolution, Dense, Layer
from ..layers.pooling import Pool
from ..layers.spatial import Ends, Size, is_padded, padding_in, times, window
from ..layers.steps import Step

# Numbers that are compared at once.
_AT_ONCE = 2**22


def differences(
    step: Step, other: Step, size: Size | None = None, channels: int | None = None
) -> Iterator[tuple[str, str]]:
    """The names of the attributes in which two steps differ, and how each differs.

    Args:
        step: of the first model.
        other: of the second one.
        size: the rows and columns of an image, for which "same" padding is told in numbers.
        channels: of that image, for dense layers that flatten it in different orders.
    """
    a, b = (each.convolution or each.transposed or each.main for each in (step, other))
    reordered = columns_reordered(step, other, channels)
    if isinstance(a, Pool) and isinstance(b, Pool):
        a, b = _pools(step, other)
    if type(a) is not type(b):
        yield "kind", f"the first has {in_words(a)}, the second {in_words(b)}"
        return
    mine, theirs = {**_orders(step), **dict(_facts(a))}, {**_orders(other), **dict(_facts(b))}
    if reordered:
        mine.update(order=theirs["order"], kernel=reordered.kernel)
    for name, value in ((name, value) for name, value in mine.items() if name in theirs):
        there = theirs[name]
        if isinstance(value, np.ndarray) or isinstance(there, np.ndarray):
            sentence = _arrays(name, value, there)
        elif value == there:
            continue
        elif name == "padding":
            sentence = f"the first pads {_padding(a, size)}, the second {_padding(b, size)}"
        elif name == "order" and isinstance(a, Unflatten):
            sentence = f"the first's rows have pixels {ORDERS[value]}, the second's {ORDERS[there]}"
        elif name == "order":
            sentence = f"the first flattens pixels {ORDERS[value]}, the second {ORDERS[there]}"
            sentence += ", so that the dense layer's columns must be reordered, as convlab.port does"
        else:
            sentence = f"{_words(name)} is {value} in the first, {there} in the second"
        if sentence:
            yield name, sentence


def columns_reordered(step: Step, other: Step, channels: int | None) -> Dense | None:
    """The first dense layer with its columns as the second flattens them, unless both have the same columns.

    None for other layers, and where both flatten in the same order.
    """
    a, b = step.main, other.main
    if not (channels and isinstance(a, Dense) and isinstance(b, Dense) and a.kernel.shape == b.kernel.shape):
        return None
    orders = {step.flattened, other.flattened}
    if orders != {"CHW", "HWC"} or a.input_channels % channels or np.array_equal(a.kernel, b.kernel):
        return None
    return a.reordered(channels, other.flattened)


def _pools(step: Step, other: Step) -> tuple[Layer, Layer]:
    """Two pools, each with the border before it, unless they then have the same."""
    a, b = step.pool or step.main, other.pool or other.main
    return (step.main, other.main) if dict(_facts(a)) == dict(_facts(b)) else (a, b)


def in_words(layer: Layer) -> str:
    """What a layer is, as a user would call it.

    >>> in_words(Activation("relu")), in_words(Affine(0.5, -1.0))
    ('relu', 'affine (x * 0.5 - 1)')
    """
    if isinstance(layer, Activation):
        return layer.function
    if isinstance(layer, Affine):
        sign = "-" if layer.shift < 0 else "+"
        return f"affine (x * {layer.scale:.4g}" + (f" {sign} {abs(layer.shift):.4g})" if layer.shift else ")")
    return layer.kind


def _arrays(name: str, a: np.ndarray | None, b: np.ndarray | None) -> str:
    if a is None or b is None:
        return f"the first has {'no' if a is None else 'a'} {name}, the second {'none' if b is None else 'has one'}"
    if a.shape != b.shape:
        return f"{_words(name)} has shape {a.shape} in the first, {b.shape} in the second"
    # A large kernel's differences, all at once, would take as much memory again.
    pieces = -(-a.size // _AT_ONCE)
    rows = zip(np.array_split(a, pieces), np.array_split(b, pieces), strict=True) if pieces > 1 else [(a, b)]
    largest = [np.abs(mine - theirs).max(initial=0.0) for mine, theirs in rows if not np.array_equal(mine, theirs)]
    return f"{_words(name)} differs by up to {max(largest):.3g}" if largest else ""


def _words(name: str) -> str:
    """An attribute in the field's words."""
    return _WORDS.get(name, name)


_WORDS = {
    "padding_mode": "the border (padding_mode)",
    "padding_value": "the border's value (padding_value)",
    "mean": "the running mean",
    "variance": "the running variance",
    "parameter": "the function's parameter",
    "crop": "what is taken off the result (by padding, output_padding or a crop)",
    "count_padding": "whether the border counts in the mean (count_padding)",
}


def _padding(layer: Layer, size: Size | None) -> str:
    assert isinstance(layer, (Convolution, Pool))
    padding = layer.spec.padding if isinstance(layer, Convolution) else layer.padding
    if not isinstance(padding, str):
        return _ends_in_words(padding) if is_padded(padding) else "nothing"
    name = padding.upper()
    try:
        if size is not None:
            spec = layer.spec if isinstance(layer, Convolution) else window(layer.size, stride=layer.stride)
            ends = padding_in(replace(spec, padding=padding), size)
            return f"{_ends_in_words(ends)} ({name}, on {times(size)} pixels)"
    except ConvlabError:  # The image is too small.
        pass
    return name


def _ends_in_words(pads: Ends) -> str:
    return padding_in_words((pads[0], pads[-1])) if len(pads) < 3 else str(pads)


def _orders(step: Step) -> dict[str, Any]:
    """The order of the pixels that are flattened before it, if any are."""
    order = next((layer.order for layer in step.layers if isinstance(layer, Flatten)), None)
    return {"order": order or "none"}


def _facts(layer: Layer) -> Iterable[tuple[str, Any]]:
    if isinstance(layer, Convolution):
        spec = layer.spec
        for name in ("stride", "padding", "padding_mode", "padding_value", "dilation", "groups", "dtype"):
            yield name, getattr(spec, name)
    # The first three count in training only; the others follow from the shapes of a pair, or are in the spec.
    left_out = ("momentum", "rate", "trained", "spec", "keepdims", "count_padding")
    if isinstance(layer, Pool) and layer.function == "average" and is_padded(layer.padding):
        yield "count_padding", layer.count_padding
    for attribute in fields(layer):  # type: ignore[arg-type]
        if attribute.compare and attribute.name not in left_out:
            yield attribute.name, getattr(layer, attribute.name)
