"""The parts of a diagnosis: a call of corr2d that can be changed, and the faults that suspects find in it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..geometry.checks import pair
from ..geometry.geometry import Geometry, Pair
from ..geometry.options import GEOMETRY_OPTIONS, GeometryOptions, channels_follow
from .bounds import error_bound, magnitude
from .oracle import border_positions, computed_in, lowered_geometry, oracle, wide

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike


@dataclass(frozen=True, eq=False)
class SuspectedCall:
    """A call of corr2d whose result is in question, with X as NCHW and K as OIHW.

    Attributes:
        padding: a name, or ((top, bottom), (left, right)).
        leading, nhwc, rank: the caller's axes before an image, whether channels come last, the kernel's rank.
        planes_last: whether the last of `leading` comes last for the caller, as the channels of a rank-2 kernel do.
        slack: how many times its rounding bound the result may be off.
        stored: the dtype of a result in integers, "" for any other.
    """

    x: np.ndarray
    k: np.ndarray
    bias: np.ndarray | None
    dtype: str
    stride: Pair
    padding: Any
    padding_mode: str
    padding_value: float
    dilation: Pair
    groups: int
    leading: tuple[int, ...]
    nhwc: bool
    rank: int
    planes_last: bool = False
    slack: int = 1
    stored: str = ""

    @classmethod
    def read(
        cls, X: ArrayLike, K: ArrayLike, bias: ArrayLike | None, dtype: DTypeLike | None, geometry: GeometryOptions
    ) -> SuspectedCall:
        """The call `corr2d(X, K, bias=bias, **geometry)`, its arguments checked as corr2d does."""
        dtype = computed_in(dtype, X, K, bias)
        x, k = wide(X), wide(K)
        given = lowered_geometry(x.shape, k.shape, **geometry)
        nhwc, planes_last = k.ndim == 4 and given.data_format == "NHWC", channels_follow(x.shape, k.shape, given)
        x = np.moveaxis(x, -1, -3) if planes_last else x
        named = isinstance(geometry.get("padding"), str)
        leading = x.shape[: -2 if k.ndim == 2 else -3]
        x = np.moveaxis(x, -1, -3) if nhwc else x if k.ndim == 4 else x[..., None, :, :]
        return cls(
            x=x.reshape(math.prod(leading), *x.shape[-3:]),
            k=k.transpose(3, 2, 0, 1) if nhwc else k.reshape((1,) * (4 - k.ndim) + k.shape),
            bias=None if bias is None else wide(bias).reshape(-1),
            dtype=dtype,
            leading=leading,
            nhwc=nhwc,
            rank=k.ndim,
            planes_last=planes_last,
            padding=geometry["padding"] if named and geometry.get("origin") is None else given.padding,
            # The stride in `given` is cut to what this image needs, but another padding may need all of it.
            stride=pair("stride", geometry.get("stride", 1), 1),
            dilation=pair("dilation", geometry.get("dilation", 1), 1),
            padding_mode=given.padding_mode,
            padding_value=given.padding_value,
            groups=given.groups,
        )

    def changed(self, **changes: Any) -> SuspectedCall:
        """The same call but for these attributes."""
        return replace(self, **changes)

    @property
    def _options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in GEOMETRY_OPTIONS if name != "data_format"}

    @cached_property
    def geometry(self) -> Geometry:
        """The geometry in integers; a `ConvlabError` where the shapes allow none."""
        return lowered_geometry(self.x.shape, self.k.shape, **self._options)

    @property
    def size(self) -> tuple[int, int, int, int]:
        """The result's shape as NCHW."""
        return self.x.shape[0], self.k.shape[0], *self.geometry.output_size((self.x.shape[2], self.x.shape[3]))

    @cached_property
    def values(self) -> np.ndarray:
        """The true result, NCHW."""
        return oracle(self.x, self.k, bias=self.bias, **self._options)

    @cached_property
    def bound(self) -> np.ndarray:
        """How far rounding may take each element that is finite, NCHW."""
        return self.slack * error_bound(self.x, self.k, bias=self.bias, dtype=self.dtype, **self._options)

    def padded(self) -> np.ndarray:
        """The image with its border."""
        if self.padding_mode == "zeros":
            return np.pad(self.x, ((0, 0), (0, 0), *self.geometry.padding), constant_values=self.padding_value)
        down, right = map(border_positions, self.x.shape[2:], self.geometry.padding, [self.padding_mode] * 2)
        return self.x[:, :, down][:, :, :, right]

    @cached_property
    def magnitude(self) -> np.ndarray:
        """The result for the absolute values, which no partial sum exceeds."""
        x, k, b = (None if a is None else magnitude(a) for a in (self.x, self.k, self.bias))
        return self.changed(x=x, k=k, bias=b).values

    def laid_out(self, y: np.ndarray) -> np.ndarray:
        """A result as NCHW in the caller's layout."""
        y = y[:, 0] if self.rank == 2 else np.moveaxis(y, 1, -1) if self.nhwc else y
        y = y.reshape(*self.leading, *y.shape[1:])
        return np.moveaxis(y, -3, -1) if self.planes_last and y.ndim > 2 else y

    def as_nchw(self, y: np.ndarray) -> np.ndarray:
        """An array of the result's shape, in the caller's layout, as NCHW."""
        y = np.moveaxis(y, -1, -3) if self.planes_last and y.ndim > 2 else y
        y = y[..., None, :, :] if self.rank == 2 else np.moveaxis(y, -1, -3) if self.nhwc else y
        return y.reshape(self.size)


class Fault(NamedTuple):
    """One way in which a suspect can show.

    Attributes:
        explanation, change: as in `Diagnosis`.
        call: the call that was computed instead.
        view: what was then done to its result as NCHW, and so to its bound; None if nothing was done.
        bound: how far a loss of precision takes the call's result, NCHW; by default the call's rounding bound.
        check: whether the result, with the mask of its wrong elements, NCHW, bears the other marks of a loss.
    """

    explanation: str
    change: str
    call: SuspectedCall
    view: Callable[[np.ndarray], np.ndarray] | None = None
    bound: np.ndarray | None = None
    check: Callable[[np.ndarray, np.ndarray], bool] | None = None


Suspect = Callable[[SuspectedCall], Iterator[Fault]]
SUSPECTS: dict[str, Suspect] = {}
# These suspects only bound the result: the first one counts, where no suspect that predicts the result explains it.
LOSSES: dict[str, Suspect] = {}


def suspect(name: str, among: dict[str, Suspect] = SUSPECTS) -> Callable[[Suspect], Suspect]:
    """Register a function of a `SuspectedCall` as the suspect of that name."""
    return lambda function: among.setdefault(name, function)
