"""Activations put together of the few functions that every framework has, for those that lack them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any


def _gelu_tanh(F: Any, x: Any, a: float) -> Any:
    return 0.5 * x * (1 + F.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))))


def _celu(F: Any, x: Any, a: float) -> Any:
    return F.maximum(x, 0) + a * F.expm1(F.minimum(x, 0) / a)


def _softplus(F: Any, x: Any, a: float) -> Any:
    return F.maximum(x, 0) + F.log1p(F.exp(-(a or 1.0) * F.abs(x))) / (a or 1.0)


def _log_sigmoid(F: Any, x: Any, a: float) -> Any:
    return F.minimum(x, 0) - F.log1p(F.exp(-F.abs(x)))


def _sparse_plus(F: Any, x: Any, a: float) -> Any:
    inside = F.minimum(F.maximum(x, -1), 1) + 1
    return F.maximum(x - 1, 0) + 0.25 * inside * inside


# What each function computes of x and of its parameter with the functions of a module of arrays, such as NumPy.
# CELU: arXiv:1704.07483; squareplus: arXiv:2112.11687; the shrinkages: PyTorch's documentation.
FORMULAS: dict[str, Callable[[Any, Any, float], Any]] = {
    "gelu_tanh": _gelu_tanh,
    "celu": _celu,
    "softplus": _softplus,
    "softsign": lambda F, x, a: x / (1 + F.abs(x)),
    "log_sigmoid": _log_sigmoid,
    "soft_shrink": lambda F, x, a: x - F.minimum(F.maximum(x, -a), a),
    "hard_shrink": lambda F, x, a: F.where(F.abs(x) > a, x, F.zeros_like(x)),
    "tanh_shrink": lambda F, x, a: x - F.tanh(x),
    "threshold": lambda F, x, a: F.where(x > a, x, F.zeros_like(x)),
    "squareplus": lambda F, x, a: 0.5 * (x + F.sqrt(x * x + a)),
    "sparse_plus": _sparse_plus,
    "sparse_sigmoid": lambda F, x, a: 0.5 * F.minimum(F.maximum(x + 1, 0), 2),
}
