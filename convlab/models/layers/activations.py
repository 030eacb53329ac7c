"""Functions of each element: activations, sums and products with numbers, limits; and the softmax over the channels."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ...dtypes import SIGNIFICAND
from ...errors import UnsupportedError
from ...truth.bounds import sum_bound
from .formulas import FORMULAS
from .layer import Layer, OfAnyRank
from .slopes import Slopes, column, summed_by_channel


class Function(NamedTuple):
    """An activation: what it computes, its steepest slope, and whether it is computed without rounding.

    `of_logarithm` says that it is x times a function of a softplus, whose error near 0 is multiplied by x. `size` is
    how large the numbers on the way may be where x is 0, by the parameter. A function without a steepest slope, or with
    a step, has an `error` of its own, of x, of how far that is off, of the dtype and of the parameter.
    """

    of: Callable[[np.ndarray, float], np.ndarray]
    slope: float
    exact: bool = False
    of_logarithm: bool = False
    size: Callable[[float], float] = lambda a: 1.0
    error: Callable[[np.ndarray, np.ndarray, str, float], np.ndarray] | None = None


def shortest(number: float) -> float:
    """A number of float32 in as few digits as tell it from all others of float32; any other number as it is.

    >>> shortest(0.10000000149011612), shortest(1 / 255)
    (0.1, 0.00392156862745098)
    """
    narrow = np.float32(number if abs(number) < 1e38 else 0.0)
    return float(str(narrow)) if float(narrow) == number else number


def _gelu(x: np.ndarray) -> np.ndarray:
    from scipy.special import ndtr

    return np.asarray(x * ndtr(x))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    from scipy.special import expit

    return np.asarray(expit(x))


def _composed(name: str) -> Callable[[np.ndarray, float], np.ndarray]:
    formula = FORMULAS[name]
    return lambda x, a: np.asarray(formula(np, x, a))


def _steps_error(magnitude: Callable[[np.ndarray], np.ndarray]) -> Callable[..., np.ndarray]:
    """The error of x where a magnitude of it is above the parameter, and 0 elsewhere."""

    def error(x: np.ndarray, off: np.ndarray, dtype: str, a: float) -> np.ndarray:
        near = off + 2.0 ** -SIGNIFICAND[dtype] * abs(a)
        beside = np.abs(magnitude(x) - a) <= near
        return np.where(beside, np.abs(x) + off, np.where(magnitude(x) > a, off, 0.0))

    return error


def least_normal(dtype: str) -> float:
    """What may be lost where numbers nearer to zero count as zero: that of float32 for the wider dtypes, too."""
    return float(np.finfo("float16" if dtype == "float16" else "float32").tiny)


def _sqrt(x: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.asarray(np.sqrt(x))


def _sqrt_error(x: np.ndarray, off: np.ndarray, dtype: str, a: float) -> np.ndarray:
    least, root, most = (np.sqrt(np.maximum(each, 0)) for each in (x - off, x, x + off))
    carried = np.maximum(most - root, root - least)
    return np.asarray(carried + 4 * 2.0 ** -SIGNIFICAND[dtype] * most + math.sqrt(least_normal(dtype)))


def _exp(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.asarray(np.exp(x))


def _exp_error(x: np.ndarray, off: np.ndarray, dtype: str, a: float) -> np.ndarray:
    most = _exp(x + off)
    rounding = 2.0 ** -SIGNIFICAND[dtype] * (_ROUNDINGS + 2 * np.abs(x)) * most + least_normal(dtype)
    # Beyond float64 there is no difference to tell.
    return np.where(np.isinf(most), np.inf, np.where(np.isinf(most), 0, most) * -np.expm1(-off) + rounding)


def _log(x: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.log(x))


def _log_error(x: np.ndarray, off: np.ndarray, dtype: str, a: float) -> np.ndarray:
    """Where x may be 0 or less, anything; a logarithm is steepest below x."""
    least = x - off
    with np.errstate(divide="ignore", invalid="ignore"):
        carried = np.log(x) - np.log(least)
        error = carried + 4 * 2.0 ** -SIGNIFICAND[dtype] * (np.abs(np.log(x)) + carried + 1)
    return np.where(least > least_normal(dtype), error, np.inf)


def _reciprocal(x: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.asarray(1 / x)


def _reciprocal_error(x: np.ndarray, off: np.ndarray, dtype: str, a: float) -> np.ndarray:
    """Where x may be 0, anything."""
    least = np.abs(x) - off
    with np.errstate(divide="ignore", invalid="ignore"):
        carried = off / (np.abs(x) * least)
        error = carried + 4 * 2.0 ** -SIGNIFICAND[dtype] * (1 / np.abs(x) + carried) + least_normal(dtype)
    return np.where(least > least_normal(dtype), error, np.inf)


_SELU, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772

# The second argument is `Activation.parameter`. GELU: Hendrycks and Gimpel, arXiv:1606.08415; ELU: arXiv:1511.07289;
# SELU: arXiv:1706.02515; Mish: arXiv:1908.08681; hard swish: MobileNetV3, arXiv:1905.02244.
FUNCTIONS = {
    "relu": Function(lambda x, a: np.maximum(x, 0), 1, exact=True),
    "relu6": Function(lambda x, a: np.clip(x, 0, 6), 1, exact=True),
    "leaky_relu": Function(lambda x, a: np.where(x > 0, x, a * x), 1),
    "elu": Function(lambda x, a: np.where(x > 0, x, a * np.expm1(np.minimum(x, 0))), 1),
    "sigmoid": Function(lambda x, a: _sigmoid(x), 0.25),
    "tanh": Function(lambda x, a: np.tanh(x), 1),
    "softplus": Function(_composed("softplus"), 1, size=lambda a: 1 / (a or 1.0)),
    "silu": Function(lambda x, a: x * _sigmoid(x), 1.1),
    "hard_sigmoid": Function(lambda x, a: np.clip(x + 3, 0, 6) / 6, 1 / 6),
    "hard_swish": Function(lambda x, a: x * np.clip(x + 3, 0, 6) / 6, 1.5),
    "mish": Function(lambda x, a: x * np.tanh(np.logaddexp(0, x)), 1.1, of_logarithm=True),
    "selu": Function(lambda x, a: _SELU * np.where(x > 0, x, _SELU_ALPHA * np.expm1(np.minimum(x, 0))), 1.76),
    "gelu": Function(lambda x, a: _gelu(x), 1.13),
    "gelu_tanh": Function(_composed("gelu_tanh"), 1.13),
    "abs": Function(lambda x, a: np.abs(x), 1, exact=True),
    "sqrt": Function(lambda x, a: _sqrt(x), math.inf, error=_sqrt_error),
    "exp": Function(lambda x, a: _exp(x), math.inf, error=_exp_error),
    "log": Function(lambda x, a: _log(x), math.inf, error=_log_error),
    "reciprocal": Function(lambda x, a: _reciprocal(x), math.inf, error=_reciprocal_error),
    "celu": Function(_composed("celu"), 1),
    "softsign": Function(_composed("softsign"), 1),
    "log_sigmoid": Function(_composed("log_sigmoid"), 1),
    "soft_shrink": Function(_composed("soft_shrink"), 1),
    "hard_shrink": Function(_composed("hard_shrink"), 1, error=_steps_error(np.abs)),
    "tanh_shrink": Function(_composed("tanh_shrink"), 1),
    "threshold": Function(_composed("threshold"), 1, error=_steps_error(lambda x: x)),
    "squareplus": Function(_composed("squareplus"), 1, size=lambda a: math.sqrt(abs(a))),
    "sparse_plus": Function(_composed("sparse_plus"), 1),
    "sparse_sigmoid": Function(_composed("sparse_sigmoid"), 0.5),
}
# Those whose parameter is a slope.
_SLOPED = ("leaky_relu", "elu")
# Those that are nothing without their parameter.
WITH_PARAMETER = (*_SLOPED, "celu", "soft_shrink", "hard_shrink", "threshold", "squareplus")
# An exponential and the few operations round it make at most so many roundings.
_ROUNDINGS = 16
# oneDNN's logarithm, which MXNet takes, is off by some 50 roundings of 1.
_ROUNDINGS_OF_LOGARITHM = 128


@dataclass(frozen=True, eq=False)
class Activation(Layer):
    """A function of each element.

    Attributes:
        function: one of `FUNCTIONS`.
        parameter: leaky_relu's slope below 0, elu's and celu's alpha, squareplus's b; beyond which number soft_shrink,
            hard_shrink and threshold leave anything; softplus's beta where it isn't 1; otherwise 0.

    Raises:
        UnsupportedError: the parameter of a function other than leaky_relu, elu and threshold is below 0, or celu's is
            0.
    """

    kind = "activation"

    function: str
    parameter: float = 0.0

    def __post_init__(self) -> None:
        below = self.parameter < 0 and self.function not in (*_SLOPED, "threshold")
        if below or (self.function == "celu" and not self.parameter):
            got = f"got {self.parameter} for the parameter of {self.function}, expected one above 0."
            raise UnsupportedError(got, hint="no framework has this function.")

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        return FUNCTIONS[self.function].of(x, self.parameter)

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`."""
        function = FUNCTIONS[self.function]
        if function.error is not None:
            return function.error(x, off, dtype, self.parameter)
        carried = max(function.slope, abs(self.parameter) if self.function in _SLOPED else 0.0) * off
        if function.exact:
            return carried
        factor = 1 + np.maximum(-x, 0) if function.of_logarithm else 1.0
        size = max(function.size(self.parameter), 1.0) + np.abs(x) + off
        return np.asarray(carried + _ROUNDINGS * 2.0 ** -SIGNIFICAND[dtype] * size * factor)


