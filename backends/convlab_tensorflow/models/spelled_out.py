"""Keras's operations and layers that are several simpler operations: norms, variances, products of rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import layers as kl
from keras import ops

from convlab.errors import UnsupportedError

Simpler = Callable[..., Any]


def _squares(x: Any, axis: Any, keepdims: bool) -> Any:
    return ops.sum(ops.square(x), axis=axis, keepdims=keepdims)


def _normalize(operation: Any) -> Simpler:
    if operation.order != 2:
        raise UnsupportedError(f"its order is {operation.order}, expected 2")

    def simpler(x: Any) -> Any:
        inverse = ops.rsqrt(_squares(x, operation.axis, True))
        return x * ops.minimum(inverse, 1 / (operation.epsilon or keras.config.epsilon()))

    return simpler


def _norm(operation: Any) -> Simpler:
    if operation.ord not in (None, 2):
        raise UnsupportedError(f"its order is {operation.ord}, expected 2")
    return lambda x: ops.sqrt(_squares(x, operation.axis, operation.keepdims))


def _variance(operation: Any) -> Simpler:
    def simpler(x: Any) -> Any:
        away = x - ops.mean(x, axis=operation.axis, keepdims=True)
        return ops.mean(ops.square(away), axis=operation.axis, keepdims=operation.keepdims)

    return simpler


def _deviation(operation: Any) -> Simpler:
    variance = _variance(operation)
    return lambda x: ops.sqrt(variance(x))


def _dot(layer: Any) -> Simpler:
    axes = {layer.axes} if isinstance(layer.axes, int) else {*layer.axes}

    def simpler(x: Any, y: Any) -> Any:
        if len(x.shape) != 2 or not axes <= {1, -1}:
            raise UnsupportedError(f"its axes are {layer.axes}, expected 1 of rows (N, C)")
        both = [ops.normalize(each, axis=-1) for each in (x, y)] if layer.normalize else (x, y)
        return ops.sum(both[0] * both[1], axis=-1, keepdims=True)

    return simpler


# By the name of the class: those of operations aren't public.
_SIMPLER: dict[str, Callable[[Any], Simpler]] = {
    "Normalize": _normalize,
    "Norm": _norm,
    "Var": _variance,
    "Std": _deviation,
}
_LAYERS: dict[type[kl.Layer], Callable[[Any], Simpler]] = {kl.Dot: _dot}


def spelled_out(operation: Any, tensors: Any) -> keras.Model | None:
    """A model of simpler operations that computes what one does with these tensors; None for another operation.

    Raises:
        UnsupportedError: it has options that aren't known.
    """
    function = _LAYERS.get(type(operation))
    if function is None and not isinstance(operation, kl.Layer):
        function = _SIMPLER.get(type(operation).__name__)
    if function is None:
        return None
    inputs = [keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype) for tensor in tensors]
    return keras.Model(inputs, function(operation)(*inputs))
