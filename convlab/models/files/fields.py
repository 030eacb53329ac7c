"""What each kind of layer has in convlab's neutral file: keys, their types and ranges, and arrays."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ...geometry.geometry import PADDING_MODES
from ..layers.activations import FUNCTIONS
from ..layers.layer import LOWEST
from ..layers.outputs import are_names
from ..layers.resizing import METHODS
from ..layers.windows import distances

# The largest value of the fields that count pixels.
LARGEST = 2**16


@dataclass(frozen=True)
class FieldRule:
    """What the value of a key must be.

    Attributes:
        expected: the rule in words.
        holds: whether a value from JSON keeps the rule.
        plain: makes a layer's value into one for JSON.
        value: makes a value from JSON into a layer's.
        default: what a key stands for that is missing; None for one that must be there.
    """

    expected: str
    holds: Callable[[Any], bool]
    plain: Callable[[Any], Any] = lambda value: value
    value: Callable[[Any], Any] = lambda value: value
    default: Any = None


def _counts(least: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and least <= value <= LARGEST


def _two(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return _each(holds, 2)


def _each(holds: Callable[[Any], bool], *counts: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is list and len(value) in counts and all(map(holds, value))


def _are_strings(value: object) -> bool:
    return isinstance(value, list) and all(type(each) is str and 1 <= len(each) <= 200 for each in value)


def _real(value: object) -> bool:
    return (type(value) is float and math.isfinite(value)) or (type(value) is int and abs(value) < 2**53)


def _tuples(value: object) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _lists(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [*map(_lists, value)]
    return value if isinstance(value, str) else int(value)


def _named(*names: str) -> FieldRule:
    return FieldRule(f"one of {', '.join(names)}", lambda value: type(value) is str and value in names)


def _number(expected: str, holds: Callable[[float], bool] = lambda value: True) -> FieldRule:
    return FieldRule(expected, lambda value: _real(value) and holds(value), float, float)


_COUNT = FieldRule(f"an integer from 1 to {LARGEST}", _counts(1), int)
_INDEX = FieldRule(f"an integer from 0 to {LARGEST}", _counts(0), int)
_FROM_AN_END = FieldRule(f"an integer from -{LARGEST} to {LARGEST}", _counts(-LARGEST), int)
_PAIR = FieldRule(f"two integers from 1 to {LARGEST}", _two(_counts(1)), _lists, _tuples)
_SIZE = FieldRule(f"one, two or three integers from 1 to {LARGEST}", _each(_counts(1), 1, 2, 3), _lists, _tuples)
_SHIFT = FieldRule(f"two integers from 0 to {LARGEST}", _two(_counts(0)), _lists, _tuples)
_PADS = FieldRule(
    f"[[top, bottom], [left, right]], integers from 0 to {LARGEST}", _two(_two(_counts(0))), _lists, _tuples
)
_ENDS = FieldRule(
    f"{_PADS.expected}, or as many pairs of them as there are axes", _each(_two(_counts(0)), 1, 2, 3), _lists, _tuples
)


def _or_same(pads: FieldRule) -> FieldRule:
    return replace(
        pads,
        expected=f"{pads.expected}, or 'same' or 'same_lower'",
        holds=lambda value: pads.holds(value) or (type(value) is str and value in ("same", "same_lower")),
    )


_CROP = FieldRule(
    f"[[top, bottom], [left, right]], integers from -{LARGEST} to {LARGEST}",
    _two(_two(_counts(-LARGEST))),
    _lists,
    _tuples,
)
_BOOLEAN = FieldRule("true or false", lambda value: type(value) is bool, bool)
_SHARE = _number("a number from 0 to 1", lambda value: 0 <= value <= 1)
_EPSILON = _number("a number of at least 0", lambda value: value >= 0)
_ABOVE = _number("a number above 0", lambda value: value > 0)
_BORDER = replace(_number("a finite number other than 0"), default=0.0)
_NAMES = FieldRule(
    "different strings of 1 to 200 characters, sorted, or those of nested results",
    lambda value: _are_strings(value) and are_names(value),
    list,
    tuple,
    default=[],
)
_KERNEL = "max", "average"
_REDUCTION = *_KERNEL, "sum"
# Of layers for images of any number of axes; rows of numbers count for images, whose number is told by other layers.
_RANK = FieldRule(
    "an integer from 1 to 3",
    lambda value: type(value) is int and 1 <= value <= 3,
    lambda rank: rank or 2,
    int,
    default=2,
)


def _of_rank(kind: str, rank: int) -> dict[str, FieldRule]:
    """The keys of a convolution of so many axes, from those of images."""
    words = {1: "one integer", 3: "three integers"}
    size = replace(_SIZE, expected=f"{words[rank]} from 1 to {LARGEST}", holds=_each(_counts(1), rank))
    of_axes = f"{rank} pair{'s' * (rank > 1)} of integers from 0 to {LARGEST}"
    pads = replace(_PADS, expected=of_axes, holds=_each(_two(_counts(0)), rank))
    sizes = dict.fromkeys(("kernel_size", "stride", "dilation"), size)
    either = of_axes.replace("from 0", f"from -{LARGEST}")
    crop = replace(_CROP, expected=either, holds=_each(_two(_counts(-LARGEST)), rank))
    fields = {**FIELDS[kind], **sizes, "padding": _or_same(pads), "crop": crop}
    return {name: rule for name, rule in fields.items() if name in FIELDS[kind]}


# The keys of each kind beside "kind" and "path".
FIELDS: dict[str, dict[str, FieldRule]] = {
    "conv2d": {
        "kernel_size": _PAIR,
        "stride": _PAIR,
        "padding": _or_same(_PADS),
        "padding_mode": _named(*PADDING_MODES),
        "padding_value": _BORDER,
        "dilation": _PAIR,
        "groups": _COUNT,
    },
    "pad": {"pads": _ENDS, "mode": _named(*PADDING_MODES, LOWEST), "value": _BORDER},
    "activation": {"function": _named(*FUNCTIONS), "parameter": _number("a finite number")},
    "prelu": {},
    "affine": {"scale": _number("a finite number"), "shift": _number("a finite number")},
    "clip": {
        "least": replace(_number("a finite number"), default=-math.inf),
        "most": replace(_number("a finite number"), default=math.inf),
    },
    "add": {},
    "subtract": {},
    "divide": {},
    "maximum": {},
    "minimum": {},
    "broadcast_like": {},
    "multiply": {},
    "concatenate": {},
    "outputs": {"names": _NAMES},
    "anchors": {"count": _COUNT},
    "concatenate_pixels": {},
    "tokens": {},
    "softmax": {"log": _BOOLEAN},
    "pool": {
        "function": _named(*_KERNEL),
        "size": _SIZE,
        "stride": _SIZE,
        "padding": _or_same(_ENDS),
        "count_padding": _BOOLEAN,
        "ceil": _BOOLEAN,
    },
    "global_pool": {"function": _named(*_REDUCTION), "keepdims": _BOOLEAN, "rank": _RANK},
    "batch_norm": {"epsilon": _EPSILON, "momentum": _SHARE, "rank": _RANK},
    "group_norm": {"groups": _COUNT, "epsilon": _EPSILON},
    "layer_norm": {"epsilon": _EPSILON},
    "rms_norm": {"epsilon": _EPSILON},
    "channel_affine": {"trained": _BOOLEAN},
    "conv_transpose2d": {"stride": _PAIR, "crop": _CROP, "dilation": _PAIR, "groups": _COUNT},
    "dot_product_attention": {"heads": _COUNT, "scale": _number("a finite number")},
    "attention": {"heads": _COUNT, "rate": _SHARE},
    "window_attention": {
        "heads": _COUNT,
        "rate": _SHARE,
        "window": _PAIR,
        "shift": _SHIFT,
        "grid": replace(_BOOLEAN, default=False),
    },
    "class_token": {},
    "position_embedding": {},
    "first_pixel": {},
    "crop": {"pads": _ENDS},
    "adaptive_pool": {"function": _named(*_KERNEL), "size": _SIZE},
    "channel_pool": {"function": _named(*_REDUCTION)},
    "subsample": {"start": _SHIFT, "step": _PAIR},
    "chunk": {"index": _INDEX, "count": _COUNT},
    "channel_slice": {"start": _FROM_AN_END, "stop": _FROM_AN_END},
    "channel_shuffle": {"groups": _COUNT},
    "pixel_unshuffle": {"factor": _COUNT, "channels_last": _BOOLEAN},
    "local_response_norm": {"size": _COUNT, "alpha": _ABOVE, "beta": _EPSILON, "k": _ABOVE},
    "parts_softmax": {"parts": _COUNT},
    "glu": {},
    "pixel_shuffle": {"factor": _COUNT, "channels_last": _BOOLEAN},
    "resize": {"size": _PAIR, "method": _named(*METHODS), "align_corners": _BOOLEAN},
    "resize_like": {"method": _named(*METHODS), "align_corners": _BOOLEAN},
    "upsample": {"factor": _SIZE, "method": _named("nearest", "bilinear"), "align_corners": _BOOLEAN},
    "dropout": {
        "rate": _SHARE,
        "images": replace(_BOOLEAN, default=False),
        "channels": replace(_BOOLEAN, default=False),
    },
    "unflatten": {"size": replace(_SIZE, default=[1, 1]), "order": replace(_named("CHW", "HWC"), default="CHW")},
    "flatten": {"order": _named("CHW", "HWC")},
    "dense": {},
}
_CONVOLUTIONS = [f"{name}{rank}d" for name in ("conv", "conv_transpose") for rank in (1, 2, 3)]
FIELDS |= {kind: _of_rank(f"{kind[:-2]}2d", int(kind[-2])) for kind in _CONVOLUTIONS if kind[-2] != "2"}
# Of these arrays one may be missing.
OPTIONAL = {
    **dict.fromkeys(("dense", *_CONVOLUTIONS), ("bias",)),
    "channel_affine": ("scale", "shift"),
    "attention": ("bias", "out_bias"),
    "window_attention": ("bias", "out_bias", "scale"),
}
_ATTENTION = {"kernel": 2, "bias": 1, "out_kernel": 2, "out_bias": 1}
# The ranks of the arrays of each kind.
ARRAYS: dict[str, dict[str, int]] = {
    "prelu": {"slope": 1},
    **{kind: {"kernel": int(kind[-2]) + 2, "bias": 1} for kind in _CONVOLUTIONS},
    "batch_norm": {"mean": 1, "variance": 1, "scale": 1, "shift": 1},
    **{kind: {"scale": 1, "shift": 1} for kind in ("group_norm", "layer_norm", "channel_affine")},
    "rms_norm": {"scale": 1},
    "dense": {"kernel": 2, "bias": 1},
    "attention": _ATTENTION,
    "window_attention": {**_ATTENTION, "table": 2, "scale": 1},
    "class_token": {"token": 1},
    "position_embedding": {"embedding": 3},
}


def array_shapes(
    record: Mapping[str, Any], first: tuple[int, ...], inner: int | None = None
) -> dict[str, tuple[int, ...]]:
    """The sizes of a layer's arrays behind the first one, whose sizes are given; one number each channel if not here.

    Args:
        record: the layer.
        first: the sizes of the first one.
        inner: of attention's out_kernel, the channels that it takes; as many as there are where they aren't known.

    >>> array_shapes({"kind": "attention"}, (12, 4))["out_kernel"]
    (4, 4)
    """
    if not record["kind"].endswith("attention"):
        return {}
    outputs, channels = first
    inner = inner if inner and record["kind"] == "attention" else channels
    behind = {"out_kernel": (channels, inner), "out_bias": (channels,)}
    heads, rows = record.get("heads", 1), distances(record.get("window", (1, 1)))
    return {"bias": (outputs,), **behind, "table": (rows, heads), "scale": (heads,)}


def heads_fit(record: Mapping[str, Any], sizes: tuple[int, ...], inner: int) -> bool:
    """Whether the rows of attention's kernel are those of as many queries and keys, and of values, in whole heads.

    Args:
        record: the layer.
        sizes: of the kernel.
        inner: the channels that its out_kernel takes, those of all values.

    >>> [heads_fit({"kind": "attention", "heads": heads}, (16, 8), 8) for heads in (2, 3)]
    [True, False]
    """
    heads, (rows, channels) = record["heads"], sizes
    if record["kind"] == "window_attention":
        return rows == 3 * channels and channels % heads == 0
    return rows > inner and inner % heads == (rows - inner) % (2 * heads) == 0


def excerpt(value: object) -> str:
    """A value from a file in an error message: short, and nothing but ASCII."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = 60
    text = short.repr(value)
    return text if text.isascii() else ascii(text)[1:-1]
