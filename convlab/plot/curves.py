"""Losses by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ShapeError
from ..learning.run import LearnedKernel
from .axes import STYLES, axes_or_current, values

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike

# In points: the width of a curve, and by how much one is wider for each that covers it.
_WIDTH, _WIDER = 2.0, 3.0


def losses(
    learned: LearnedKernel | ArrayLike | Mapping[str, LearnedKernel | ArrayLike], *, ax: Axes | None = None
) -> Axes:
    """Draw losses by step, on a logarithmic scale.

    The first step is 1, as in the lines that `learn_kernel` prints. A curve that others cover is drawn wider than
    they are. Losses that are 0, NaN or infinite are gaps; if none is above 0, the scale is linear.

    >>> import convlab
    >>> from matplotlib.figure import Figure
    >>> X = convlab.chapter.edge_image()
    >>> learned = convlab.learn_kernel(X, X[:, :-1] - X[:, 1:], (1, 2), init=[[0.0, 0.0]], num_steps=3)
    >>> ax = losses({"lr=0.03": learned, "by hand": [18.0, 9.9, 5.4]}, ax=Figure().subplots())
    >>> ax.get_yscale(), [len(line.get_xdata()) for line in ax.lines]
    ('log', [3, 3])

    Args:
        learned: what `learn_kernel` returned, or losses in a list or a tensor of any backend; or several of these by
            name, for a legend.
        ax: the Axes to draw into; pyplot's current one if not given.

    Returns:
        The Axes.

    Raises:
        ShapeError: no losses, or losses that aren't one number for each step.
        DTypeError: losses that aren't real numbers.
        ExtraNotInstalled: matplotlib isn't installed.
    """
    named = learned if isinstance(learned, Mapping) else {"": learned}
    if not named:
        raise ShapeError("learned: got an empty mapping, expected losses.", hint='{"torch": learned} is an example.')
    curves = {name: _curve(f"learned[{name!r}]" if name else "learned", each) for name, each in named.items()}
    ax = axes_or_current(ax)
    widths = _widths([*curves.values()])
    for (name, curve), width, style in zip(curves.items(), widths, cycle(STYLES), strict=False):
        marker = "o" if np.isfinite(curve).sum() == 1 else None
        ax.plot(range(1, len(curve) + 1), curve, linewidth=width, marker=marker, label=name or None, **style)
    if any(np.nanmax(curve, initial=0.0) > 0 for curve in curves.values()):
        ax.set_yscale("log")
    ax.set(xlabel="step", ylabel="loss")
    ax.xaxis.get_major_locator().set_params(integer=True)
    if isinstance(learned, Mapping):
        ax.legend(frameon=False)
    return ax


def _curve(name: str, learned: Any) -> np.ndarray:
    """The losses of a run in float64, with NaN for those that a logarithmic scale hasn't got."""
    given = learned.losses if isinstance(learned, LearnedKernel) else learned
    curve = values(name, given, (1,), "one loss for each step").astype(np.float64)
    return np.where(curve > 0, curve, np.nan) if (curve > 0).any() else curve


def _widths(curves: Sequence[np.ndarray]) -> list[float]:
    """Widths with which each curve is seen behind later ones that differ from it by a hundredth at most."""

    def covers(later: np.ndarray, curve: np.ndarray) -> bool:
        return later.shape == curve.shape and np.allclose(later, curve, rtol=1e-2, equal_nan=True)

    return [
        _WIDTH + _WIDER * sum(covers(later, curve) for later in curves[index + 1 :])
        for index, curve in enumerate(curves)
    ]
