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
from .on_host import kernels_take, on_memory, reproduce_in_order, worth_loading

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
    how: object,
    backend: object,
    output_padding: object = None,
) -> tuple[Hashable | None, Run | None]:
    """The key of a call, which is everything that it depends on but its tensors' values, and what computes such calls.

    `how` is `corr2d`'s `algorithm` and `reproducible`; `output_padding` is `conv_transpose2d`'s, and None for any other
    function. The key is None for a call that isn't to be remembered, the function for one that hasn't been made before.
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
            how,
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
    if not ops.records(x, k, b):
        if call.algorithm == "reproducible":
            return _InOrder(ops, call) if _in_order_on_host(ops, call, x, k, b) else partial(execute, ops, call)
        if call.part == "y" and call.variant.on_host and call.dtype != "bfloat16" and _is_laid_out(call):
            return ops.prepare(call) or _AsPlanned(ops, call)
        if call.variant is Variant.NATIVE:
            # Only gradients would be computed otherwise, and there are none.
            call = call._replace(algorithm="native")
    run = ops.prepare(call) if call.part == "y" else None
    return run or partial(execute, ops, call)


def _is_laid_out(call: Call) -> bool:
    """Whether the memory of a call's tensors is that of NCHW images and an OIHW kernel."""
    images, weights = call.canonical_shapes()
    return call.geometry.data_format == "NCHW" or len(call.kernel) == 2 or (images[1], weights[0]) == (1, 1)


def _in_order_on_host(ops: Operations, call: Call, x: Any, k: Any, b: Any) -> bool:
    """Whether the kernels of `reproducible=True` compute a call on its tensors' memory."""
    given = [each for each in (x, k, b) if each is not None]
    if call.part != "y" or call.dtype not in ("float32", "float64") or not kernels_take(ops, *given):
        return False
    rule, shapes = call.rule(), call.canonical_shapes()
    return 0 not in rule.output_shape(*shapes) and worth_loading(rule.products(*shapes))


class _OnHost:
    """A call of the compiled kernels on the tensors' own memory; reshaping there costs next to nothing."""

    def __init__(self, ops: Operations, call: Call) -> None:
        self.ops, self.rule = ops, call.rule()
        self.images, self.weights = call.canonical_shapes()
        self.result = tuple(self.rule.output_shape(self.images, self.weights))
        shape, result = tuple(call.image), self.result
        if len(call.kernel) == 2:
            self.shape = (*shape[:-2], *result[2:])
        elif call.geometry.data_format == "NHWC":
            self.shape = (*shape[:-3], *result[2:], result[1])
        else:
            self.shape = (*shape[:-3], *result[1:])

    def __call__(self, x: Any, k: Any, b: Any) -> Any:
        ops = self.ops
        y = self.compute(ops.as_host(x), ops.as_host(k), None if b is None else ops.as_host(b))
        # The uncompiled FFT's result is a part of a larger array, which not every framework takes.
        return ops.from_host(np.ascontiguousarray(y).reshape(self.shape), x)

    def compute(self, x: np.ndarray, k: np.ndarray, b: np.ndarray | None) -> np.ndarray:
        """The result of arrays X, K and bias, in the order that the call's layout has."""
        raise NotImplementedError


class _AsPlanned(_OnHost):
    """A call as the planner has chosen."""

    def __init__(self, ops: Operations, call: Call) -> None:
        super().__init__(ops, call)
        self.choice = choose(ops, self.rule, self.images, self.weights, call.dtype or "", "eager")
        self.memory = copy.copy(reference)
        self.memory.host_empty = ops.host_empty  # type: ignore[method-assign]
        self.summed = self.choice.variant is Variant.HOST and not self.choice.factored

    def compute(self, x: np.ndarray, k: np.ndarray, b: np.ndarray | None) -> np.ndarray:
        """See `_OnHost.compute`."""
        x, k = x.reshape(self.images), k.reshape(self.weights)
        if self.summed:
            y = kernels.correlate(x, k, self.rule.geometry, "direct", self.ops.host_empty(self.result, x.dtype))
        else:
            y = compute_chosen(self.memory, self.rule, x, k, self.choice)
        if b is not None:
            with self.memory.scope(None):
                y += b.reshape(-1, 1, 1)
        return y


class _InOrder(_OnHost):
    """A call with `reproducible=True`."""

    def __init__(self, ops: Operations, call: Call) -> None:
        super().__init__(ops, call)
        self.channels_last, self.kernels = not _is_laid_out(call), on_memory(ops)
        self.layouts = kernels.compiled_module("layouts")

    def compute(self, x: np.ndarray, k: np.ndarray, b: np.ndarray | None) -> np.ndarray:
        """See `_OnHost.compute`."""
        if self.channels_last:
            x, k = self.layouts.to_nchw(x.reshape(-1, *x.shape[-3:])), k.transpose(3, 2, 0, 1)
        inputs = x.reshape(self.images), k.reshape(self.weights), *(() if b is None else (b.reshape(-1),))
        with reference.scope(None):
            y: np.ndarray = reproduce_in_order(reference, self.kernels, self.rule, *inputs)
        if self.channels_last:
            y = self.layouts.to_nhwc(y, self.ops.host_empty([y.shape[i] for i in (0, 2, 3, 1)], y.dtype))
        return y


cleared_with_costs(forget_calls)