def celu(alpha: float) -> Activation:
    """The layer that a CELU is; with an alpha of 1 an ELU computes the same.

    >>> celu(1), celu(0.5)
    (Activation(function='elu', parameter=1.0), Activation(function='celu', parameter=0.5))
    """
    return Activation("elu" if alpha == 1 else "celu", float(alpha))


def softplus(beta: float, threshold: float = 20.0) -> Activation:
    """The layer that log(1 + exp(beta * x)) / beta is, which above a threshold of beta * x may be x.

    Raises:
        UnsupportedError: the threshold is so low that it makes a difference, or beta isn't above 0.
    """
    if threshold < 20 or beta <= 0:
        raise UnsupportedError(f"only PyTorch has a softplus with beta {beta} and threshold {threshold}")
    return Activation("softplus", 0.0 if beta == 1 else float(beta))


def threshold(least: float, otherwise: float = 0.0) -> Layer:
    """The layer that gives the numbers above one, and for the others always the same: 0, or that one itself.

    >>> threshold(0.5), threshold(0.5, 0.5)
    (Activation(function='threshold', parameter=0.5), Clip(least=0.5, most=inf))

    Raises:
        UnsupportedError: for the others it gives something else.
    """
    if otherwise not in (0, least):
        raise UnsupportedError(f"for numbers up to {least} it gives {otherwise}, expected 0 or {least}")
    return clip(least, None) if otherwise == least else Activation("threshold", float(least))


