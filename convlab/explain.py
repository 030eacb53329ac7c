"""`convlab.plan`: how a call of corr2d would be computed, and why."""

from __future__ import annotations

from typing import Any, NamedTuple, Unpack

from .call import plan_parts
from .corr import Options, checked
from .planned import factors_of, integral
from .planner import Plan


class Explanation(NamedTuple):
    """What `plan` found; printed, it is a few lines for people.

    Attributes:
        backend: where.
        algorithm: how, by the name that corr2d's `algorithm` takes.
        reason: why, in a line.
        gradients: the algorithms of the gradients of X and K; empty on a backend without autograd.
        seconds: the predicted time of each way that could be taken. "fft@host" is the FFT of `convlab.host` on the
            tensor's own memory, "fft" the framework's.
        refused: why each other way can't be taken.
    """

    backend: str
    algorithm: str
    reason: str
    gradients: dict[str, str]
    seconds: dict[str, float]
    refused: dict[str, str]

    def __str__(self) -> str:
        lines = [f"{self.algorithm} on {self.backend}: {self.reason}"]
        for way, seconds in sorted(self.seconds.items(), key=lambda item: item[1]):
            lines.append(f"  {way:<15} {1e3 * seconds:10.3f} ms predicted")
        lines += [f"  {way:<15} {why}" for way, why in self.refused.items()]
        lines += [f"  gradient of {name}: {algorithm}" for name, algorithm in self.gradients.items()]
        return "\n".join(lines)


def plan(X: Any, K: Any, **options: Unpack[Options]) -> Explanation:
    """How `corr2d(X, K, **options)` would be computed, and why; nothing is computed.

    >>> print(plan([[1.0, 2.0, 3.0]], [[1.0, -1.0]], algorithm="native"))
    native on numpy: asked for

    Raises:
        The errors of `corr2d`.
    """
    call, (x, k, _) = checked(X, K, **options)
    ops, asked = call.lab.ops, options.get("algorithm", "auto")
    mode = ops.mode(x, k)

    def told(algorithm: str, reason: str, plans: dict[str, Plan] | None = None) -> Explanation:
        plans = plans or {}
        gradients = {part.upper(): _named(made.way) for part, made in plans.items() if part != "y"}
        made = plans.get("y", Plan("", {}, {}))
        known = {way: seconds for way, seconds in made.costs.items() if seconds < 1e5}
        return Explanation(call.lab.name, algorithm, reason, gradients, known, made.refused)

    if call.inner:
        return told(call.algorithm, f"each chunk as it is planned on {call.inner}")
    if call.algorithm == "reproducible" or asked not in ("auto", "direct"):
        return told(call.algorithm, "asked for")
    if call.dtype == "int64":
        return told("native", "integers are exact: in float64 if no sum can reach 2**53, else in int64")
    if mode == "deferred":
        return told(call.algorithm, "planned when there are values")
    if call.algorithm == "native" and (mode == "native" or None in call.image):
        return told("native", "nothing else can be taken here: unknown sizes, or a program that must stand alone")
    plans = plan_parts(call._replace(algorithm=asked), mode)
    made = plans["y"]
    if call.algorithm == "native" and made.way != "native":
        return told("native", "another way would have to copy the image into another layout", plans)
    if made.factored and factors_of(ops, k) is not None:
        return told("separable", f"K is an outer product: {1e3 * made.factored_cost:.3g} ms predicted", plans)
    if made.way.startswith("fft") and mode == "eager" and integral(ops, k) and integral(ops, x):
        made = plan_parts(call._replace(algorithm="direct"), mode)["y"]
        return told(_named(made.way), "X and K hold integers, which the FFT wouldn't keep exact", plans)
    where = "; ".join(f"{part.upper()} by {_named(p.way)}" for part, p in plans.items() if part != "y")
    if made.way == "native" and call.algorithm != "native":
        return told("native", f"the fastest for the result, but gradients are planned: {where}", plans)
    return told(_named(made.way), "predicted to be the fastest" if len(made.costs) > 1 else "nothing else can", plans)


def _named(way: str) -> str:
    """The algorithm of a way."""
    return way.partition("@")[0]
