"""Why a result is wrong: `diagnose` compares it with what each suspect of `suspects` would have computed."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Unpack

import numpy as np

from ..errors import ConvlabError, DTypeError
from ..geometry.options import GeometryOptions
from . import precision, suspects  # noqa: F401 (the imports register the suspects, in this order)
from .bounds import LARGEST, error_ratios
from .faults import LOSSES, SUSPECTS, Fault, SuspectedCall
from .oracle import as_numpy, wide

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Diagnosis:
    """The reason why a result is wrong.

    Attributes:
        suspect: a short stable name, or "unexplained".
        explanation: the mistake that was found.
        change: how to mend it.
        worst: the largest error that the explanation leaves, as a multiple of what rounding allows: at most 1.
            Unexplained, the largest error.
        also: the names of other suspects that explain the data as well.
    """

    suspect: str
    explanation: str
    change: str
    worst: float
    also: tuple[str, ...] = ()

    def __str__(self) -> str:
        start = "The largest error" if self.suspect == "unexplained" else "But for that, the largest error"
        error = "" if np.isinf(self.worst) else f" {start} is {self.worst:.2g} times what rounding allows."
        text = f"{self.suspect}: {self.explanation}.{error}"
        text += f"\nTo mend it: {self.change}."
        return text + (f"\nThese data are explained as well by: {', '.join(self.also)}." if self.also else "")


def diagnose(
    y_mine: ArrayLike,
    X: ArrayLike,
    K: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    dtype: str | None = None,
    **geometry: Unpack[GeometryOptions],
) -> Diagnosis | None:
    """Say why `y_mine` isn't `corr2d(X, K, bias=bias, **geometry)`; None if it is, but for rounding.

    A suspect is named if what it would have computed is `y_mine` within that computation's own rounding bound, and
    differs from the truth by more than the bounds.

    >>> from convlab.testing import oracle
    >>> X, K = np.arange(12.0).reshape(3, 4), np.array([[1.0, 2.0]])
    >>> print(diagnose(oracle(X, K[:, ::-1]), X, K))
    kernel flipped: the kernel is flipped on both axes, as in a true convolution. But for that, ...
    To mend it: flip the kernel back: K[..., ::-1, ::-1]; in PyTorch K.flip(-2, -1); for a true convolution compare ...
    >>> diagnose(oracle(X, K), X, K) is None
    True

    Args:
        y_mine: the result in question.
        X: the image that it was computed from, as for corr2d.
        K: the kernel, likewise.
        bias: the bias, likewise.
        dtype: the dtype that it was computed in; by default the one that corr2d computes them in.
        geometry: corr2d's stride, padding, … .

    Raises:
        ShapeError: shapes that corr2d refuses.
        GeometryError: options that corr2d refuses.
        DTypeError: dtypes that corr2d refuses, or complex numbers.
    """
    with np.errstate(all="ignore"):
        call, result = SuspectedCall.read(X, K, bias, dtype, geometry), as_numpy(y_mine)
        y, stored = wide(result), result.dtype
        if y.dtype.kind == "c":
            raise DTypeError("y_mine: got complex numbers, expected real ones.", hint="look at the parts apart.")
        case = _Case(call.changed(stored=stored.name) if stored.kind in "iu" else call, y)
        if y.shape == case.truth.shape and not case.wrong.any():
            return None
        explanations = case.explanations()
        if not explanations:
            return case.unexplained()
        name, (fault, worst) = next(iter(explanations.items()))
        return Diagnosis(name, fault.explanation, fault.change, worst, tuple(explanations)[1:])


class _Case:
    """A result beside the true one."""

    def __init__(self, call: SuspectedCall, y: np.ndarray) -> None:
        self.call, self.y = call, y
        self.truth, self.bound = call.laid_out(call.values), call.laid_out(call.bound)
        self.comparable = y.shape == self.truth.shape
        self.errors = self._errors(Fault("", "", call)) if self.comparable else np.full(1, np.inf)
        self.wrong = self.errors > 1

    def explanations(self) -> dict[str, tuple[Fault, float]]:
        """Each suspect that explains the data, with its fault, and the error that is left."""
        explanations: dict[str, tuple[Fault, float]] = {}
        for kind in (SUSPECTS, LOSSES):
            for name, faults in kind.items():
                if explanations and kind is LOSSES:
                    return explanations
                # A suspect may stand for an impossible call, or explain nothing.
                with contextlib.suppress(ConvlabError, StopIteration):
                    errors = ((fault, self._error_left(fault)) for fault in faults(self.call))
                    explanations[name] = next(each for each in errors if each[1] <= 1)
        return explanations

    def _error_left(self, fault: Fault) -> float:
        """The worst error under a fault, in bounds; infinite where the fault explains nothing."""
        if not self.y.size:
            return np.inf
        try:
            if _view(fault, np.broadcast_to(0.0, fault.call.size)).shape != self.y.shape:
                return np.inf
        except ConvlabError:  # The fault stands for an impossible call.
            return np.inf
        worst = float(self._errors(fault).max(initial=0.0))
        return worst if worst <= 1 and self._tells(fault) else np.inf

    def _tells(self, fault: Fault) -> bool:
        """Whether the fault's prediction differs from the truth, or its bound would refuse zeros."""
        values = _view(fault, fault.call.values)
        if fault.bound is not None and fault.check is not None:
            marked = fault.check(self.call.as_nchw(self.y), self.call.as_nchw(self.wrong))
            return marked and bool((np.abs(values) > _view(fault, fault.bound)).any())
        if not self.comparable:
            return True
        apart = error_ratios(values, self.truth, _view(fault, fault.call.bound) + self.bound) > 1
        return bool(apart[self.wrong].any())

    def _errors(self, fault: Fault) -> np.ndarray:
        """The errors of the result against what a fault predicts, in bounds."""
        bound = _view(fault, fault.call.bound if fault.bound is None else fault.bound)
        overflow = _view(fault, fault.call.magnitude) + bound >= LARGEST.get(fault.call.dtype, np.inf)
        return error_ratios(self.y, _view(fault, fault.call.values), bound, overflow)

    def unexplained(self) -> Diagnosis:
        """The diagnosis where no suspect explains the data."""
        if not self.comparable:
            what = f"the result has shape {self.y.shape} instead of {self.truth.shape}"
            advice = "compare padding, stride, dilation and the order of the axes"
            return Diagnosis("unexplained", what, advice, np.inf)
        place, advice = self._place()
        at = tuple(int(i) for i in np.unravel_index(int(np.argmax(self.errors)), self.errors.shape))
        what = f"{int(self.wrong.sum())} of {self.wrong.size} elements are wrong, {place}"
        what += f"; the worst at {at}: {self.y[at]:.7g} instead of {self.truth[at]:.7g}"
        return Diagnosis("unexplained", what, advice, float(self.errors.max()))

    def _place(self) -> tuple[str, str]:
        """Where the wrong elements are, and what that suggests."""
        wrong = self.call.as_nchw(self.wrong)
        if wrong.all():
            return "everywhere", "compare X and K as the computation sees them; then one element by hand"
        n, o, rows, columns = (np.flatnonzero(wrong.any(tuple({0, 1, 2, 3} - {axis}))) for axis in range(4))
        where = [
            _line("output channel", o, wrong.shape[1], "only {}"),
            _line("image", n, wrong.shape[0], "only {}"),
            _line("row", rows, wrong.shape[2], "all in {}"),
            _line("column", columns, wrong.shape[3], "all in {}"),
        ]
        advice = "take the smallest image that shows it, and compare with stride 1 and with another library"
        inner = wrong[:, :, 1:-1, 1:-1]
        if wrong.mean() > 0.9:
            where.append("nearly everywhere")
        elif not inner.any() and inner.size:
            where.append("only the border")
            advice = "compare the padding and what it is filled with"
        elif where[0]:
            advice = "compare the kernel and the bias of these channels, and the groups"
        elif inner.all() and inner.sum() == wrong.sum():
            where.append("everywhere but the border")
        return ", ".join(filter(None, where)) or "scattered", advice


def _view(fault: Fault, y: np.ndarray) -> np.ndarray:
    return fault.call.laid_out(y if fault.view is None else fault.view(y))


def _line(name: str, wrong: np.ndarray, size: int, phrase: str) -> str:
    """Which lines of an axis are wrong, in words; "" if that says little."""
    if len(wrong) == size or len(wrong) > 3:
        return ""
    known = {(0,): f"the first {name}", (size - 1,): f"the last {name}"} if name in ("row", "column") else {}
    plural = name if len(wrong) == 1 else f"{name}s"
    numbers = " and ".join(str(i) for i in wrong)
    return phrase.format(known.get(tuple(wrong.tolist()), f"{plural} {numbers}"))
