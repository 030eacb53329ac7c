"""`Operations`: what convlab's algorithms are written in, which each backend provides."""

from __future__ import annotations

import contextlib
import math
from abc import abstractmethod
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from typing import Any

from ..geometry.geometry import DataFormat, Geometry, Pair
from .adapter import Adapter
from .arrays import T, lacking
from .autograd import Autograd
from .call import Call
from .memory import HostMemory
from .rule import Part
from .tracing import TRACED, Mode, Tracing
from .transforms import Transforms

__all__ = ["TRACED", "Mode", "Operations"]


class Operations(Autograd[T], Tracing[T], HostMemory[T], Transforms[T]):
    """All operations of a backend: those of arrays, autograd, tracing, memory and transforms, and the framework's own.

    T is the framework's type of tensor.
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

    def signature(self, x: T, k: T, b: Any) -> Hashable | None:
        """What of X, K and the bias (or None) the choice of an algorithm depends on, as a hashable value.

        The result of `records` is part of it. None if they aren't the framework's own eager tensors, or if anything
        traces or transforms. It is asked at every call: it must take less than a microsecond.
        """
        return None

    def correlate(self, call: Call, x: T, k: T, b: Any) -> Any:
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
    def conv(self, x: T, kernel: T, geometry: Geometry) -> T:
        """The framework's own cross-correlation, without bias; padding is zeros, whatever `padding_mode`.

        x and kernel have one and the same floating or complex dtype, which is also the result's.
        NCHW: x (N, C, H, W), kernel (O, C/groups, h, w), result (N, O, H', W').
        NHWC: x (N, H, W, C), kernel (h, w, C/groups, O), result (N, H', W', O).
        """

    def conv_transpose(self, y: T, kernel: T, geometry: Geometry, output_padding: Pair) -> T:
        """The framework's own transposed convolution: the transpose of `conv` as a map of images, with gradients.

        y and kernel are laid out as the result and the kernel of `conv`, the result as its image. Along each axis it
        has as many places as `Geometry.transposed_size` says; `output_padding` is less than the stride. A backend
        without it takes a plain convolution of rearranged kernels.
        """
        raise lacking("conv_transpose")

    def conv_gradient(self, part: Part, a: T, b: T, geometry: Geometry, size: Pair) -> T:
        """The framework's own gradient of `conv` on NCHW, without gradients of its own.

        For part "x" it is the gradient of X, of `size` rows and columns, from a = dY and b = K; for part "k" that of K,
        from a = X and b = dY.
        """
        if part == "x":
            shape = (self.sizes(a)[0], self.sizes(b)[1] * geometry.groups, *size)
            return self.vjp(lambda x: self.conv(x, b, geometry), (self.zeros(shape, a),), a)[0]
        shape = (self.sizes(b)[1], self.sizes(a)[1] // geometry.groups, *geometry.kernel_size)
        return self.vjp(lambda k: self.conv(a, k, geometry), (self.zeros(shape, a),), b)[0]

    def device(self, x: T) -> Hashable | None:
        """The device of x; None where the framework moves tensors by itself, or while tracing."""
        return None

    def scope(self, dtype: str | None) -> AbstractContextManager[Any]:
        """A context in which tensors of `dtype` can be computed with."""
        return contextlib.nullcontext()

    def native(self, y: T, like: T) -> T:
        """The tensor y as the kind of tensor that `like` is, where a framework has several."""
        return y

    def to_images(self, x: T, data_format: DataFormat) -> T:
        """(..., H, W) as a batch of one-channel images."""
        *leading, height, width = self.sizes(x)
        n = math.prod(leading)
        return self.reshape(x, (n, 1, height, width) if data_format == "NCHW" else (n, height, width, 1))

    def from_images(self, y: T, like: T, data_format: DataFormat) -> T:
        """A batch of one-channel images with the leading axes of `like`: the inverse of `to_images`."""
        shape = self.sizes(y)
        size = shape[2:] if data_format == "NCHW" else shape[1:3]
        return self.reshape(y, (*self.sizes(like)[:-2], *size))