@dataclass(frozen=True, eq=False)
class PReLU(OfAnyRank):
    """x where it is above 0, slope * x below, with a slope that is trained.

    Source: arXiv:1502.01852.

    Attributes:
        slope: one number for each channel, or one for all, in an array of one element.
        dtype: its dtype.
    """

    kind = "prelu"
    arrays = ("slope",)

    slope: np.ndarray
    dtype: str = "float32"

    @property
    def input_channels(self) -> int:
        """See `Layer.input_channels`."""
        return len(self.slope) if len(self.slope) > 1 else 0

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        return np.where(x > 0, x, column(self.slope, x) * x)

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`: the slope and the product are rounded."""
        slope = np.maximum(np.abs(column(self.slope, x)), 1)
        return np.asarray(slope * (off + 4 * 2.0 ** -SIGNIFICAND[dtype] * (np.abs(x) + off)))

    def gradients(self, x: np.ndarray, dy: np.ndarray, dtype: str) -> tuple[Slopes, Slopes]:
        """See `Layer.gradients`; at 0 there is no derivative, and frameworks may give any number."""
        slope, below = column(self.slope, x), np.minimum(x, 0)
        by_image = dy * np.where(x > 0, 1, slope)
        bound = sum_bound(np.abs(by_image), 2, dtype, np.abs(dy), np.abs(slope))
        products = dy * below
        if len(self.slope) == 1:
            products = products.reshape(-1, 1)
        by_slope, slope_bound = summed_by_channel(products, np.abs(products), dtype, 2, dy, below)
        return {"X": by_image, "slope": by_slope}, {"X": np.where(x == 0, np.inf, bound), "slope": slope_bound}


NEVER_NEGATIVE = (
    *("relu", "relu6", "sigmoid", "hard_sigmoid", "softplus", "abs", "sqrt", "exp"),
    *("squareplus", "sparse_plus", "sparse_sigmoid"),
)


@dataclass(frozen=True, eq=False)
class Affine(Layer):
    """x * scale + shift, with a number for each."""

    kind = "affine"

    scale: float = 1.0
    shift: float = 0.0

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        return np.asarray(x * self.scale + self.shift)

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`: both numbers, the product and the sum are rounded."""
        size = np.abs(self.scale) * (np.abs(x) + off)
        rounding = 4 * 2.0 ** -SIGNIFICAND[dtype] * (size + np.abs(self.shift))
        return np.asarray(np.abs(self.scale) * off + rounding)


@dataclass(frozen=True, eq=False)
class Clip(Layer):
    """x, or the nearest number from `least` to `most`."""

    kind = "clip"

    least: float = -math.inf
    most: float = math.inf

    @property
    def limits(self) -> tuple[float, float]:
        """Both of them."""
        return self.least, self.most

    @property
    def finite_limits(self) -> tuple[float | None, float | None]:
        """Both of them, None for no limit: `clip` makes the layer of them."""
        least, most = (limit if math.isfinite(limit) else None for limit in self.limits)
        return least, most

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        return np.asarray(np.minimum(np.maximum(x, self.least), self.most))

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`: both limits are rounded."""
        largest = max(abs(limit or 0.0) for limit in self.finite_limits)
        return np.asarray(off + 2.0 ** -SIGNIFICAND[dtype] * largest)


