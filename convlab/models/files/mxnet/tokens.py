"""MXNet's operators on images whose axes were moved: the boxes of detectors, (N, L, C)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...layers.activations import Activation, Affine, Clip, Softmax
from ...layers.joining import Add, Divide, Multiply, Subtract
from ...layers.layer import Dropout

# The axes of images, of images with the channels last, of the pixels of these in a row, and of all their numbers.
IMAGES, LAST, TOKENS, PIXELS = "", "NHWC", "NLC", "N(HWC)"
_MOVES = {(IMAGES, (0, 2, 3, 1)): LAST, (LAST, (0, 3, 1, 2)): IMAGES}
_TRANSPOSES = ("transpose", "_np_transpose")
_RESHAPES = ("Reshape", "_np_reshape", "_npx_reshape")
_FLATTENS = ("Flatten", "flatten")
_JOINS = ("Concat", "_npi_concatenate")
# They compute each number by itself.
ANYWHERE = (Activation, Affine, Clip, Dropout, Add, Subtract, Multiply, Divide)


def moved(operator: str, options: Mapping[str, Any], axes: str) -> str | None:
    """The axes that an operator gives values with some axes, of which it changes no number; None for another one.

    >>> moved("transpose", {"axes": (0, 2, 3, 1)}, IMAGES), moved("Reshape", {"shape": (0, -1)}, LAST)
    ('NHWC', 'N(HWC)')
    """
    if operator in _TRANSPOSES:
        return _MOVES.get((axes, options.get("axes", ())))
    rows = operator in _RESHAPES and _shape(options) in ((0, -1), (-2, -1))
    return PIXELS if axes == LAST and (operator in _FLATTENS or rows) else None


def channels_of_tokens(operator: str, options: Mapping[str, Any], axes: str) -> int:
    """The channels of the tokens that an operator makes of images (N, H, W, C), or of all their numbers; 0 for none.

    >>> channels_of_tokens("Reshape", {"shape": (0, -1, 4)}, LAST)
    4
    """
    shape = _shape(options)
    fits = len(shape) == 3 and shape[0] in (0, -2) and shape[1] == -1 and type(shape[2]) is int and shape[2] > 0
    return shape[2] if operator in _RESHAPES and axes in (LAST, PIXELS) and fits else 0


def joins(operator: str, options: Mapping[str, Any]) -> bool:
    """Whether an operator puts values behind each other along their second axis."""
    return operator in _JOINS and options.get("dim", options.get("axis", 1)) == 1


def softmax_of_tokens(operator: str, options: Mapping[str, Any]) -> Softmax | None:
    """The softmax over the channels that an operator computes of tokens (N, L, C); None for another operator."""
    names = {"softmax": False, "log_softmax": True}
    log = names.get(operator.removeprefix("_npx_"))
    return None if log is None or options.get("axis", -1) not in (-1, 2) else Softmax(log)


def _shape(options: Mapping[str, Any]) -> tuple[Any, ...]:
    shape = options.get("shape", options.get("newshape", ()))
    return shape if isinstance(shape, tuple) and not options.get("reverse") else ()
