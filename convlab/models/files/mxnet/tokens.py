"""MXNet's operators on images whose axes were moved: the boxes of detectors, (N, L, C)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...layers.activations import Activation, Affine, Clip, Softmax
from ...layers.joining import Add, Divide, Multiply, Subtract
from ...layers.layer import Dropout

# The axes of images, of images with the channels last, of the pixels of these in a row, and of all their numbers.
IMAGES, LAST, TOKENS, PIXELS = "", "NHWC", "NLC", "N(HWC)"
# The pixels of images in a row with the channels first, and as images of one column.
_FIRST, _COLUMNS = "NCL", "NCL1"
_MOVES = {
    (IMAGES, (0, 2, 3, 1)): LAST,
    (LAST, (0, 3, 1, 2)): IMAGES,
    (_FIRST, (0, 2, 1)): TOKENS,
    (TOKENS, (0, 2, 1)): _FIRST,
}
_SHAPES = {(LAST, (0, -1)): PIXELS, (IMAGES, (0, 0, -1)): _FIRST, (IMAGES, (0, 0, -1, 1)): _COLUMNS}
# The axis along which values with these axes are put behind each other, and the axes of the result.
_JOINED = {TOKENS: (1, TOKENS), PIXELS: (1, PIXELS), _FIRST: (2, _FIRST), _COLUMNS: (2, IMAGES)}
_TRANSPOSES = ("transpose", "_np_transpose")
_RESHAPES = ("Reshape", "_np_reshape", "_npx_reshape")
_FLATTENS = ("Flatten", "flatten")
_JOINS = ("Concat", "_npi_concatenate")
# The shape that makes parts of the channels of images (N, H, W, C), and the one that makes pixels of the parts.
_PARTS, _PIXELS_OF_PARTS = (0, 0, 0, -4, -1), (0, 0, -3, 0)
# They compute each number by itself.
ANYWHERE = (Activation, Affine, Clip, Dropout, Add, Subtract, Multiply, Divide)


def moved(operator: str, options: Mapping[str, Any], axes: str) -> str | None:
    """The axes that an operator gives values with some axes, of which it changes no number; None for another one.

    >>> moved("transpose", {"axes": (0, 2, 3, 1)}, IMAGES), moved("Reshape", {"shape": (0, -1)}, LAST)
    ('NHWC', 'N(HWC)')
    """
    if operator in _TRANSPOSES:
        return _MOVES.get((axes, options.get("axes", ())))
    if operator in _FLATTENS:
        return PIXELS if axes == LAST else None
    shape = _shape(operator, options)
    if axes == LAST and len(shape) == 6 and (*shape[:4], shape[5]) == _PARTS and shape[4] > 0:
        return f"NHW{shape[4]}C"
    return _SHAPES.get((axes, shape))


def parts_of_channels(operator: str, options: Mapping[str, Any], axes: str) -> int:
    """How many parts of the channels an operator makes pixels, of images (N, H, W, parts, C); 0 for none.

    >>> parts_of_channels("Reshape", {"shape": (0, 0, -3, 0)}, "NHW3C")
    3
    """
    count = axes.removeprefix("NHW").removesuffix("C")
    return int(count) if count.isdecimal() and _shape(operator, options) == _PIXELS_OF_PARTS else 0


def channels_of_tokens(operator: str, options: Mapping[str, Any], axes: str) -> int:
    """The channels of the tokens that an operator makes of images (N, H, W, C), or of all their numbers; 0 for none.

    >>> channels_of_tokens("Reshape", {"shape": (0, -1, 4)}, LAST)
    4
    """
    shape = _shape(operator, options)
    fits = len(shape) == 3 and shape[:2] == (0, -1) and type(shape[2]) is int and shape[2] > 0
    return shape[2] if axes in (LAST, PIXELS) and fits else 0


def axes_joined(operator: str, options: Mapping[str, Any], axes: str) -> str | None:
    """The axes of the result of an operator that puts pixels with some axes behind each other; None for another one."""
    along, after = _JOINED.get(axes, (None, None))
    joins = operator in _JOINS and options.get("dim", options.get("axis", 1)) == along
    return after if joins else None


def softmax_of_tokens(operator: str, options: Mapping[str, Any]) -> Softmax | None:
    """The softmax over the channels that an operator computes of tokens (N, L, C); None for another operator."""
    names = {"softmax": False, "log_softmax": True}
    log = names.get(operator.removeprefix("_npx_"))
    return None if log is None or options.get("axis", -1) not in (-1, 2) else Softmax(log)


def _shape(operator: str, options: Mapping[str, Any]) -> tuple[Any, ...]:
    """The shape that an operator gives, with 0 for an axis that stays."""
    shape = options.get("shape", options.get("newshape", ()))
    if operator not in _RESHAPES or not isinstance(shape, tuple) or options.get("reverse"):
        return ()
    return tuple(0 if each == -2 else each for each in shape) if operator == "_npx_reshape" else shape
