"""ONNX's operators that give values other axes, and those on constants, which are computed while the graph is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ....errors import UnsupportedError
from ...layers.channels import ChannelShuffle
from ...layers.flattening import Flatten, Unflatten
from ...layers.layer import Layer
from ...layers.tokens import Anchors
from ..fields import LARGEST, excerpt
from .operation import FIRST, GROUPS, IMAGES, INNER, LAST, ROWS, SHUFFLED, SPLIT, TOKENS, TOKENS_LAST, Operation, Reader
from .operators import flattened


def _transpose(op: Operation) -> Sequence[Layer]:
    perm = op.options.get("perm", [*range(len(op.layout))][::-1])
    if sorted(perm) != [*range(len(op.layout))]:
        raise UnsupportedError(f"got perm {excerpt(perm)}, expected the axes of {op.layout}")
    op.layout = op.letters(perm)
    return []


def _unsqueeze(op: Operation) -> Sequence[Layer]:
    axes = op.axes(1)
    rank = len(op.layout) + len(axes)
    new = {axis % rank for axis in axes if -rank <= axis < rank}
    if rank > op.rank + 2 or len(new) < len(axes):
        raise UnsupportedError(f"got the axes {excerpt(axes)} for {op.layout}, expected those of one pixel")
    letters = iter(op.layout)
    op.layout = "".join("1" if axis in new else next(letters, "") for axis in range(rank))
    if sorted(op.layout) != [*"1" * op.rank, "C", "N"]:
        return []
    for axis in INNER[op.rank]:
        op.layout = op.layout.replace("1", axis, 1)
    return [Unflatten((1,) * op.rank)]


def _squeeze(op: Operation) -> Sequence[Layer]:
    dropped = op.letters(op.axes(1))
    if not dropped or set(dropped) - set("DHW1"):
        raise UnsupportedError(f"got the axes {excerpt(op.axes(1))} of {op.layout}, expected rows and columns")
    images = bool(set("DHW") & set(op.layout))
    op.layout = "".join(letter for letter in op.layout if letter not in dropped)
    return [Flatten()] if images and op.layout == ROWS else []


def _reshape(op: Operation) -> Sequence[Layer]:
    target = op.constant(1, "a shape")
    sizes = [] if target is None else target.ravel().tolist()
    first = sizes[0] if sizes else None
    batch = first == "N" or (first == 0 and not op.options.get("allowzero", 0)) or (first == op.batch and op.batch)
    fixed = [isinstance(size, int) and size > 0 for size in sizes]
    if batch and op.rank == 2 and (layers := _tokens(op, sizes)) is not None:
        return layers
    if len(sizes) == 2 and ((batch and sizes[1] != "N") or (first == -1 and fixed[1])):
        return flattened(op)
    if len(sizes) == op.rank + 2 and (batch or first == -1) and op.layout == ROWS:
        ones = [1] * op.rank
        pixels = all(fixed[1:-1]) and (op.moved or not fixed[-1] or (sizes[1:-1] == ones and sizes[2:] != ones))
        order, size = ("HWC", sizes[1:-1]) if pixels else ("CHW", sizes[2:])
        if all(isinstance(each, int) and 1 <= each <= LARGEST for each in size):
            op.layout = (LAST if pixels else FIRST)[op.rank]
            return [Unflatten(tuple(size), order)]
    images = FIRST[op.rank]
    if op.layout == images and _grouped(op, sizes):
        return []
    if op.layout in (GROUPS, SPLIT[op.rank], SHUFFLED[op.rank]) and _fits(op, sizes, images):
        shuffled, groups = op.layout == SHUFFLED[op.rank], op.groups
        op.layout, op.groups = images, 0
        return [ChannelShuffle(groups)] if shuffled else []
    raise UnsupportedError(
        f"got the shape {excerpt(sizes)} for {op.layout}, expected rows of numbers, images of rows, or groups"
    )


def _tokens(op: Operation, sizes: list[Any]) -> list[Layer] | None:
    """The layers that make tokens of images, or several pixels of each one; None for a shape that doesn't."""
    if op.layout in (IMAGES, TOKENS) and sizes[1:] == [0, -1] and not op.options.get("allowzero", 0):
        op.layout = TOKENS
        return []
    if op.layout != LAST[2] or sizes[1:-1] not in ([-1], [0, -1]) or not isinstance(sizes[-1], int) or sizes[-1] < 1:
        return None
    count, rest = divmod(op.channels(), sizes[-1])
    if rest or not count:
        raise UnsupportedError(f"got rows of {sizes[-1]} numbers of {op.channels()} channels, expected a divisor")
    op.layout = TOKENS_LAST if len(sizes) == 3 else op.layout
    return [] if count == 1 else [Anchors(count)]


