"""Kernels by name, as on the command line."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import numpy as np

from ..errors import GeometryError
from ..geometry.checks import shown
from .blurs import box_blur, gaussian_blur, motion_blur, sharpen, unsharp_mask
from .edges import (
    derivative,
    difference_of_gaussians,
    edge,
    gabor,
    laplacian,
    laplacian_of_gaussian,
    prewitt,
    scharr,
    sobel,
)

# By name: the function, and what its parameters are.
_FILTERS: dict[str, tuple[Callable[..., np.ndarray], str]] = {
    "edge": (edge, "<angle in degrees>"),
    "derivative": (derivative, "<order>"),
    "sobel": (sobel, "<axis>"),
    "scharr": (scharr, "<axis>"),
    "prewitt": (prewitt, "<axis>"),
    "laplacian": (laplacian, "<4 or 8 neighbours>"),
    "log": (laplacian_of_gaussian, "<sigma in pixels>"),
    "dog": (difference_of_gaussians, "<sigma>,<larger sigma>"),
    "gabor": (gabor, "<wavelength>,<angle>"),
    "box": (box_blur, "<size in pixels>"),
    "gaussian": (gaussian_blur, "<sigma in pixels>"),
    "motion": (motion_blur, "<length>,<angle>"),
    "sharpen": (sharpen, "<amount>"),
    "unsharp": (unsharp_mask, "<sigma>,<amount>"),
}


def parse(text: str) -> np.ndarray:
    """A kernel from its name and parameters, which may be left out where the function has defaults.

    >>> parse("derivative:2")
    array([[ 1., -2.,  1.]])
    >>> parse("motion:3,90")
    array([[0.33333333],
           [0.33333333],
           [0.33333333]])

    Raises:
        GeometryError: an unknown name, or parameters that the filter doesn't take; the hint lists the filters.
    """
    import difflib  # deferred: only errors need it

    name, colon, parameters = text.partition(":") if isinstance(text, str) else (text, "", "")
    if not isinstance(name, str) or name not in _FILTERS:
        known = ", ".join(f"{name}:{what}" for name, (_, what) in _FILTERS.items())
        near = difflib.get_close_matches(name, _FILTERS, 1) if isinstance(name, str) else []
        hint = f"did you mean {near[0]}:{_FILTERS[near[0]][1]}?" if near else "edge:45 is an example."
        raise GeometryError(f"filter: got {shown(text)}, expected one of {known}.", hint=hint)
    make, what = _FILTERS[name]
    try:
        numbers = [_number(number) for number in parameters.split(",")] if colon else []
        inspect.signature(make).bind(*numbers)
    except (ValueError, TypeError):
        raise GeometryError(
            f"filter: got {shown(text)}, expected {name}:{what}.", hint="numbers are separated by commas."
        ) from None
    return make(*numbers)


def _number(text: str) -> float:
    """An integer if it is written as one."""
    return int(text) if text.strip().lstrip("+-").isdigit() else float(text)
