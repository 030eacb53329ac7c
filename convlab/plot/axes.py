"""What all drawings share: matplotlib, the Axes to draw into, the values to draw, and the colours."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DTypeError, ExtraNotInstalled, GeometryError, ShapeError, UnsupportedError
from ..registry import adapter, framework, owner, pip_command
from ..truth.oracle import as_numpy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Of Okabe and Ito's palette, which readers with any colour vision tell apart, the colours that show on white and on
# black; and a grey.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#7f7f7f")
# Of line after line.
STYLES = [{"color": colour, "linestyle": dashes} for dashes in ("-", "--", ":", "-.") for colour in COLOURS]
# Blue below zero, white at zero, red above.
DIVERGING = "RdBu_r"
_OPEN = "#a8a8a8"
# Larger numbers count as infinite: matplotlib computes in float32, too, and needs room for what is beside them.
_LARGEST = 1e28


def matplotlib_module(name: str) -> Any:
    """A module of matplotlib.

    >>> matplotlib_module("figure").Figure.__name__
    'Figure'

    Raises:
        ExtraNotInstalled: matplotlib isn't installed; the hint is the command that installs it.
    """
    try:
        return importlib.import_module(f"matplotlib.{name}")
    except ModuleNotFoundError as error:
        raise ExtraNotInstalled(
            "a picture needs matplotlib, which isn't installed.", hint=pip_command("matplotlib")
        ) from error


def axes_or_current(ax: Axes | None) -> Axes:
    """The Axes to draw into: the given one, else pyplot's current one."""
    if ax is None:
        current: Axes = matplotlib_module("pyplot").gca()
        return current
    if not isinstance(ax, matplotlib_module("axes").Axes):
        raise GeometryError(
            f"ax: got {type(ax).__name__}, expected one matplotlib Axes.",
            hint="of `fig, axes = plt.subplots(2, 2)`, axes[0, 0] is one.",
        )
    return ax


def frame_picture(ax: Axes) -> None:
    """Take away the ticks; make the frame and what the picture leaves open grey, since white may be a colour in it."""
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_facecolor(_OPEN)
    ax.spines[:].set_color(_OPEN)


def values(name: str, x: Any, ranks: tuple[int, ...], expected: str) -> np.ndarray:
    """A tensor's values, off its device and without its gradients, in float32 or float64; what is infinite is NaN.

    >>> values("Y", np.ones((2, 3), "uint8"), (2,), "(H, W)").dtype
    dtype('float32')

    Raises:
        DTypeError: no tensor, or one that isn't of real numbers.
        ShapeError: another rank, or no elements.
        UnsupportedError: a tensor that is being traced, and so has no values.
    """
    whose = owner(x)
    if whose is not None and not adapter(whose).wraps and not framework(whose).ops.is_concrete(x):
        raise UnsupportedError(
            f"{name}: got a tensor without values, expected one that isn't being traced.",
            hint="draw what the compiled function returns.",
        )
    array = as_numpy(x, name)
    if array.dtype.kind == "c":
        raise DTypeError(f"{name}: got complex numbers, expected real ones.", hint="draw abs(x), or x.real.")
    if array.ndim not in ranks or not array.size:
        raise ShapeError(
            f"{name}: got shape {array.shape}, expected {expected}, without a size of 0.",
            hint="x[0] is the first of a stack, and x[None] a stack of one.",
        )
    array = array.astype(np.result_type(array.dtype, np.float32))
    return np.where(np.abs(array) < _LARGEST, array, np.nan)


def largest(array: np.ndarray) -> float:
    """The largest magnitude, as the limit of a colour scale: 1 if nothing but zeros and NaN is there."""
    return float(np.nanmax(np.abs(array), initial=0.0)) or 1.0
