"""Deciding how a call of `corr2d` or `conv_transpose2d` is computed, with the reason."""

from __future__ import annotations

import math
from typing import NamedTuple

from ..contract.arrays import T
from ..contract.call import Call, Variant
from ..contract.operations import TRACED, Mode, Operations
from ..contract.rule import Part
from ..dtypes import FLOATS
from ..errors import UnsupportedError
from ..planning.choose import Choice
from ..planning.execute import choose
from ..planning.on_need import Table, measure_with
from ..registry import framework

_GRADIENTS = "the framework's own gradients are the fastest where those of another algorithm would save little"
_LAYOUT = "another algorithm would have to copy the image into another layout"


class Decision(NamedTuple):
    """How a call is computed.

    Attributes:
        call: the call, with its algorithm and variant.
        reason: why.
        choices: what the planner chose for the call's part and, with autograd, for the other two of "y", "x" and "k";
            empty if it wasn't asked.
    """

    call: Call
    reason: str
    choices: dict[Part, Choice]


def decide(ops: Operations[T], call: Call, x: T, k: T) -> Decision:
    """The decision for a call whose algorithm is what the user asked for; it holds for all tensors like x and k.

    Raises:
        UnsupportedError: a named algorithm that can't compute this.
    """
    if call.inner:
        return Decision(call, f"each chunk as it is planned on {call.inner}", {})
    if call.algorithm in ("reproducible", "native"):
        return Decision(call, "asked for", {})
    if 0 in call.image:
        return Decision(call._replace(algorithm="native"), "there is nothing to compute", {})
    if call.dtype == "int64":
        return _native(call, "integers are exact: in float64 if no sum can reach 2**53, else in int64")
    if call.dtype not in FLOATS or ops.adapter is None:
        return _native(call, f"{call.dtype or 'an unknown dtype'} isn't planned")
    unknown = f"X has shape {call.image} while tracing"
    if None in call.image or None in call.kernel:
        return _native(call, unknown)
    mode = ops.mode(x, k)
    if mode == "native":
        return _native(call, "the framework only takes its own operators here")
    if mode == "deferred":
        return _deferred(call)
    if mode in TRACED and not all(isinstance(n, int) for n in (*call.image, *call.kernel)):  # symbols
        return _native(call, unknown)
    return _planned(ops, call, mode, ops.apply_seconds if mode == "eager" and ops.records(x, k) else 0.0)


def _native(call: Call, why: str) -> Decision:
    """The framework's own convolution, unless another algorithm was asked for by name."""
    if call.algorithm in ("auto", "direct"):
        return Decision(call._replace(algorithm="native"), why, {})
    raise UnsupportedError(
        f"algorithm: got {call.algorithm!r}, expected 'auto': {why}.",
        hint="algorithm='auto' takes the framework's own convolution here.",
    )


def _deferred(call: Call) -> Decision:
    """The decision for a call that is planned later, when its tensors have values."""
    _, weights = call.canonical_shapes()
    if call.algorithm == "auto" and not (weights[1] == 1 and weights[0] == call.geometry.groups):
        call = call._replace(algorithm="native")
    return Decision(call, "planned when there are values", {})


def _planned(ops: Operations[T], call: Call, mode: Mode, overhead: float) -> Decision:
    """The decision for known shapes; any gradient but the framework's own takes `overhead` seconds more."""
    auto = call.algorithm == "auto"
    channels_last = auto and call.geometry.data_format == "NHWC" and len(call.kernel) == 4
    if channels_last and call.canonical_shapes()[1][:2] != (1, 1):
        # The algorithms compute NCHW, and two copies would cost what they save.
        return _native(call, _LAYOUT)
    choices = _choices(ops, call, mode)
    choice = choices[call.part]
    if all(part.variant is Variant.NATIVE and not part.factored for part in choices.values()):
        call = call._replace(algorithm="native")
    elif auto and sum(map(_saved, choices.values())) < overhead:
        return Decision(call._replace(algorithm="native"), _GRADIENTS, choices)
    elif channels_last and not choice.variant.on_host:
        return Decision(call._replace(algorithm="native"), _LAYOUT, choices)
    else:
        call = call._replace(variant=choice.factored or choice.variant)
    if not auto and call.algorithm not in ("direct", "native"):
        return Decision(call, "asked for", choices)
    if choice.variant is Variant.NATIVE and call.algorithm != "native" and not choice.factored:
        slopes = "; ".join(
            f"{name.upper()} by {part.variant.algorithm}" for name, part in choices.items() if name != call.part
        )
        return Decision(call, f"the fastest for the result, but gradients are planned: {slopes}", choices)
    return Decision(call, "predicted to be the fastest" if len(choice.costs) > 1 else "nothing else can", choices)


def _saved(choice: Choice) -> float:
    """The seconds that a choice is predicted to save beside the framework's own convolution."""
    fastest = min(choice.costs[choice.variant], choice.factored_cost)
    return choice.costs.get(Variant.NATIVE, math.inf) - fastest


def _choices(ops: Operations[T], call: Call, mode: Mode) -> dict[Part, Choice]:
    """The planner's choices for the result and, where there is autograd, for both gradients."""
    (images, weights), rule = call.canonical_shapes(), call.rule()
    choices: dict[Part, Choice] = {rule.part: choose(ops, rule, images, weights, call.dtype or "", mode)}
    for derivative, *sources in rule.derivatives(images) if ops.adapter is not None and ops.adapter.autograd else ():
        a, b = (rule.output_shape(images, weights) if i is None else (images, weights)[i] for i in sources)
        choices[derivative.part] = choose(ops, derivative, a, b, call.dtype or "", mode)
    return choices


def _measure(backend: str) -> Table:
    from .measure import quick_table  # deferred: few processors need it

    return quick_table(framework(backend))


measure_with(_measure)
