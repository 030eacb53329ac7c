"""`Arrays`: the array operations that every backend has, and `Tensor`, what tensors can do by themselves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self

import numpy as np

from ..errors import UnsupportedError
from ..geometry.geometry import PaddingMode, Pair
from .call import Shape

if TYPE_CHECKING:  # `typing.TypeVar` has no default before Python 3.13; `Operations` alone is `Operations[Any]`
    from typing_extensions import TypeVar

    T = TypeVar("T", bound="Tensor", default=Any)
else:
    from typing import TypeVar

    T = TypeVar("T")


class Tensor(Protocol):
    """What tensors of every framework can do by themselves.

    Slices have steps, and name every axis or have an ellipsis in its place. `!=` compares elements, too.
    """

    def __add__(self, other: Any, /) -> Self: ...
    def __sub__(self, other: Any, /) -> Self: ...
    def __mul__(self, other: Any, /) -> Self: ...
    def __neg__(self) -> Self: ...
    def __abs__(self) -> Self: ...
    def __lt__(self, other: Any, /) -> Self: ...
    def __getitem__(self, key: Any, /) -> Self: ...


class Arrays(ABC, Generic[T]):
    """Array operations. N, C, H, W are batch, channels, height and width; O is output channels.

    Every operation carries gradients and can be traced by the framework's compilers, except where it says otherwise. A
    size that isn't known while tracing is None, and so is a whole shape or dtype.
    """

    @abstractmethod
    def shape(self, x: T) -> Shape | None:
        """The sizes of x."""

    def sizes(self, x: T) -> tuple[int, ...]:
        """The sizes of x to compute with: a scalar tensor for one that isn't known, or else `UnsupportedError`."""
        shape = self.known_rank(x)
        if None in shape:
            raise UnsupportedError(
                f"X: got shape {shape} while tracing, expected known sizes for anything but a plain convolution.",
                hint="give the tensor's shape to the tracer.",
            )
        return shape  # type: ignore[return-value]

    def known_rank(self, x: T) -> Shape:
        """The shape of x, or `UnsupportedError` if not even its rank is known."""
        shape = self.shape(x)
        if shape is None:
            raise UnsupportedError(
                "X: got a tensor of unknown rank while tracing, expected a known one.",
                hint="give the tensor's shape to the tracer.",
            )
        return shape

    @abstractmethod
    def dtype(self, x: T) -> str | None:
        """The dtype of x by its NumPy name."""

    @abstractmethod
    def asarray(self, array: np.ndarray, dtype: str, like: T | None = None) -> T:
        """A tensor with the array's values in `dtype`, on `like`'s device."""

    @abstractmethod
    def to_numpy(self, x: T) -> np.ndarray:
        """The values of x as a NumPy array without gradient; bfloat16 widened to float32, which is exact."""

    @abstractmethod
    def cast(self, x: T, dtype: str | None) -> T:
        """The tensor x in another dtype, as a tensor that the other operations take; None keeps the dtype.

        None is only given where `dtype(x)` was None.
        """

    @abstractmethod
    def reshape(self, x: T, shape: Sequence[int]) -> T:
        """The elements of x in another shape; one size may be -1."""

    @abstractmethod
    def transpose(self, x: T, axes: Sequence[int]) -> T:
        """The tensor x with its axes in the given order."""

    @abstractmethod
    def pad(self, x: T, widths: Sequence[tuple[int, int]], value: float = 0.0) -> T:
        """The tensor x with zeros, or another value that its dtype holds, before and after each axis."""

    @abstractmethod
    def flip(self, x: T, axes: Sequence[int]) -> T:
        """The tensor x with its elements in reverse order along the axes."""

    @abstractmethod
    def take(self, x: T, index: Sequence[int] | np.ndarray, axis: int) -> T:
        """The elements of x at the indices (rank 1, from 0, within bounds) along an axis."""

    @abstractmethod
    def stack(self, tensors: Sequence[T], axis: int) -> T:
        """Tensors of one shape and dtype, joined along a new axis."""

    @abstractmethod
    def where(self, condition: Any, x: T, y: T) -> T:
        """The elements of x where the condition holds, of y elsewhere; x and y broadcast, of one dtype."""

    @abstractmethod
    def zeros(self, shape: Sequence[int], like: T) -> T:
        """Zeros of a shape, of `like`'s dtype and on its device."""

    def number(self, value: float, like: T) -> Any:
        """A number to compute with beside `like`, exactly and in `like`'s dtype."""
        return value

    def part(self, x: T, start: Any, size: int, axis: int) -> T:
        """`size` elements of x along an axis, from `start`, which may be `fold`'s index."""
        return x[(slice(None),) * axis + (slice(start, start + size),)]

    def subtract_product(self, total: T, a: T, b: T) -> T:
        """The elementwise total - a * b, in total's shape; total's memory may be used again."""
        total -= a * b
        return total

    def sum(self, x: T, axes: tuple[int, ...]) -> T:
        """The sums over some axes, which are left out; learning by autograd needs it, too."""
        raise lacking("sum")

    def floor(self, x: T) -> T:
        """The greatest integers not above x, in x's dtype."""
        raise lacking("floor")

    def every(self, condition: Any) -> Any:
        """Whether all elements of a boolean tensor hold: a bool, or a scalar tensor while tracing."""
        raise lacking("every")

    def border(self, x: T, axis: int, pads: Pair, mode: PaddingMode) -> T:
        """The tensor x with a border along an axis whose size isn't known while tracing."""
        raise UnsupportedError(
            f"padding_mode: got {mode!r} on an image of unknown size, expected 'zeros'.",
            hint="while tracing, give the image's height and width, or pad before.",
        )


def lacking(operation: str) -> UnsupportedError:
    """The error for an operation that something needs and a backend lacks."""
    return UnsupportedError(
        f"backend: it has no operation {operation!r}, which this needs.",
        hint="leave algorithm='auto' and method='gram', or use another backend.",
    )
