"""Calls that repeat an earlier one with other values: they skip the checks and the planning."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

import numpy as np

from ..compiled import kernels
from ..contract.call import Call, Variant
from ..contract.operations import Operations
from ..planning.caches import cleared_with_costs
from ..planning.execute import choose, compute_chosen
from ..reference import ops as reference
from .call import execute

Run = Callable[[Any, Any, Any], Any]

# For everything on which a call depends (see `recall`), the function of X, K and bias that computes it.
RUNS: dict[Hashable, Run] = {}
# For a type of tensors, `Operations.signature` of their backend.
SIGNATURES: dict[type, Callable[[Any, Any, Any], Hashable]] = {}
_MOST_RUNS = 4096


def recall(
    X: object,
    K: object,
    bias: object,
    stride: object,
    padding: object,
    padding_mode: object,
    origin: object,
    dilation: object,
    groups: object,
    data_format: object,
    algorithm: object,
    backend: object,
    output_padding: object = None,
) -> tuple[Hashable | None, Run | None]:
    """The key of a call, which is everything that it depends on but its tensors' values, and what computes such calls.

    `output_padding` is `conv_transpose2d`'s, and None for any other function. The key is None for a call that isn't to
    be remembered, the function for one that hasn't been made before.
    """
    signature = SIGNATURES.get(type(X))
    tensors = None if signature is None else signature(X, K, bias)
    if tensors is None:
        return None, None
    try:
        # A value that isn't an int is written out, since True equals 1 and a list can't be hashed.
        key = (
            tensors,
            stride if type(stride) is int else repr(stride),
            dilation if type(dilation) is int else repr(dilation),
            padding if type(padding) is int else repr(padding),
            padding_mode,
            None if origin is None else repr(origin),
            groups if type(groups) is int else repr(groups),
            data_format,
            algorithm,
            backend,
            None if output_padding is None else repr(output_padding),
        )
        return key, RUNS.get(key)
    except (TypeError, ValueError):
        # A value that can't be hashed or written out isn't an option.
        return None, None


def remember(key: Hashable, run: Run) -> Run:
    """Let a function compute all calls of a key from now on; returns the function."""
    if len(RUNS) >= _MOST_RUNS:
        RUNS.clear()
    RUNS[key] = run
    return run


def forget_calls() -> None:
    """Forget all functions, so that every call is planned anew."""
    RUNS.clear()


def prepared(ops: Operations, call: Call, x: Any, k: Any, b: Any) -> Run:
    """The fastest function that computes a call of these tensors, the first time and every time after it."""
    # Integers are computed according to their values, and frameworks refuse empty images.
    if call.dtype == "int64" or 0 in call.image:
        return partial(execute, ops, call)
    if call.part == "x":
        native = call.variant is Variant.NATIVE and not ops.records(x, k, b)
        return partial(execute, ops, call._replace(algorithm="native") if native else call)
    if not ops.records(x, k, b):
        images, weights = call.canonical_shapes()
        in_order = call.geometry.data_format == "NCHW" or len(call.kernel) == 2 or (images[1], weights[0]) == (1, 1)
        if call.variant.on_host and call.dtype != "bfloat16" and in_order:
            return ops.prepare(call) or _OnHost(ops, call, images, weights)
        if call.variant is Variant.NATIVE:
            # Only gradients would be computed otherwise, and there are none.
            call = call._replace(algorithm="native")
    return ops.prepare(call) or partial(execute, ops, call)


class _OnHost:
    """A call of the compiled kernels on the tensors' own memory; reshaping there costs next to nothing."""

    def __init__(self, ops: Operations, call: Call, images: tuple[int, ...], weights: tuple[int, ...]) -> None:
        self.ops, self.images, self.weights = ops, images, weights
        self.rule = call.rule()
        self.choice = choose(ops, self.rule, images, weights, call.dtype or "", "eager")
        self.result = tuple(self.rule.output_shape(images, weights))
        shape, result = tuple(call.image), self.result
        if len(call.kernel) == 2:
            self.shape = (*shape[:-2], *result[2:])
        elif call.geometry.data_format == "NHWC":
            self.shape = (*shape[:-3], *result[2:], result[1])
        else:
            self.shape = (*shape[:-3], *result[1:])
        self.memory = copy.copy(reference)
        self.memory.host_empty = ops.host_empty  # type: ignore[method-assign]
        self.summed = self.choice.variant is Variant.HOST and not self.choice.factored

    def __call__(self, x: Any, k: Any, b: Any) -> Any:
        ops = self.ops
        image, kernel = ops.as_host(x).reshape(self.images), ops.as_host(k).reshape(self.weights)
        if self.summed:
            y = kernels.correlate(image, kernel, self.rule.geometry, "direct", ops.host_empty(self.result, image.dtype))
        else:
            y = compute_chosen(self.memory, self.rule, image, kernel, self.choice)
        if b is not None:
            with self.memory.scope(None):
                y += ops.as_host(b).reshape(-1, 1, 1)
        # The uncompiled FFT's result is a part of a larger array, which not every framework takes.
        return ops.from_host(np.ascontiguousarray(y).reshape(self.shape), x)


cleared_with_costs(forget_calls)
