"""`Operations`: the array operations of a framework that convlab's algorithms are written in."""

from __future__ import annotations

import contextlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..errors import UnsupportedError
from ..geometry.geometry import DataFormat, Geometry, PaddingMode, Pair
from .adapter import Adapter
from .call import Shape

if TYPE_CHECKING:
    from .call import Call
    from .rule import Part, Rule


Mode = Literal["eager", "traced", "deferred", "native", "other"]


class Operations(ABC):
    """The array operations that convlab's algorithms are written in.

    Tensors also support `+`, `-`, `*`, unary minus, `abs`, `<`, `!=` and basic slicing with steps, every axis named or
    an ellipsis in its place. Every operation carries gradients and can be traced by the framework's compilers, except
    where it says otherwise. N, C, H, W are batch, channels, height and width; O is output channels; a size that isn't
    known while tracing is None, and so is a whole shape or dtype.
    """

    # The backend's adapter. Without one, calls aren't planned: they are always native.
    adapter: Adapter | None = None
    # Whether the framework compiles even a single native operation before it runs.
    jitted = False

    @property
    @abstractmethod
    def version(self) -> str:
        """The framework's version."""

    @abstractmethod
    def devices(self) -> list[str]:
        """The devices at hand, by the framework's names."""

    @abstractmethod
    def shape(self, x: Any) -> Shape | None:
        """The sizes of x."""

    def sizes(self, x: Any) -> tuple[int, ...]:
        """The sizes of x to compute with: a scalar tensor for one that isn't known, or else `UnsupportedError`."""
        shape = self.known_rank(x)
        if None in shape:
            raise UnsupportedError(
                f"X: got shape {shape} while tracing, expected known sizes for anything but a plain convolution.",
                hint="give the tensor's shape to the tracer.",
            )
        return shape  # type: ignore[return-value]

    def known_rank(self, x: Any) -> Shape:
        """The shape of x, or `UnsupportedError` if not even its rank is known."""
        shape = self.shape(x)
        if shape is None:
            raise UnsupportedError(
                "X: got a tensor of unknown rank while tracing, expected a known one.",
                hint="give the tensor's shape to the tracer.",
            )
        return shape

    @abstractmethod
    def dtype(self, x: Any) -> str | None:
        """The dtype of x by its NumPy name."""

    @abstractmethod
    def asarray(self, array: np.ndarray, dtype: str, like: Any = None) -> Any:
        """A tensor with the array's values in `dtype`, on `like`'s device."""

    def constant(self, array: Any) -> Any:
        """A list or a NumPy array as a tensor while a tracer runs that can't look into NumPy arrays; else None."""
        return None

    @abstractmethod
    def to_numpy(self, x: Any) -> np.ndarray:
        """The values of x as a NumPy array without gradient; bfloat16 widened to float32, which is exact."""

    @abstractmethod
    def cast(self, x: Any, dtype: str | None) -> Any:
        """The tensor x in another dtype, as a tensor that the other operations take; None keeps the dtype.

        None is only given where `dtype(x)` was None.
        """

    @abstractmethod
    def reshape(self, x: Any, shape: Sequence[int]) -> Any:
        """The elements of x in another shape; one size may be -1."""

    @abstractmethod
    def transpose(self, x: Any, axes: Sequence[int]) -> Any:
        """The tensor x with its axes in the given order."""

    @abstractmethod
    def pad(self, x: Any, widths: Sequence[tuple[int, int]]) -> Any:
        """The tensor x with zeros before and after each axis."""

    @abstractmethod
    def flip(self, x: Any, axes: Sequence[int]) -> Any:
        """The tensor x with its elements in reverse order along the axes."""

    @abstractmethod
    def take(self, x: Any, index: Sequence[int] | np.ndarray, axis: int) -> Any:
        """The elements of x at the indices (rank 1, from 0, within bounds) along an axis."""

    @abstractmethod
    def stack(self, tensors: Sequence[Any], axis: int) -> Any:
        """Tensors of one shape and dtype, joined along a new axis."""

    @abstractmethod
    def where(self, condition: Any, x: Any, y: Any) -> Any:
        """The elements of x where the condition holds, of y elsewhere; x and y broadcast, of one dtype."""

    @abstractmethod
    def zeros(self, shape: Sequence[int], like: Any) -> Any:
        """Zeros of a shape, of `like`'s dtype and on its device."""

    def number(self, value: float, like: Any) -> Any:
        """A number to compute with beside `like`, exactly and in `like`'s dtype."""
        return value

    def part(self, x: Any, start: Any, size: int, axis: int) -> Any:
        """`size` elements of x along an axis, from `start`, which may be `fold`'s index."""
        return x[(slice(None),) * axis + (slice(start, start + size),)]

    def subtract_product(self, total: Any, a: Any, b: Any) -> Any:
        """The elementwise total - a * b, in total's shape; total's memory may be used again."""
        total -= a * b
        return total

    def fold(self, function: Callable[[Any, Any], Any], total: Any, count: Any) -> Any:
        """The value function(… function(function(total, 0), 1) …, count - 1); traced, a loop of the framework's."""
        for index in range(count):
            total = function(total, index)
        return total

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function of tensors, without gradients, compiled where calling it again and again is faster for it."""
        return function

    def wait(self, y: Any) -> Any:
        """The tensor y, once it has its values."""
        return y

    def apply(self, rule: Rule, *inputs: Any) -> Any:
        """The custom-gradient hook: `compute(self, rule, *inputs)`, whose gradients are `gradients(self, rule, …)`.

        Both are in `convlab.correlation.compute`. Only backends with autograd have it.
        """
        raise _lacking(rule.algorithm)

    def matmul(self, a: Any, b: Any) -> Any:
        """Products of matrices (..., I, J) and (..., J, K), whose leading axes broadcast."""
        raise _lacking("matmul")

    def sum(self, x: Any, axes: tuple[int, ...]) -> Any:
        """The sums over some axes, which are left out; learning by autograd needs it, too."""
        raise _lacking("fft")

    def rfft2(self, x: Any, size: Pair) -> Any:
        """The transform of a real x over its last two axes, zeros added up to `size`; see `numpy.fft.rfft2`."""
        raise _lacking("fft")

    def irfft2(self, spectrum: Any, size: Pair) -> Any:
        """The real array of `size` whose transform `spectrum` is; see `numpy.fft.irfft2`."""
        raise _lacking("fft")

    def conj(self, x: Any) -> Any:
        """The complex conjugate."""
        raise _lacking("fft")

    def tiles(self, x: Any, size: Pair, step: Pair) -> Any:
        """(N, C, H, W) cut into overlapping tiles: (N, C, rows, columns, *size), a tile each `step`."""
        *_, height, width = self.sizes(x)
        down, right = ((n - t) // s + 1 for n, t, s in zip((height, width), size, step, strict=True))
        rows = [self.part(x, i * step[0], size[0], 2) for i in range(down)]
        lines = [self.stack([self.part(row, j * step[1], size[1], 3) for j in range(right)], 2) for row in rows]
        return self.stack(lines, 2)

    def floor(self, x: Any) -> Any:
        """The greatest integers not above x, in x's dtype."""
        raise _lacking("fft")

    def every(self, condition: Any) -> Any:
        """Whether all elements of a boolean tensor hold: a bool, or a scalar tensor while tracing."""
        raise _lacking("fft")

    def choose(self, condition: Any, yes: Callable[[], Any], no: Callable[[], Any]) -> Any:
        """The result of yes() or of no(), tensors of one shape and dtype, by a condition that `every` returned."""
        return yes() if condition else no()

    def mode(self, *tensors: Any) -> Mode:
        """What can be planned for tensors.

        - "eager": they have values, on a CPU.
        - "traced": `apply` is traced, for a CPU.
        - "deferred": while tracing, `apply` becomes one operator, which plans when it has values.
        - "native": only the framework's own operators may be used.
        - "other": they are on another processor.
        """
        return "eager"

    def as_host(self, x: Any) -> np.ndarray:
        """A CPU tensor's own memory as a NumPy array, without its gradient, for reading; never asked for bfloat16."""
        return self.to_numpy(x)

    def host_empty(self, shape: Sequence[int], dtype: Any) -> np.ndarray:
        """Memory that `from_host` needn't copy."""
        return np.empty(shape, dtype)

    def from_host(self, array: np.ndarray, like: Any) -> Any:
        """A tensor in a NumPy array's memory, which nothing else will use, of `like`'s framework and device."""
        return self.asarray(array, array.dtype.name, like)

    def records(self, *tensors: Any) -> bool:
        """Whether gradients may be asked for of what is computed from eager tensors now; None stands for no tensor."""
        return False

    def signature(self, x: Any, k: Any, b: Any) -> Hashable | None:
        """Everything about X, K and the bias (or None) on which the way to compute depends, as a hashable value.

        The result of `records` is part of it. None if they aren't the framework's own eager tensors, or if anything
        traces or transforms. It is asked at every call: it must take less than a microsecond.
        """
        return None

    def correlate(self, call: Call, x: Any, k: Any, b: Any) -> Any:
        """A whole call of corr2d. Only backends that wrap others (`Adapter.wraps`) have it.

        They run `call` for each chunk on the backend `call.inner`. X arrives in its own dtype, so that each chunk is
        cast when it is computed.
        """
        raise NotImplementedError

    def prepare(self, call: Call) -> Callable[[Any, Any, Any], Any] | None:
        """A faster equivalent of `execute(self, call, …)` (`convlab.correlation.call`); None if there is none.

        It is only asked for eager tensors that are neither empty nor integers, and takes the call's place from the
        first time on, so that all calls have the same bits.
        """
        return None

    @abstractmethod
    def conv(self, x: Any, kernel: Any, geometry: Geometry) -> Any:
        """The framework's own cross-correlation, without bias; padding is zeros, whatever `padding_mode`.

        x and kernel have one and the same floating or complex dtype, which is also the result's.
        NCHW: x (N, C, H, W), kernel (O, C/groups, h, w), result (N, O, H', W').
        NHWC: x (N, H, W, C), kernel (h, w, C/groups, O), result (N, H', W', O).
        """

    def conv_gradient(self, part: Part, a: Any, b: Any, geometry: Geometry, size: Pair) -> Any:
        """The framework's own gradient of `conv` on NCHW, without gradients of its own.

        For part "x" it is the gradient of X, of `size` rows and columns, from a = dY and b = K; for part "k" that of K,
        from a = X and b = dY.
        """
        if part == "x":
            shape = (self.sizes(a)[0], self.sizes(b)[1] * geometry.groups, *size)
            return self.vjp(lambda x: self.conv(x, b, geometry), (self.zeros(shape, a),), a)[0]
        shape = (self.sizes(b)[1], self.sizes(a)[1] // geometry.groups, *geometry.kernel_size)
        return self.vjp(lambda k: self.conv(a, k, geometry), (self.zeros(shape, a),), b)[0]

    @abstractmethod
    def vjp(self, function: Callable[..., Any], inputs: Sequence[Any], dy: Any) -> tuple[Any, ...]:
        """The gradients of sum(dy * function(*inputs)) with respect to each input, by the framework's autograd."""

    def border(self, x: Any, axis: int, pads: Pair, mode: PaddingMode) -> Any:
        """The tensor x with a border along an axis whose size isn't known while tracing."""
        raise UnsupportedError(
            f"padding_mode: got {mode!r} on an image of unknown size, expected 'zeros'.",
            hint="while tracing, give the image's height and width, or pad before.",
        )

    def device(self, x: Any) -> Hashable | None:
        """The device of x; None where the framework moves tensors by itself, or while tracing."""
        return None

    def is_concrete(self, x: Any) -> bool:
        """Whether x has values now, that is, isn't a tracer or a symbol."""
        return True

    def scope(self, dtype: str | None) -> AbstractContextManager[Any]:
        """A context in which tensors of `dtype` can be computed with."""
        return contextlib.nullcontext()

    def native(self, y: Any, like: Any) -> Any:
        """The tensor y as the kind of tensor that `like` is, where a framework has several."""
        return y

    def to_images(self, x: Any, data_format: DataFormat) -> Any:
        """(..., H, W) as a batch of one-channel images."""
        *leading, height, width = self.sizes(x)
        n = math.prod(leading)
        return self.reshape(x, (n, 1, height, width) if data_format == "NCHW" else (n, height, width, 1))

    def from_images(self, y: Any, like: Any, data_format: DataFormat) -> Any:
        """A batch of one-channel images with the leading axes of `like`: the inverse of `to_images`."""
        shape = self.sizes(y)
        size = shape[2:] if data_format == "NCHW" else shape[1:3]
        return self.reshape(y, (*self.sizes(like)[:-2], *size))


def _lacking(algorithm: str) -> UnsupportedError:
    return UnsupportedError(
        f"algorithm: this backend has no operations for {algorithm!r}.",
        hint="algorithm='auto' or another backend works.",
    )
