"""Computing a `Rule` and its gradients, on any backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..algorithms.border import channels_first
from ..algorithms.reproducible import reproduce
from ..contract.arrays import T
from ..contract.operations import Operations
from ..contract.rule import Rule
from ..geometry.geometry import DataFormat
from ..planning.execute import by_plan
from .on_host import reproduce_on_host, reproducible_on_host


def compute(ops: Operations[T], rule: Rule, *inputs: T) -> T:
    """A rule's result for tensors with values, or while tracing; without gradient."""
    if rule.algorithm != "reproducible":
        return by_plan(ops, rule, *inputs)
    if reproducible_on_host(ops, rule, *inputs):
        return reproduce_on_host(ops, rule, *inputs)
    return reproduce(ops, rule, *inputs)


def apply(ops: Operations[T], rule: Rule, *inputs: T) -> T:
    """`compute` with the framework's gradients, where it has any."""
    has_gradients = type(ops).apply is not Operations.apply
    return ops.apply(rule, *inputs) if has_gradients else compute(ops, rule, *inputs)


def gradients_of_rule(ops: Operations[T], rule: Rule, inputs: Sequence[T], dy: T, needed: Sequence[bool]) -> list[Any]:
    """The gradients of sum(dy * compute(ops, rule, *inputs)) with respect to the inputs; None where not needed."""
    if rule.part == "b":
        return [ops.zeros(ops.sizes(inputs[0]), dy) + ops.reshape(dy, (1, -1, 1, 1))]
    slopes = [
        apply(ops, derivative, *(dy if source is None else inputs[source] for source in sources)) if need else None
        for (derivative, *sources), need in zip(rule.derivatives(ops.sizes(inputs[0])), needed, strict=False)
    ]
    if len(inputs) == 3:
        slopes.append(apply(ops, rule._replace(part="b"), dy) if needed[2] else None)
    return slopes


def correlate_by_rule(ops: Operations[T], rule: Rule, x: T, k: T, b: T | None, data_format: DataFormat) -> T:
    """A rule's result for tensors of one floating dtype in a layout, with gradients.

    Only "reproducible" takes a bias b; for other algorithms it is None.
    """
    channels_last = data_format == "NHWC"
    if channels_last:
        x, k = channels_first(ops, x, k)
    y = apply(ops, rule, x, k) if b is None else apply(ops, rule, x, k, ops.reshape(b, (-1,)))
    return ops.transpose(y, (0, 2, 3, 1)) if channels_last else y
