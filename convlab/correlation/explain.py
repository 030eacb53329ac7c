"""`convlab.plan`: how a call of corr2d would be computed, and why."""

from __future__ import annotations

from typing import Any, NamedTuple, Unpack

from ..contract.operations import Operations
from ..contract.rule import Rule
from ..planning.execute import settle
from .corr2d import CorrelationOptions, checked
from .decide import Decision


class Explanation(NamedTuple):
    """How a call of corr2d would be computed, as `plan` says; printed, it is a few lines for people.

    Attributes:
        backend: the backend that would compute it.
        algorithm: the algorithm, by the name that corr2d's `algorithm` takes.
        reason: why it would be taken, in a line.
        gradients: the algorithms of the gradients of X and K; empty on a backend without autograd.
        seconds: the predicted time of each variant that could be taken (`convlab.contract.call.Variant`).
        refused: why each other variant can't be taken.
        table: the table of costs that the prediction is made from; "" if nothing is predicted.
    """

    backend: str
    algorithm: str
    reason: str
    gradients: dict[str, str]
    seconds: dict[str, float]
    refused: dict[str, str]
    table: str

    def __str__(self) -> str:
        lines = [f"{self.algorithm} on {self.backend}: {self.reason}"]
        for variant, seconds in sorted(self.seconds.items(), key=lambda item: item[1]):
            lines.append(f"  {variant:<15} {1e3 * seconds:10.3f} ms predicted")
        lines += [f"  {variant:<15} {why}" for variant, why in self.refused.items()]
        lines += [f"  gradient of {name}: {algorithm}" for name, algorithm in self.gradients.items()]
        lines += [f"  costs: {self.table}"] if self.table else []
        return "\n".join(lines)


def plan(X: Any, K: Any, **options: Unpack[CorrelationOptions]) -> Explanation:
    """How `corr2d(X, K, **options)` would be computed, and why; nothing is computed.

    >>> print(plan([[1.0, 2.0, 3.0]], [[1.0, -1.0]], algorithm="native"))
    native on numpy: asked for

    Raises:
        ConvlabError: whatever `corr2d` raises for these arguments.
    """
    from ..planning.costs import source  # deferred: importing it takes a while

    framework, decision, (x, k, _), _ = checked(X, K, **options)
    algorithm, reason = _settled(framework.ops, decision, x, k)
    choices = decision.choices
    costs = choices["y"].costs if choices else {}
    return Explanation(
        framework.name,
        algorithm,
        reason,
        {part.upper(): choice.variant.algorithm for part, choice in choices.items() if part != "y"},
        {str(variant): seconds for variant, seconds in costs.items() if seconds < 1e5},
        {str(variant): why for variant, why in choices["y"].refused.items()} if choices else {},
        source(framework.name, framework.version).name if choices else "",
    )


def _settled(ops: Operations, decision: Decision, x: Any, k: Any) -> tuple[str, str]:
    """The algorithm for the values of x and k, and the reason for it."""
    call = decision.call
    if not decision.choices or call.algorithm == "native":
        return call.algorithm, decision.reason
    choice = decision.choices["y"]
    if ops.mode(x, k) != "eager":
        return choice.variant.algorithm, decision.reason
    images, weights = call.canonical_shapes()
    x, k = ops.reshape(x, images), ops.reshape(k, weights)
    if call.dtype in ("float16", "bfloat16"):
        x, k = ops.cast(x, "float32"), ops.cast(k, "float32")
    settled = settle(ops, Rule("y", call.geometry._replace(data_format="NCHW"), algorithm=call.algorithm), x, k, choice)
    return settled.variant.algorithm, settled.reason or decision.reason
