"""What commonly goes wrong with a layer that is copied: each function here is one suspect.

To add a suspect, write a function of a `LayerCase` that yields a `Cause` for each way in which the mistake can show,
and register it with `@layer_suspect` for the classes of layers that can have it. The first one that explains a
difference names it. What goes wrong with the result of a convolution is in `convlab.truth.suspects`, and comes before
these; `differences` tells in any case how attributes differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ...dtypes import SIGNIFICAND
from ...page.page import listed
from ...truth.suspects import BIAS_FAULTS
from ..layers.activations import FUNCTIONS, WITH_PARAMETER, Activation
from ..layers.layer import BatchNorm, Convolution, Dense, Layer
from ..layers.pixels import Upsample
from ..layers.resizing import Resize
from ..layers.transposed import TransposedConvolution

# Arrays are in float32 or narrower; what is computed from them may be off by a few roundings.
_NEARLY = 1e-5
# A batch's own mean and variance have further roundings than those that a layer's bound counts.
_ROUNDINGS_OF_STATISTICS = 16
# A transposed convolution's result may begin so many rows and columns away from where it should.
_FARTHEST = 2
# A sentence names up to so many channels.
_MOST_CHANNELS = 8


class LayerCase(NamedTuple):
    """A layer whose result is in question.

    Attributes:
        a: the first model's layer, by which the result is judged.
        b: the second model's layer as its attributes describe it.
        x: the first of the values that they take.
        result: the result in question.
        bound: how far it may be from the true one.
    """

    a: Any
    b: Any
    x: np.ndarray
    result: np.ndarray
    bound: np.ndarray


class Cause(NamedTuple):
    """What is wrong with a layer, and how to mend it."""

    explanation: str
    change: str


LayerSuspect = Callable[[LayerCase], Iterator[Cause]]
_SUSPECTS: list[tuple[str, tuple[type[Layer], ...], LayerSuspect]] = []


def layer_suspect(name: str, *kinds: type[Layer]) -> Callable[[LayerSuspect], LayerSuspect]:
    """Register a function of a `LayerCase` as the suspect of that name, for layers of these classes."""

    def register(function: LayerSuspect) -> LayerSuspect:
        _SUSPECTS.append((name, kinds, function))
        return function

    return register


def layer_cause(case: LayerCase) -> str:
    """The first suspect that explains the case, in words; "" if none does."""
    for name, kinds, suspect in _SUSPECTS:
        if isinstance(case.a, kinds) and type(case.a) is type(case.b):
            for cause in suspect(case):
                return f"{name}: {cause.explanation}.\nTo mend it: {cause.change}."
    return ""


@layer_suspect("mean and variance swapped", BatchNorm)
def _statistics_swapped(case: LayerCase) -> Iterator[Cause]:
    if _equal(case.b.mean, case.a.variance):
        yield Cause("the second's running mean is the first's running variance", "set mean and variance the other way")


@layer_suspect("scale and shift swapped", BatchNorm)
def _scale_and_shift_swapped(case: LayerCase) -> Iterator[Cause]:
    if _equal(case.b.scale, case.a.shift) and _equal(case.b.shift, case.a.scale):
        yield Cause("the second's scale is the first's shift", "set scale (gamma) and shift (beta) the other way")


@layer_suspect("statistics not loaded", BatchNorm)
def _statistics_new(case: LayerCase) -> Iterator[Cause]:
    if not case.b.mean.any() and (case.b.variance == 1).all():
        yield Cause("the second's running mean is 0 and its running variance 1, as in a new layer", "load them, too")


@layer_suspect("statistics of another momentum", BatchNorm)
def _momentum(case: LayerCase) -> Iterator[Cause]:
    a, b = (np.append(norm.mean, norm.variance.astype(np.float64) - 1) for norm in (case.a, case.b))
    # A variance close to 1 has lost the last bits of how far it is from 1.
    rounding = float(np.spacing(np.abs([case.a.variance, case.b.variance]).max()))
    share = _factor(a, b, rounding)
    if share is not None:
        yield Cause(
            f"the second's running statistics have gone {share:.3g} times as far from 0 and 1 as the first's, as with "
            "another momentum or another number of batches",
            "copy them; PyTorch's momentum is 1 minus that of the other frameworks",
        )


@layer_suspect("unbiased variance", BatchNorm)
def _unbiased(case: LayerCase) -> Iterator[Cause]:
    factor = _factor(case.a.variance, case.b.variance)
    if factor is not None and _equal(case.a.mean, case.b.mean):
        yield Cause(
            f"the second's running variance is {factor:.6g} times the first's, as n / (n - 1) of batches of n pixels",
            "copy it; PyTorch keeps the unbiased variance of a batch, the other frameworks the biased one",
        )


@layer_suspect("training mode", BatchNorm)
def _training(case: LayerCase) -> Iterator[Cause]:
    norm, inner = case.b, (0, *range(2, case.x.ndim))
    of_batch = BatchNorm(case.x.mean(inner), case.x.var(inner), norm.scale, norm.shift, norm.epsilon, norm.momentum)
    if case.result.shape == case.x.shape:
        bound = _ROUNDINGS_OF_STATISTICS * of_batch.error(case.x, np.zeros_like(case.x), norm.dtype)
        if (np.abs(case.result - of_batch.reference(case.x)) <= bound).all():
            yield Cause(
                "it normalises by the mean and variance of the batch that it is given, as in training, and not by its "
                "running statistics",
                "use it in inference: model.eval(), training=False, use_running_average=True",
            )


@layer_suspect("another activation", Activation)
def _another_activation(case: LayerCase) -> Iterator[Cause]:
    if (case.a.function, case.a.parameter) != (case.b.function, case.b.parameter):
        return
    # Without their parameter some are others.
    none = {case.a.function, *(() if case.a.parameter else WITH_PARAMETER)}
    others = {"no function at all": case.x} | {
        name: function.of(case.x, case.a.parameter) for name, function in FUNCTIONS.items() if name not in none
    }
    for name, other in others.items():
        if case.result.shape == other.shape and (np.abs(case.result - other) <= case.bound + _NEARLY).all():
            yield Cause(f"it computes {name} instead of {case.a.function}", f"use {case.a.function}")


@layer_suspect("another upsampling", Upsample, Resize)
def _another_upsampling(case: LayerCase) -> Iterator[Cause]:
    ways = {
        ("nearest", False): "the nearest pixel",
        ("nearest_exact", False): "the pixel nearest to its centre (nearest_exact)",
        ("bilinear", False): "bilinear interpolation at half-pixel centres (align_corners=False)",
        ("bilinear", True): "bilinear interpolation of aligned corners (align_corners=True)",
    }
    own = case.a.method, case.a.align_corners and case.a.method == "bilinear"
    for (method, aligned), words in ways.items():
        result = replace(case.a, method=method, align_corners=aligned).reference(case.x)
        fits = (method, aligned) != own and case.result.shape == result.shape
        if fits and (np.abs(case.result - result) <= case.bound).all():
            yield Cause(f"it takes {words} instead of {ways[own]}", f"take {ways[own]}")


@layer_suspect("kernel flipped", TransposedConvolution)
def _kernel_flipped(case: LayerCase) -> Iterator[Cause]:
    flax = "; Flax's ConvTranspose with transpose_kernel=False has it flipped"
    ways: dict[int, list[tuple[tuple[int, ...], str, str]]] = {
        1: [((2,), "end to end", f"::-1]{flax}")],
        2: [
            ((2, 3), "on both axes", f"::-1, ::-1]{flax}"),
            ((2,), "top to bottom", "::-1, :]"),
            ((3,), "left to right", ":, ::-1]"),
        ],
        3: [((2, 3, 4), "on all axes", f"::-1, ::-1, ::-1]{flax}")],
    }
    for axes, how, back in ways[len(case.a.stride)]:
        if _computes(case, replace(case.a, kernel=np.flip(case.a.kernel, axes))):
            yield Cause(f"the kernel is flipped {how}", f"flip the kernel back: kernel[..., {back}")


@layer_suspect("kernel transposed", TransposedConvolution)
def _kernel_transposed(case: LayerCase) -> Iterator[Cause]:
    size = case.a.kernel.shape[2:]
    if len(size) == 2 and size[0] == size[1] and _computes(case, replace(case.a, kernel=case.a.kernel.swapaxes(2, 3))):
        yield Cause("the kernel's rows are its columns", "transpose it back: kernel.swapaxes(2, 3)")


@layer_suspect("kernel channels swapped", TransposedConvolution)
def _kernel_channels_swapped(case: LayerCase) -> Iterator[Cause]:
    kernel = case.a.kernel
    inputs, outputs = kernel.shape[:2]
    if _computes(case, replace(case.a, kernel=kernel.swapaxes(0, 1).reshape(kernel.shape))):
        yield Cause(
            f"the kernel's {inputs} input and {outputs} output channels are swapped",
            "swap them back: kernel.swapaxes(0, 1); PyTorch and MXNet have (inputs, outputs, height, width), Keras "
            "(height, width, outputs, inputs), Flax (height, width, inputs, outputs)",
        )


@layer_suspect("other padding", TransposedConvolution)
def _other_crop(case: LayerCase) -> Iterator[Cause]:
    if case.result.ndim != 4:
        return
    rows, columns = case.result.shape[2:]
    whole = replace(case.a, crop=((0, 0), (0, 0))).output_size(case.x.shape[2:])
    (top, _), (left, _) = case.a.crop
    first, before = top - _FARTHEST, left - _FARTHEST
    # The result with so many more rows and columns on each side: each other crop is a part of it.
    last, behind = whole[0] - rows - top - _FARTHEST, whole[1] - columns - left - _FARTHEST
    wide = replace(case.a, crop=((first, last), (before, behind)))
    reference, bound = _reference(case, wide)
    for down, across in sorted(np.ndindex(2 * _FARTHEST + 1, 2 * _FARTHEST + 1), key=_from_the_middle):
        part = (..., slice(down, down + rows), slice(across, across + columns))
        if _within(case.result, reference[part], bound[part]):
            start, begin = first + down, before + across
            crop = (start, whole[0] - rows - start), (begin, whole[1] - columns - begin)
            what = f"what is taken off the result (by padding, output_padding or a crop) is {crop}"
            own = case.a.own_padding
            names = f", in PyTorch and MXNet padding={own[0]}, output_padding={own[1]}" if own else ""
            yield Cause(f"{what} instead of {case.a.crop}", f"take off {case.a.crop}{names}")


def _from_the_middle(place: tuple[int, ...]) -> int:
    return sum(abs(each - _FARTHEST) for each in place)


def _bias(name: str, what: str, change: str, other: Callable[[np.ndarray], np.ndarray | None]) -> None:
    @layer_suspect(name, TransposedConvolution)
    def suspect(case: LayerCase) -> Iterator[Cause]:
        if case.a.bias is not None and _computes(case, replace(case.a, bias=other(case.a.bias))):
            yield Cause(what, change)


for _fault in BIAS_FAULTS:
    _bias(*_fault)


@layer_suspect("flattened in another order", Dense)
def _flattened(case: LayerCase) -> Iterator[Cause]:
    outputs, inputs = case.a.kernel.shape
    if case.a.kernel.shape != case.b.kernel.shape:
        return
    for channels in (n for n in range(2, inputs // 2 + 1) if inputs % n == 0):
        for order, other in (("channel by channel", "pixel by pixel"), ("pixel by pixel", "channel by channel")):
            rows = channels if order == "channel by channel" else inputs // channels
            if _equal(case.a.kernel.reshape(outputs, rows, -1).swapaxes(1, 2).reshape(outputs, -1), case.b.kernel):
                yield Cause(
                    f"the first's columns are for {channels} channels that are flattened {order}, the second's for "
                    f"pixels that are flattened {other}",
                    "reorder the columns, as convlab.port does, or flatten in the other order",
                )


@layer_suspect("kernel transposed", Dense)
def _transposed(case: LayerCase) -> Iterator[Cause]:
    if _equal(case.a.kernel, case.b.kernel.T):
        yield Cause("the second's kernel is the first's, transposed", "transpose it back: kernel.T")


@layer_suspect("permuted outputs", Convolution, TransposedConvolution, Dense, BatchNorm)
def _permuted_outputs(case: LayerCase) -> Iterator[Cause]:
    order = "kernel[:, order]" if isinstance(case.a, TransposedConvolution) else "kernel[order]"
    yield from _permuted(case, 0, "output channels", f"{order}, and bias and what follows likewise")


@layer_suspect("permuted inputs", Convolution, TransposedConvolution, Dense)
def _permuted_inputs(case: LayerCase) -> Iterator[Cause]:
    order = "kernel[order]" if isinstance(case.a, TransposedConvolution) else "kernel[:, order] of OIHW"
    yield from _permuted(case, 1, "input channels", order)


def _permuted(case: LayerCase, axis: int, which: str, change: str) -> Iterator[Cause]:
    rows = [np.moveaxis(_main_array(layer), axis, 0) for layer in (case.a, case.b)]
    if rows[0].shape != rows[1].shape:
        return
    places: dict[bytes, list[int]] = {}
    for place, row in enumerate(rows[0]):
        places.setdefault(row.tobytes(), []).append(place)
    order = [places[row.tobytes()].pop(0) if places.get(row.tobytes()) else -1 for row in rows[1]]
    if -1 not in order and order != sorted(order):
        yield Cause(
            f"the second's {which} are those of the first in the order {_some(order)}", f"put them back: {change}"
        )


@layer_suspect("negated weights", Convolution, TransposedConvolution, Dense)
def _negated(case: LayerCase) -> Iterator[Cause]:
    if _equal(case.b.kernel, -case.a.kernel):
        yield Cause("the second's kernel is the first's, negated", "change its sign")


@layer_suspect("scaled weights", Convolution, TransposedConvolution, Dense)
def _scaled(case: LayerCase) -> Iterator[Cause]:
    factor = _factor(case.a.kernel, case.b.kernel)
    if factor is not None:
        of_images = any(abs(factor * n - 1) < _NEARLY or abs(factor / n - 1) < _NEARLY for n in (255, 127.5))
        why = ", as for images of 0 to 255 against those of 0 to 1" if of_images else ""
        yield Cause(f"the second's kernel is {factor:.6g} times the first's{why}", f"divide it by {factor:.6g}")


@layer_suspect("some outputs", Convolution, TransposedConvolution, Dense, BatchNorm)
def _some_outputs(case: LayerCase) -> Iterator[Cause]:
    a, b = _main_array(case.a), _main_array(case.b)
    if a.shape != b.shape:
        return
    others = np.flatnonzero((a != b).reshape(len(a), -1).any(1)).tolist()
    if 0 < len(others) < len(a):
        yield Cause(
            f"the weights of output channels {_some(others)} differ, those of the other {len(a) - len(others)} don't",
            "copy them again",
        )


def _main_array(layer: Any) -> np.ndarray:
    """What has a row for each output channel: a kernel, or the four numbers of a batch norm."""
    if isinstance(layer, BatchNorm):
        return np.stack([layer.mean, layer.variance, layer.scale, layer.shift], axis=1)
    if isinstance(layer, TransposedConvolution):  # As OIHW: the outputs of the groups one after another.
        return np.concatenate(np.split(layer.kernel, layer.groups), axis=1).swapaxes(0, 1)
    return np.asarray(layer.kernel)


def _computes(case: LayerCase, other: TransposedConvolution) -> bool:
    """Whether the result is what another layer computes."""
    return _within(case.result, *_reference(case, other))


def _reference(case: LayerCase, other: TransposedConvolution) -> tuple[np.ndarray, np.ndarray]:
    """Another layer's result, and how far rounding may take it from that."""
    dtype = min(case.a.dtype, case.b.dtype, key=lambda name: SIGNIFICAND[name])
    return other.reference(case.x), other.error(case.x, np.zeros_like(case.x), dtype)


def _within(result: np.ndarray, reference: np.ndarray, bound: np.ndarray) -> bool:
    return result.shape == reference.shape and bool((np.abs(result - reference) <= bound).all())


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and bool(a.any()) and np.array_equal(a, b)


def _factor(a: np.ndarray, b: np.ndarray, rounding: float = 0.0) -> float | None:
    """The number that b is times a, but for roundings of so much; None if it isn't, or if that is 1 or 0."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or not a.any() or not b.any():
        return None
    factor = float((a * b).sum() / (a * a).sum())
    near = np.abs(b - factor * a).max() <= max(_NEARLY * np.abs(b).max(), rounding)
    return factor if near and abs(factor - 1) > _NEARLY else None


def _some(numbers: list[int]) -> str:
    shown = [*map(str, numbers[:_MOST_CHANNELS])]
    return listed(shown) if len(numbers) <= _MOST_CHANNELS else f"{', '.join(shown)}, …"
