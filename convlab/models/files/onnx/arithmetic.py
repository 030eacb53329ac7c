"""ONNX's operators that take each number by itself: one entry for each in `ARITHMETIC`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ....errors import UnsupportedError
from ...layers.activations import Activation, Affine, PReLU, celu, clip
from ...layers.joining import Add, Divide, Maximum, Minimum, Multiply, Subtract
from ...layers.layer import Layer
from ...layers.norms import ChannelAffine
from .operation import Operation, Reader
from .spelled_out import Elementwise

_SELU = 1.6732632, 1.0507009


def _clip(op: Operation) -> Sequence[Layer]:
    limits = (op.constant(index, "a limit") for index in (1, 2))
    return [clip(*(None if limit is None else _number(limit) for limit in limits))]


def _hard_sigmoid(op: Operation) -> Sequence[Layer]:
    alpha, beta = op.options.get("alpha", 0.2), op.options.get("beta", 0.5)
    if abs(6 * alpha - 1) < 1e-6 and beta == 0.5:
        return [Activation("hard_sigmoid")]
    return [Affine(6 * alpha, 6 * beta), Activation("relu6"), Affine(1 / 6)]


def _gelu(op: Operation) -> Sequence[Layer]:
    return [Activation("gelu_tanh" if op.options.get("approximate", "none") == "tanh" else "gelu")]


def _prelu(op: Operation) -> Sequence[Layer]:
    slope = op.constant(1, "a slope")
    if slope is None or slope.dtype.kind != "f":
        raise UnsupportedError("got no slope, expected floating-point numbers")
    return [PReLU(slope.reshape(_channels(op, slope)), slope.dtype.name)]


def _selu(op: Operation) -> Sequence[Layer]:
    alpha, gamma = op.options.get("alpha", _SELU[0]), op.options.get("gamma", _SELU[1])
    if not np.allclose((alpha, gamma), _SELU, 1e-6, 0):
        raise UnsupportedError(f"got a SELU with alpha {alpha} and gamma {gamma}, expected {_SELU}")
    return [Activation("selu")]


def _swish(op: Operation) -> Sequence[Layer]:
    if op.options.get("alpha", 1.0) != 1:
        raise UnsupportedError(f"got a swish with alpha {op.options['alpha']}, expected 1")
    return [Activation("silu")]


def _shrink(op: Operation) -> Sequence[Layer]:
    """Numbers nearer to 0 than lambd become 0, and the others come nearer by bias."""
    limit, bias = op.options.get("lambd", 0.5), op.options.get("bias", 0.0)
    if bias not in (0, limit):
        raise UnsupportedError(f"got a bias of {bias}, expected 0 or its lambd, {limit}")
    return [Activation("soft_shrink" if bias else "hard_shrink", limit)]


def _number(array: np.ndarray | None) -> float:
    if array is None or array.size != 1:
        raise UnsupportedError(f"got {'none' if array is None else f'shape {array.shape}'}, expected one number")
    return float(str(array.ravel()[0]))


def _per_channel(op: Operation, scale: np.ndarray | None, shift: np.ndarray | None) -> Layer:
    """x * scale + shift, for one number or one for each channel."""
    given = next(array for array in (scale, shift) if array is not None)
    if given.size == 1 and given.ndim <= len(op.layout):
        return Affine(1.0 if scale is None else _number(scale), 0.0 if shift is None else _number(shift))
    count = _channels(op, given)
    scale, shift = (None if array is None else array.reshape(count) for array in (scale, shift))
    return ChannelAffine(scale, shift, trained=True, dtype=given.dtype.name)


def _channels(op: Operation, given: np.ndarray) -> int:
    """How many numbers an array has, one for each channel of the values."""
    sizes = dict(zip(op.layout[::-1], given.shape[::-1], strict=False))
    count = sizes.pop("C", 1)
    if given.ndim > len(op.layout) or set(sizes.values()) - {1} or given.dtype.kind != "f" or not count:
        raise UnsupportedError(f"got an array of shape {given.shape} for values {op.layout}, expected one for channels")
    return int(count)


def _other(op: Operation) -> np.ndarray | None:
    """The constant among two inputs; None where all are values."""
    constants = [each for each in op.inputs if isinstance(each, np.ndarray)]
    if constants and len(op.inputs) != 2:
        raise UnsupportedError(f"got a constant among {len(op.inputs)} inputs, expected two, or values alone")
    return constants[0] if constants else None


def _sum(op: Operation) -> Sequence[Layer]:
    shift = _other(op)
    return [Add() if shift is None else _per_channel(op, None, shift)]


def _product(op: Operation) -> Sequence[Layer]:
    scale = _other(op)
    return [Multiply() if scale is None else _per_channel(op, scale, None)]


def _difference(op: Operation) -> Sequence[Layer]:
    first = op.inputs[0]
    if isinstance(first, np.ndarray):
        return [Affine(-1.0), _per_channel(op, None, first)]
    shift = _other(op)
    return [Subtract() if shift is None else _per_channel(op, None, -shift)]


def _quotient(op: Operation) -> Sequence[Layer]:
    first = op.inputs[0]
    if isinstance(first, np.ndarray):
        dividend = _number(first)
        return [Elementwise(lambda x: dividend / x)]
    divisor = _other(op)
    if divisor is None:
        return [Divide()]
    if not divisor.all():
        raise UnsupportedError("got a divisor of 0, expected others")
    if divisor.size == 1:
        return [Affine(1 / _number(divisor))]
    return [_per_channel(op, (1 / divisor.astype(np.float64)).astype(divisor.dtype), None)]


def _greatest(op: Operation) -> Sequence[Layer]:
    least = _other(op)
    return [Maximum() if least is None else clip(_number(least), None)]


def _least(op: Operation) -> Sequence[Layer]:
    most = _other(op)
    return [Minimum() if most is None else clip(None, _number(most))]


def _with_number(function: Callable[[np.ndarray, float], np.ndarray]) -> Reader:
    """The reader of a function of each number and a constant."""

    def read(op: Operation) -> Sequence[Layer]:
        number = _number(_other(op))
        return [Elementwise(lambda x: function(x, number))]

    return read


def _erf(x: np.ndarray) -> np.ndarray:
    from scipy.special import erf

    return np.asarray(erf(x))


def _layer(layer: Layer) -> Reader:
    return lambda op: [layer]


def _with_alpha(function: str, default: float) -> Reader:
    return lambda op: [Activation(function, op.options.get("alpha", default))]


_ACTIVATIONS = {
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Softplus": "softplus",
    "HardSwish": "hard_swish",
    "Mish": "mish",
    "Softsign": "softsign",
    "Exp": "exp",
    "Sqrt": "sqrt",
    "Abs": "abs",
}
_PIECES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Erf": _erf,
    "Log": np.log,
    "Reciprocal": np.reciprocal,
}
ARITHMETIC: dict[str, Reader] = {
    **{operator: _layer(Activation(function)) for operator, function in _ACTIVATIONS.items()},
    **{operator: _layer(Elementwise(of)) for operator, of in _PIECES.items()},
    "Clip": _clip,
    "HardSigmoid": _hard_sigmoid,
    "Gelu": _gelu,
    "PRelu": _prelu,
    "Selu": _selu,
    "Swish": _swish,
    "Shrink": _shrink,
    "Celu": lambda op: [celu(op.options.get("alpha", 1.0))],
    "ThresholdedRelu": _with_alpha("threshold", 1.0),
    "LeakyRelu": _with_alpha("leaky_relu", 0.01),
    "Elu": _with_alpha("elu", 1.0),
    "Add": _sum,
    "Sum": _sum,
    "Sub": _difference,
    "Mul": _product,
    "Div": _quotient,
    "Neg": _layer(Affine(-1.0)),
    "Pow": _with_number(np.power),
    "Max": _greatest,
    "Min": _least,
}
