"""The errors of backends, as multiples of what rounding allows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import cycle
from typing import TYPE_CHECKING, Any, Protocol, Unpack, runtime_checkable

import numpy as np

from ..errors import DTypeError, OptionError, ShapeError
from ..geometry.options import GeometryOptions
from ..testing import error_bound, error_ratios, oracle, overflows
from ..truth.oracle import as_numpy, computed_in
from .axes import COLOURS, axes_or_current

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, DTypeLike

# By backend and series: errors in rounding bounds.
Errors = dict[str, dict[str, list[float]]]
_MARKERS = ("o", "s", "D", "^", "v")


@runtime_checkable
class SupportsAsDict(Protocol):
    """What gives itself in JSON's types, as the report of `convlab.parity.run.run_plan` does."""

    def as_dict(self) -> dict[str, Any]:
        """Itself in JSON's types."""


def parity(
    results: Mapping[str, Any] | SupportsAsDict,
    X: ArrayLike | None = None,
    K: ArrayLike | None = None,
    *,
    bias: ArrayLike | None = None,
    dtype: DTypeLike | None = None,
    algorithm: str = "direct",
    ax: Axes | None = None,
    **geometry: Unpack[GeometryOptions],
) -> Axes:
    """Draw how far each backend's results are from the truth, in multiples of what rounding allows.

    Results agree up to 1, the shaded part. If an error is above 2, the scale is logarithmic from 1 on. Infinite errors
    are arrows at its right end.

    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> X, K = np.arange(12.0).reshape(3, 4), np.array([[1.0, -1.0]])
    >>> ax = parity({"right": X[:, :-1] - X[:, 1:], "flipped": np.diff(X)}, X, K, ax=Figure().subplots())
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['right', 'flipped']
    >>> worst = ax.lines[-1]
    >>> worst.get_label(), [bool(error <= 1) for error in worst.get_xdata()]
    ('worst element', [True, False])

    Args:
        results: backends' results of `corr2d(X, K, bias=bias, **geometry)` by name, tensors of any backend; or without
            X and K what `convlab parity --json` writes, read by `json.load`, or the report of
            `convlab.parity.run.run_plan`. Of these each tier has a series, and each quantity a point.
        X: the image, as in `convlab.testing.assert_parity`.
        K: the kernel, likewise.
        bias: the bias, likewise.
        dtype: the dtype that was computed in, likewise.
        algorithm: as in `convlab.testing.error_bound`.
        ax: the Axes to draw into; pyplot's current one if not given.
        geometry: corr2d's stride, padding, … .

    Returns:
        The Axes.

    Raises:
        ShapeError: no results, or one of another shape than the true one.
        DTypeError: complex numbers.
        OptionError: X without K, results without X and K, or no results of the forms above.
        ExtraNotInstalled: matplotlib isn't installed.
    """
    report = results.as_dict() if isinstance(results, SupportsAsDict) else results
    if not isinstance(report, Mapping) or (X is None) != (K is None):
        raise _unknown(results)
    if X is not None and K is not None:
        errors = _of_results(report, X, K, bias, dtype, algorithm, geometry)
    else:
        errors = _of_report(report)
    if not errors:
        raise ShapeError("results: got no backend, expected some.", hint='{"torch": y} is an example.')
    ax = axes_or_current(ax)
    _draw(ax, errors)
    return ax


def _unknown(results: object) -> OptionError:
    return OptionError(
        f"results: got {type(results).__name__}, expected a parity report, or results by name with X and K.",
        hint='plot.parity({"torch": y}, X, K), or plot.parity(json.load(open("report.json"))).',
    )


def _of_results(
    results: Mapping[str, Any],
    X: ArrayLike,
    K: ArrayLike,
    bias: ArrayLike | None,
    dtype: DTypeLike | None,
    algorithm: str,
    geometry: GeometryOptions,
) -> Errors:
    """The median and the largest of each result's errors."""
    dtype = computed_in(dtype, X, K, bias)
    x, k, b = as_numpy(X, "X"), as_numpy(K, "K"), None if bias is None else as_numpy(bias, "bias")
    true = oracle(x, k, bias=b, **geometry)
    bound = error_bound(x, k, bias=b, dtype=dtype, algorithm=algorithm, **geometry)
    overflow = overflows(x, k, bias=b, dtype=dtype, **geometry)
    errors: Errors = {}
    for name, result in results.items():
        y = as_numpy(result, f"results[{name!r}]")
        if y.dtype.kind == "c":
            raise DTypeError(f"results[{name!r}]: got complex numbers, expected real ones.", hint="draw their parts.")
        if y.shape != true.shape or not y.size:
            raise ShapeError(
                f"results[{name!r}]: got shape {y.shape}, expected {true.shape}, without a size of 0.",
                hint="stride, padding and data_format are those of the results.",
            )
        ratios = error_ratios(y, true, bound, overflow)
        errors[str(name)] = {"median element": [float(np.median(ratios))], "worst element": [float(ratios.max())]}
    return errors


def _of_report(report: Mapping[str, Any]) -> Errors:
    """The worst errors of each tier's quantities; null, JSON's infinite error, is infinite again."""
    try:
        errors: Errors = {name: {} for name in [*report["backends"], *report["failed"]]}
        for cell in report["results"]:
            worst = math.inf if cell["worst"] is None else float(cell["worst"])
            errors.setdefault(cell["backend"], {}).setdefault(cell["tier"], []).append(worst)
    except (KeyError, TypeError, ValueError) as error:
        raise _unknown(report) from error
    return {name if series else f"{name} (failed)": series for name, series in errors.items()}


def _draw(ax: Axes, errors: Errors) -> None:
    """A row for each backend, a marker for each series, and the part of the scale that rounding allows."""
    names = dict.fromkeys(name for series in errors.values() for name in series)
    ax.axvspan(0, 1, color=COLOURS[-1], alpha=0.2, linewidth=0, label="allowed by rounding")
    for index, (name, colour, marker) in enumerate(zip(names, cycle(COLOURS), cycle(_MARKERS), strict=False)):
        shift = (index - (len(names) - 1) / 2) * 0.15
        points = [(each, row + shift) for row, series in enumerate(errors.values()) for each in series.get(name, ())]
        x, y = zip(*points, strict=True)
        ax.plot(x, y, marker, color=colour, label=name)
        infinite = [row for error, row in points if error == math.inf]
        if infinite:
            ax.plot([0.985] * len(infinite), infinite, ">", color=colour, transform=ax.get_yaxis_transform())
    finite = [error for series in errors.values() for each in series.values() for error in each if error < math.inf]
    most = max([1.0, *finite])
    if most > 2:
        ax.set_xscale("symlog", linthresh=1, linscale=2)
    ax.set_xlim(-0.05, 4 * most if most > 2 else 1.25 * most)
    ax.set_yticks(range(len(errors)), labels=[*errors])
    ax.set_ylim(len(errors) - 0.5, -0.5)
    ax.set_xlabel("error in rounding bounds")
    ax.legend()
