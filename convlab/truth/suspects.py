"""What commonly goes wrong with a convolution: each function here is one suspect.

To add a suspect, write a function of a `SuspectedCall` that yields a `Fault` for each way in which the mistake can
show, and register it with `@suspect`. `diagnose` tries the suspects one at a time in the order of this file, the likely
and simple ones first; the losses of precision are in `precision`. A suspect needs no guard against impossible shapes,
nor against data that its mistake doesn't change.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np

from ..geometry.geometry import NO_PADDING, PaddingMode, Pads, Pair, placed
from .faults import Fault, SuspectedCall, suspect


@suspect("kernel flipped")
def _kernel_flipped(call: SuspectedCall) -> Iterator[Fault]:
    wanted = "in PyTorch K.flip(-2, -1); for a true convolution compare with conv2d (in SciPy, corr2d is correlate2d)"
    for axes, how, back in (
        ((2, 3), "on both axes, as in a true convolution", f"::-1, ::-1]; {wanted}"),
        ((2,), "top to bottom", "::-1, :]"),
        ((3,), "left to right", ":, ::-1]"),
    ):
        change = f"flip the kernel back: K[{'' if call.nhwc else '..., '}{back}"
        yield Fault(f"the kernel is flipped {how}", change, call.changed(k=np.flip(call.k, axes)))


@suspect("kernel transposed")
def _kernel_transposed(call: SuspectedCall) -> Iterator[Fault]:
    axes = (1, 0) if call.rank == 2 else (1, 0, 2, 3) if call.nhwc else (0, 1, 3, 2)
    change = f"transpose it back: K.transpose{axes}"
    yield Fault("the kernel's rows are its columns", change, call.changed(k=call.k.swapaxes(2, 3)))
    read = call.k.swapaxes(2, 3).reshape(call.k.shape)
    yield Fault("the kernel is read column by column", "store it row by row: order='C'", call.changed(k=read))


@suspect("image transposed")
def _image_transposed(call: SuspectedCall) -> Iterator[Fault]:
    what = f"X's height {call.x.shape[2]} and width {call.x.shape[3]} are swapped"
    yield Fault(what, "transpose X's rows and columns back", call.changed(x=call.x.swapaxes(2, 3)))


@suspect("result transposed")
def _result_transposed(call: SuspectedCall) -> Iterator[Fault]:
    what = f"the result's {call.size[2]} rows and {call.size[3]} columns are swapped"
    yield Fault(what, "transpose the result's rows and columns back", call, view=lambda y: y.swapaxes(2, 3))


@suspect("pairs swapped")
def _pairs_swapped(call: SuspectedCall) -> Iterator[Fault]:
    pairs = {"stride": call.stride, "padding": call.geometry.padding, "dilation": call.dilation}
    for names in (("stride",), ("padding",), ("dilation",), tuple(pairs)):
        swapped: dict[str, Any] = {name: pairs[name][::-1] for name in names}
        got, true = (", ".join(f"{name}={each[name]}" for name in names) for each in (swapped, pairs))
        what = f"height and width are swapped: {got} instead of {true}"
        for padding in (call.padding, call.geometry.padding):
            yield Fault(what, f"use {true}: rows come first", call.changed(**{"padding": padding} | swapped))


_REORDER = "reorder its axes instead of reshaping it: {}.transpose{} makes {} of {}"


@suspect("kernel layout")
def _kernel_layout(call: SuspectedCall) -> Iterator[Fault]:
    o, i, h, w = call.k.shape
    read = call.k.transpose(2, 3, 1, 0).reshape(o, i, h, w)
    change = _REORDER.format("K", (3, 2, 0, 1), "OIHW", "HWIO")
    yield Fault(f"the memory of an HWIO kernel is read as OIHW {(o, i, h, w)}", change, call.changed(k=read))
    read = call.k.reshape(h, w, i, o).transpose(3, 2, 0, 1)
    change = _REORDER.format("K", (2, 3, 1, 0), "HWIO", "OIHW")
    yield Fault(f"the memory of an OIHW kernel is read as HWIO {(h, w, i, o)}", change, call.changed(k=read))


@suspect("kernel channels swapped")
def _kernel_channels_swapped(call: SuspectedCall) -> Iterator[Fault]:
    o, i = call.k.shape[:2]
    for axes, wrong in (((1, 0, 2, 3), (2, 3, 0, 1)), ((1, 0, 3, 2), (2, 3, 1, 0))):
        what = f"the kernel's {i} input and {o} output channels are swapped"
        change = f"HWIO becomes OIHW by K.transpose(3, 2, 0, 1), not by K.transpose{wrong}"
        yield Fault(what, change, call.changed(k=call.k.transpose(axes).reshape(call.k.shape)))


@suspect("image layout")
def _image_layout(call: SuspectedCall) -> Iterator[Fault]:
    n, c, h, w = call.x.shape
    read = call.x.reshape(n, h, w, c).transpose(0, 3, 1, 2)
    change = _REORDER.format("X", (0, 2, 3, 1), "NHWC", "NCHW")
    yield Fault(f"the memory of an NCHW image is read as NHWC {(n, h, w, c)}", change, call.changed(x=read))
    read = call.x.transpose(0, 2, 3, 1).reshape(n, c, h, w)
    change = _REORDER.format("X", (0, 3, 1, 2), "NCHW", "NHWC")
    yield Fault(f"the memory of an NHWC image is read as NCHW {(n, c, h, w)}", change, call.changed(x=read))


@suspect("result layout")
def _result_layout(call: SuspectedCall) -> Iterator[Fault]:
    n, o, h, w = call.size
    if call.rank == 2:
        return
    axes, got, true = ((0, 2, 3, 1), "NCHW", "NHWC") if call.nhwc else ((0, 3, 1, 2), "NHWC", "NCHW")
    change = f"reorder its axes: Y.transpose{axes} for a batch"
    yield Fault(f"the result is {got} instead of {true}", change, call.changed(nhwc=not call.nhwc))
    change, what = "reorder the result's axes by transpose, not by reshape", "the memory of an {} result is read as {}"
    read = what.format("NHWC", "NCHW")
    yield Fault(read, change, call, view=lambda y: y.transpose(0, 2, 3, 1).reshape(y.shape))
    read = what.format("NCHW", "NHWC")
    yield Fault(read, change, call, view=lambda y: y.reshape(n, h, w, o).transpose(0, 3, 1, 2))


@suspect("batch axis")
def _batch_axis(call: SuspectedCall) -> Iterator[Fault]:
    for leading in ((), (1,), (1, 1)) if math.prod(call.leading) == 1 else ():
        change = "reshape the result: no value changes"
        yield Fault("axes of size 1 are added or missing", change, call.changed(leading=leading))


def _use(pads: Pads) -> str:
    (top, bottom), (left, right) = pads
    wanted = f"pad {padding_in_words(pads)}: padding={pads}"
    if pads == NO_PADDING:
        return "don't pad: padding='valid'"
    if (top, left) == (bottom, right):
        return f"{wanted}; in Keras, ZeroPadding2D({(top, left)}) before a layer without padding"
    by = f"torch.nn.functional.pad(X, ({left}, {right}, {top}, {bottom})), keras ZeroPadding2D({pads}) or numpy.pad"
    return f"{wanted}; where a layer only pads alike on both sides, pad X before it: {by}"


def padding_in_words(pads: Pads) -> str:
    """A padding in integers, in words.

    >>> [padding_in_words(pads) for pads in (((3, 3), (3, 3)), ((2, 3), (2, 3)), ((3, 3), (2, 3)))]
    ['3 on each side', '2 before and 3 after', '3 above, 3 below, 2 left and 3 right']
    """
    (top, bottom), (left, right) = pads
    if (top, bottom) != (left, right):
        return f"{top} above, {bottom} below, {left} left and {right} right"
    return f"{top} on each side" if top == bottom else f"{top} before and {bottom} after"


def _padded_by(call: SuspectedCall, paddings: Iterable[tuple[str, Pads]]) -> Iterator[Fault]:
    pads = call.geometry.padding
    for name, other in paddings:
        what = f"the padding is {padding_in_words(other)} ({name}) instead of {padding_in_words(pads)}"
        yield Fault(what, f"{_use(pads)}; or take the other one: padding={other}", call.changed(padding=other))


@suspect("symmetric padding")
def _symmetric_padding(call: SuspectedCall) -> Iterator[Fault]:
    (rows, columns), (h, w) = call.geometry.extent, call.geometry.kernel_size
    for name, down, across in (
        ("(extent - 1) // 2 on every side", (rows - 1) // 2, (columns - 1) // 2),
        ("extent // 2 on every side", rows // 2, columns // 2),
        ("on every side, without regard to the dilation", (h - 1) // 2, (w - 1) // 2),
    ):
        yield from _padded_by(call, [(name, ((down, down), (across, across)))])


@suspect("padding reversed")
def _padding_reversed(call: SuspectedCall) -> Iterator[Fault]:
    rows, columns = pads = call.geometry.padding
    for other in ((rows[::-1], columns[::-1]), (rows[::-1], columns), (rows, columns[::-1])):
        what = f"the padding's ends are swapped: {padding_in_words(other)} instead of {padding_in_words(pads)}"
        yield Fault(what, _use(pads), call.changed(padding=other))


@suspect("other padding")
def _other_padding(call: SuspectedCall) -> Iterator[Fault]:
    (top, bottom), (left, right) = call.geometry.padding

    def padding_called(name: str, stride: Pair) -> Pads:
        return call.changed(padding=name, stride=stride).geometry.padding

    ways = {
        "SAME, as in TensorFlow": padding_called("same", call.stride),
        "SAME_LOWER, as in ONNX": padding_called("same_lower", call.stride),
        "SAME for stride 1": padding_called("same", (1, 1)),
        "SAME_LOWER for stride 1": padding_called("same_lower", (1, 1)),
        "none": NO_PADDING,
        "full": padding_called("full", call.stride),
        "all at the end": ((0, top + bottom), (0, left + right)),
        "all at the start": ((top + bottom, 0), (left + right, 0)),
        "applied twice": ((2 * top, 2 * bottom), (2 * left, 2 * right)),
    }
    yield from _padded_by(call, ways.items())


@suspect("padding mode")
def _padding_mode(call: SuspectedCall) -> Iterator[Fault]:
    if call.geometry.padding == NO_PADDING or not call.x.size:
        return
    wanted = f"padding_mode={call.padding_mode!r}" + (f", padding_value={v}" if (v := call.padding_value) else "")
    change = f"use {wanted}, or pad X so before the call"
    for mode in _BORDERS:
        what = f"the border is {_BORDERS[mode]} instead of {call.padding_mode!r}"
        yield Fault(what, change, call.changed(padding_mode=mode, padding_value=0.0))


# What a border shows, and what it is called. The likely ones come first: a border of one pixel may be several of them.
_BORDERS: dict[PaddingMode, str] = {
    "zeros": "'zeros'",
    "symmetric": "'symmetric', the mirror that repeats the edge pixel (SciPy's 'reflect', its default)",
    "reflect": "'reflect', the mirror in the edge pixel (SciPy's 'mirror', OpenCV's default)",
    "replicate": "'replicate', the edge pixel over and over (SciPy's 'nearest', NumPy's 'edge')",
    "circular": "'circular', the opposite side (NumPy's and SciPy's 'wrap')",
}


@suspect("SciPy's or OpenCV's place and border")
def _image_library(call: SuspectedCall) -> Iterator[Fault]:
    if call.stride != (1, 1):
        return
    h, w = call.geometry.kernel_size
    centre, corner = (h // 2, w // 2), (h - 1, w - 1)
    # Of a large kernel, or beside a large image, only the centre is tried.
    few = h * w <= 25 and call.x.size <= 10**5
    places = [centre, *(each for each in np.ndindex(h, w) if few and each != centre)]
    for mode, place, function in itertools.product(_BORDERS, places, ("corr2d", "conv2d")):
        pads = placed((h, w), call.dilation, place)
        same_border, same_place = mode == call.padding_mode, pads == call.geometry.padding
        # Other suspects stand for one of the two alone.
        if function == "corr2d" and (same_place or (same_border and (mode == "zeros" or place == centre))):
            continue
        if function == "conv2d" and same_border and same_place:
            continue
        origin = "0" if place == centre else str((place[0] - centre[0], place[1] - centre[1]))
        what = f"the kernel's element {place} lies on each pixel, and the border is {_BORDERS[mode]}"
        change = f"{function}(..., padding='same', origin={origin}, padding_mode={mode!r})"
        yield _true(call, what, change, pads, mode, function == "conv2d")
    (above, _), (left, _) = placed((h, w), call.dilation, corner)
    for mode in _BORDERS:
        pads = (above, above), (left, left)
        what = f"the kernel overhangs by all but one of its rows and columns, and the border is {_BORDERS[mode]}"
        yield _true(call, what, f"conv2d(..., padding='full', padding_mode={mode!r})", pads, mode, True)


def _true(call: SuspectedCall, what: str, change: str, pads: Pads, mode: PaddingMode, flipped: bool) -> Fault:
    """The fault of a correlation with a border, or of a true convolution."""
    k = np.flip(call.k, (2, 3)) if flipped else call.k
    pads = (pads[0][::-1], pads[1][::-1]) if flipped else pads
    what += "; the convolution is a true one" if flipped else ""
    other = call.changed(k=k, padding=pads, padding_mode=mode, padding_value=0.0)
    return Fault(what, f"to get the same, use {change}", other)


def _ignored(name: str) -> None:
    @suspect(f"{name} ignored")
    def faults(call: SuspectedCall) -> Iterator[Fault]:
        value = getattr(call, name)
        for padding in (call.padding, call.geometry.padding):
            changes = {"padding": padding, name: (1, 1)}
            yield Fault(f"the {name} {value} is ignored", f"use {name}={value}", call.changed(**changes))


_ignored("stride")
_ignored("dilation")


@suspect("stride offset")
def _stride_offset(call: SuspectedCall) -> Iterator[Fault]:
    (top, bottom), (left, right) = call.geometry.padding
    rows, columns = call.size[2:]
    down, across = call.stride
    # This call has every window of the given one, and one more on each side.
    dense = call.changed(stride=(1, 1), padding=((top + 1, bottom + 1), (left + 1, right + 1)))
    change = f"begin at the first pixel of X padded by {call.geometry.padding}: windows [::stride]"

    def moved(y: np.ndarray, a: int, b: int) -> np.ndarray:
        return y[:, :, a + 1 :: down, b + 1 :: across][:, :, :rows, :columns]

    def cropped(y: np.ndarray, a: int, b: int) -> np.ndarray:
        return y[:, :, 1:-1, 1:-1][:, :, a::down, b::across]

    for a, b in sorted(np.ndindex(max(down, 2) + 1, max(across, 2) + 1), key=sum):
        a, b = a - 1, b - 1
        what = f"the windows begin at row {a}, column {b} of the padded image instead of row 0, column 0"
        for view in (moved, cropped) if min(a, b) >= 0 else (moved,):
            yield Fault(what, change, dense, view=partial(view, a=a, b=b))


def _interleaved(a: np.ndarray, groups: int, axis: int) -> np.ndarray:
    shape = a.shape[:axis], a.shape[axis], a.shape[axis + 1 :]
    return a.reshape(*shape[0], groups, shape[1] // groups, *shape[2]).swapaxes(axis, axis + 1).reshape(a.shape)


@suspect("channel groups")
def _channel_groups(call: SuspectedCall) -> Iterator[Fault]:
    if (g := call.groups) == 1:
        return
    outputs, inputs = call.k.shape[0] // g, call.k.shape[1]
    change = "keep each group's {} next to each other, group by group (undo the channel shuffle)"
    for groups in (g, outputs):
        what = f"the output channels of the {g} groups are interleaved instead of one group after the other"
        other = call.changed(k=_interleaved(call.k, groups, 0))
        yield Fault(what, change.format("output channels"), call, view=partial(_interleaved, groups=groups, axis=1))
        yield Fault(f"the kernels of the {g} groups are interleaved", change.format("kernels"), other)
    for groups in (g, inputs):
        what = f"the input channels of the {g} groups are interleaved instead of one group after the other"
        yield Fault(what, change.format("input channels"), call.changed(x=_interleaved(call.x, groups, 1)))
    # Of more than four groups, only the reverse and the rotations are tried: there are too many other orders.
    some = [tuple(range(g))[::-1], *(tuple(np.roll(range(g), n).tolist()) for n in range(1, g))]
    for order in itertools.permutations(range(g)) if g <= 4 else some:
        yield from _ordered(call, list(order))


def _ordered(call: SuspectedCall, order: list[int]) -> Iterator[Fault]:
    def moved(a: np.ndarray, axis: int) -> np.ndarray:
        blocks = np.split(a, call.groups, axis)
        return np.concatenate([blocks[each] for each in order], axis)

    change = "give the groups' {} in the order of the other two"
    what = f"the groups' {{}} come in the order {order}"
    yield Fault(what.format("inputs"), change.format("inputs"), call.changed(x=moved(call.x, 1)))
    yield Fault(what.format("kernels"), change.format("kernels"), call.changed(k=moved(call.k, 0)))
    yield Fault(what.format("outputs"), change.format("outputs"), call, view=partial(moved, axis=1))


@suspect("input channels reversed")
def _input_channels_reversed(call: SuspectedCall) -> Iterator[Fault]:
    what = "the input channels stand in reverse, as BGR against RGB"
    axis = -1 if call.nhwc else -3
    change = f"reverse X's channels: numpy.flip(X, {axis}), in PyTorch X.flip({axis})"
    yield Fault(what, change, call.changed(x=call.x[:, ::-1]))


@suspect("output channels reversed")
def _output_channels_reversed(call: SuspectedCall) -> Iterator[Fault]:
    change = "reverse the result's channels"
    yield Fault("the output channels stand in reverse", change, call, view=lambda y: y[:, ::-1])


# Each has a name, what is wrong with a bias, how to mend it, and the bias that is added instead.
BIAS_FAULTS: tuple[tuple[str, str, str, Callable[[np.ndarray], np.ndarray | None]], ...] = (
    ("bias missing", "the bias isn't added", "add the bias, one number for each output channel", lambda b: None),
    ("bias doubled", "the bias is added twice", "add the bias once: in the layer or after it", lambda b: 2 * b),
    ("bias negated", "the bias is subtracted", "add the bias", lambda b: -b),
    ("bias reversed", "the bias's channels stand in reverse", "reverse the bias: bias[::-1]", lambda b: b[::-1]),
)


def _bias(name: str, what: str, change: str, other: Callable[[np.ndarray], np.ndarray | None]) -> None:
    @suspect(name)
    def faults(call: SuspectedCall) -> Iterator[Fault]:
        if call.bias is not None:
            yield Fault(what, change, call.changed(bias=other(call.bias)))


for _fault in BIAS_FAULTS:
    _bias(*_fault)


@suspect("averaged")
def _averaged(call: SuspectedCall) -> Iterator[Fault]:
    _, i, h, w = call.k.shape
    for n, what in ((i * h * w, "products of a window"), (h * w, "pixels of the kernel"), (i, "input channels")):
        change = f"don't divide by {n}; a kernel K / {n} averages"
        other = call.changed(k=call.k / n, dtype="float64" if call.dtype == "int64" else call.dtype)
        yield Fault(f"the sums are divided by {n}, the number of {what}", change, other)


@suspect("integer result")
def _integer_result(call: SuspectedCall) -> Iterator[Fault]:
    if not call.stored:
        return
    limits = np.iinfo(call.stored)
    change = (
        f"compare results in floats: give X in floats; numpy.clip(numpy.rint(Y), {limits.min}, {limits.max}) rounds"
    )
    roundings: tuple[tuple[str, Callable[[np.ndarray], np.ndarray]], ...] = (
        ("rounded to the nearest", np.rint),
        ("cut off behind the point", np.trunc),
    )
    for how, cut in roundings:

        def clipped(y: np.ndarray, cut: Callable[[np.ndarray], np.ndarray] = cut) -> np.ndarray:
            return np.asarray(np.clip(cut(y), limits.min, limits.max))

        def wrapped(y: np.ndarray, cut: Callable[[np.ndarray], np.ndarray] = cut) -> np.ndarray:
            return cut(y).astype(np.int64).astype(call.stored).astype(np.float64)

        yield Fault(f"the result is {how} and clipped to {call.stored}", change, call, view=clipped)
        yield Fault(f"the result is {how} and wraps round in {call.stored}", change, call, view=wrapped)
