"""Calls like one before: they skip the checks and the planning."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

from ..compiled import kernels
from ..contract.call import Call, Variant
from ..contract.operations import Operations
from ..contract.rule import Rule
from ..planning.caches import cleared_with_costs
from ..planning.execute import choose, compute_chosen
from ..reference import ops as reference
from .call import canonical_shapes, execute

Run = Callable[[Any, Any, Any], Any]

# What computes a call of X, K and bias that has been checked and planned, by all that the call depends on.
RUNS: dict[Hashable, Run] = {}
# How to describe the tensors of a type: `Operations.signature` of their backend.
SIGNATURES: dict[type, Callable[[Any, Any, Any], Hashable]] = {}
_MOST_RUNS = 4096


def call_key(
    X: Any,
    K: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    padding_mode: Any,
    dilation: Any,
    groups: Any,
    data_format: Any,
    algorithm: Any,
    backend: Any,
) -> Hashable | None:
    """All that a call of corr2d depends on, but its tensors' values; None for a call that isn't remembered."""
    signature = SIGNATURES.get(type(X))
    tensors = None if signature is None else signature(X, K, bias)
    if tensors is None:
        return None
    try:
        # What isn't an int is written out: True equals 1, and a list can't be hashed.
        key = (
            tensors,
            stride if type(stride) is int else repr(stride),
            dilation if type(dilation) is int else repr(dilation),
            padding if type(padding) is int else repr(padding),
            padding_mode,
            groups if type(groups) is int else repr(groups),
            data_format,
            algorithm,
            backend,
        )
        hash(key)
    except (TypeError, ValueError):  # what can't be hashed or written out is no option
        return None
    return key


def remember(key: Hashable, run: Run) -> Run:
    """`run`, which computes the calls of that key from now on."""
    if len(RUNS) >= _MOST_RUNS:
        RUNS.clear()
    RUNS[key] = run
    return run


def forget_calls() -> None:
    """Plan every call anew."""
    RUNS.clear()


def prepared(ops: Operations, call: Call, x: Any, k: Any, b: Any) -> Run:
    """What computes a call of these tensors, the first time and again: the fastest way there is."""
    if call.dtype == "int64" or 0 in call.image:  # whose values are looked at, and what frameworks refuse
        return partial(execute, ops, call)
    if not ops.records(x, k, b):
        images, weights = canonical_shapes(call.image, call.kernel, call.geometry)
        first = call.geometry.data_format == "NCHW" or len(call.kernel) == 2 or (images[1], weights[0]) == (1, 1)
        if call.variant.on_host and call.dtype != "bfloat16" and first:
            return _OnHost(ops, call, images, weights)
        if call.variant is Variant.NATIVE:  # only gradients would be computed otherwise
            call = call._replace(algorithm="native")
    return ops.prepare(call) or partial(execute, ops, call)


class _OnHost:
    """A call straight to the compiled kernels on the tensors' memory, shaped there, which costs next to nothing."""

    def __init__(self, ops: Operations, call: Call, images: Any, weights: Any) -> None:
        self.ops, self.images, self.weights = ops, images, weights
        self.rule = Rule("y", call.geometry._replace(data_format="NCHW"), algorithm=call.algorithm)
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
        self.summed = self.choice.variant is Variant.HOST and not self.choice.factored and call.dtype != "float16"

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
        return ops.from_host(y.reshape(self.shape), x)


cleared_with_costs(forget_calls)
