"""Layers in which the channels of a pixel meet: a norm by those beside each, shares of the parts of channels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...dtypes import SIGNIFICAND
from ...errors import UnsupportedError
from .activations import Activation, Softmax
from .layer import Layer


@dataclass(frozen=True, eq=False)
class LocalResponseNorm(Layer):
    """x / (k + alpha / size * s) ** beta, where s is the sum of the squares of `size` channels about each.

    Before a channel count size // 2 of them, behind it (size - 1) // 2, as in PyTorch; what isn't there is 0. MXNet and
    ONNX divide alpha by the size, too; TensorFlow doesn't, and calls size // 2 the depth_radius and k the bias.

    Source: AlexNet (Krizhevsky, Sutskever and Hinton, 2012, section 3.3).

    Attributes:
        size: how many channels.
        alpha, beta, k: see above; above 0, at least 0, and above 0.

    Raises:
        UnsupportedError: they aren't.
    """

    kind = "local_response_norm"

    size: int
    alpha: float
    beta: float
    k: float

    def __post_init__(self) -> None:
        if min(self.alpha, self.k) <= 0 or self.beta < 0:
            raise UnsupportedError(
                f"its alpha, beta and k are {self.alpha}, {self.beta} and {self.k}, expected numbers above 0"
            )

    def _sums(self, squares: np.ndarray) -> np.ndarray:
        """The sums of `size` channels about each."""
        widths = [(0, 0)] * squares.ndim
        widths[1] = self.size // 2, (self.size - 1) // 2
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(squares, widths), self.size, axis=1)
        return np.asarray(windows.sum(-1))

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        return np.asarray(x / (self.k + self.alpha / self.size * self._sums(x**2)) ** self.beta)

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`: a power may be computed as exp(beta * log(...)), whose exponent is rounded."""
        unit, share, largest = 2.0 ** -SIGNIFICAND[dtype], self.alpha / self.size, np.abs(x) + off
        norm = self.k + share * self._sums(x**2)
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            most = self.k + share * self._sums(largest**2)
            norm_error = most - norm + (self.size + 6) * unit * most
            least = np.maximum(norm - norm_error, 0)
            top = largest * least**-self.beta
            rounding = (8 + 4 * self.beta * np.abs(np.log(most))) * unit * top
            error = top - np.abs(x) * norm**-self.beta + rounding
        return np.where(least > 0, error, np.inf)


@dataclass(frozen=True, eq=False)
class PartsSoftmax(Layer):
    """The channels in equal parts, one after another: a softmax over the parts, for each channel of a part.

    So selective kernels (arXiv:1903.06586) and split attention (arXiv:2004.08955) weigh their branches.

    Attributes:
        parts: how many there are.
    """

    kind = "parts_softmax"

    parts: int

    def _by_part(self, x: np.ndarray) -> np.ndarray:
        return x.reshape(len(x), self.parts, -1)

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        return Softmax().reference(self._by_part(x)).reshape(x.shape)

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`."""
        return Softmax().error(self._by_part(x), self._by_part(off), dtype).reshape(x.shape)

    @property
    def divisor(self) -> int:
        """What the number of channels is a multiple of."""
        return self.parts


@dataclass(frozen=True, eq=False)
class GatedLinearUnit(Layer):
    """The first half of the channels times the sigmoid of the second half.

    Source: arXiv:1612.08083.
    """

    kind = "glu"

    # What the number of channels is a multiple of.
    divisor = 2

    def output_channels(self, channels: int) -> int:
        """See `Layer.output_channels`."""
        return channels // 2

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        values, gates = np.split(x, 2, axis=1)
        return np.asarray(values * Activation("sigmoid").reference(gates))

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`."""
        (values, gates), (by_values, by_gates) = (np.split(each, 2, axis=1) for each in (x, off))
        sigmoid, unit = Activation("sigmoid"), 2.0 ** -SIGNIFICAND[dtype]
        share, largest = sigmoid.reference(gates), np.abs(values) + by_values
        return np.asarray(share * by_values + largest * (sigmoid.error(gates, by_gates, dtype) + 2 * unit))


# Those that take a multiple of their `divisor` of channels.
OF_PARTS = (PartsSoftmax, GatedLinearUnit)