def _grouped(op: Operation, sizes: list[Any]) -> bool:
    """Whether a shape makes groups of the channels of images; the operation then has them."""
    layout = {len(GROUPS): GROUPS, op.rank + 3: SPLIT[op.rank]}.get(len(sizes), "")
    if not layout or not isinstance(sizes[1], int) or sizes[1] < 1 or op.channels() % sizes[1]:
        return False
    op.groups = sizes[1]
    fits = _fits(op, sizes, layout)
    op.layout = layout if fits else op.layout
    return fits


def _fits(op: Operation, sizes: list[Any], layout: str) -> bool:
    """Whether a shape is that of axes; one of its sizes may be -1, and 0 is that of the axis in the same place."""
    zero = dict(enumerate(op.sizes[axis] for axis in op.layout)) if not op.options.get("allowzero", 0) else {}
    given = [zero.get(place, 0) if size == 0 else size for place, size in enumerate(sizes)]
    same = [size in (-1, op.sizes[axis]) for size, axis in zip(given, layout, strict=False)]
    return len(given) == len(layout) and given.count(-1) <= 1 and all(same)


def _cast(op: Operation) -> Sequence[Layer]:
    if op.options.get("to") not in _FLOATS:
        raise UnsupportedError(f"got ONNX's dtype {op.options.get('to')}, expected floating-point numbers")
    return []


def _given(op: Operation) -> list[np.ndarray]:
    return [np.asarray(each) for each in op.inputs]


def _of_shapes(op: Operation) -> list[np.ndarray]:
    """Inputs that are shapes or parts of them: other constants aren't cut and put together."""
    if any(array.size > 8 or array.ndim > 1 for array in _given(op)):
        raise UnsupportedError("got larger constants, expected shapes")
    return _given(op)


def _constant(op: Operation) -> np.ndarray:
    names = {"value": None, "value_float": "f4", "value_int": "i8", "value_floats": "f4", "value_ints": "i8"}
    (name,) = op.options
    if name not in names:
        raise UnsupportedError(f"got {excerpt(name)}, expected one of {', '.join(names)}")
    return np.asarray(op.options[name], names[name])


def _shape(op: Operation) -> np.ndarray:
    shape = np.array([op.sizes[axis] for axis in op.layout], object) if op.layout else np.array(_given(op)[0].shape)
    return shape[op.options.get("start", 0) : op.options.get("end", None)]


def _gathered(op: Operation) -> np.ndarray:
    array, places = _of_shapes(op)
    return np.array(array[places], array.dtype)


def _sliced(op: Operation) -> np.ndarray:
    array, start, end, *others = (each.ravel() for each in _of_shapes(op))
    step = int(others[1][0]) if len(others) > 1 else 1
    return array[int(start[0]) : int(end[0]) : step]


def _computed(function: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Callable[[Operation], np.ndarray]:
    """The reader of a function of two shapes whose numbers are known."""

    def read(op: Operation) -> np.ndarray:
        first, second = _of_shapes(op)
        if "f" in (first.dtype.kind, second.dtype.kind):
            raise UnsupportedError("got floating-point numbers, expected shapes")
        with np.errstate(all="raise"):
            return function(first.astype(np.int64), second.astype(np.int64))

    return read


def _new_axes(op: Operation) -> np.ndarray:
    return np.expand_dims(_given(op)[0], tuple(op.axes(1)))


def _as_type(op: Operation) -> np.ndarray:
    array = _given(op)[0]
    return array if array.dtype == object else array.astype(_FLOATS.get(op.options["to"], np.int64), copy=False)


# ONNX's numbers of the dtypes that layers have.
_FLOATS = {1: "float32", 10: "float16", 11: "float64"}
# Operators that give values other axes, and do nothing else.
ARRANGING: dict[str, Reader] = {
    "Identity": lambda op: [],
    "Cast": _cast,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Reshape": _reshape,
}
# Operators on constants; `Shape` is one, since its result is as good as constant.
FOLDED: dict[str, Callable[[Operation], Any]] = {
    "Add": _computed(np.add),
    "Sub": _computed(np.subtract),
    "Mul": _computed(np.multiply),
    "Div": _computed(np.floor_divide),
    "Constant": _constant,
    "Identity": lambda op: _given(op)[0],
    "Cast": _as_type,
    "Transpose": lambda op: _given(op)[0].transpose(op.options.get("perm")),
    "Unsqueeze": _new_axes,
    "Squeeze": lambda op: np.squeeze(_given(op)[0], tuple(op.axes(1)) or None),
    "Reshape": lambda op: _given(op)[0].reshape(_given(op)[1].tolist()),
    "Shape": _shape,
    "Gather": _gathered,
    "Slice": _sliced,
    "Concat": lambda op: np.concatenate(_of_shapes(op), axis=op.options.get("axis", 0)),
}