def clip(least: float | None, most: float | None) -> Layer:
    """The layer that limits numbers, None for no limit; a ReLU is one of them.

    >>> clip(0, None), clip(-1, 1)
    (Activation(function='relu', parameter=0.0), Clip(least=-1.0, most=1.0))
    """
    low, high = -math.inf if least is None else float(least), math.inf if most is None else float(most)
    functions = {(0.0, math.inf): "relu", (0.0, 6.0): "relu6"}
    return Activation(functions[low, high]) if (low, high) in functions else Clip(low, high)


@dataclass(frozen=True, eq=False)
class Softmax(Layer):
    """exp(x) / sum(exp(x)) over the channels of each pixel, or of each row of numbers.

    Attributes:
        log: whether it is the logarithm of that.
    """

    kind = "softmax"

    log: bool = False

    def reference(self, x: np.ndarray) -> np.ndarray:
        """See `Layer.reference`."""
        from scipy.special import log_softmax, softmax

        return np.asarray((log_softmax if self.log else softmax)(np.asarray(x, np.float64), axis=1))

    def error(self, x: np.ndarray, off: np.ndarray, dtype: str) -> np.ndarray:
        """See `Layer.error`: the roundings of x less its maximum, of the exponentials and of their sum."""
        spread = np.max(x, axis=1, keepdims=True) - x + 2 * off
        farthest = np.max(off, axis=1, keepdims=True)
        rounding = 2.0 ** -SIGNIFICAND[dtype] * (_ROUNDINGS + x.shape[1] + 2 * spread.max(axis=1, keepdims=True))
        relative = off + farthest + rounding
        if self.log:
            return np.asarray(
                relative + 2.0 ** -SIGNIFICAND[dtype] * (_ROUNDINGS_OF_LOGARITHM + np.abs(self.reference(x)))
            )
        # A share that is 0 in float64 may become any other; none is ever off by more than 1.
        largest = np.exp(np.minimum(Softmax(log=True).reference(x) + relative, 0.0))
        off_by = np.where(relative > 1, largest, self.reference(x) * np.expm1(np.minimum(relative, 1.0)))
        return np.asarray(np.minimum(off_by, 1 + rounding) + least_normal(dtype))
