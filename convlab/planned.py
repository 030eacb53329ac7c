"""Computing a `Rule` in the way that the planner chose.

`algorithm="auto"` promises what its fastest candidates do. All ways but the FFT add up the very products that
corr2d is defined by, in some order: integer-valued data whose sums the dtype holds are exact, other data within the
bound of such a sum. The FFT's error is bounded only beside the norm of X and K; so "auto" takes another way where X and
K are integer-valued, and every algorithm recomputes in another way a result that isn't finite everywhere.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import algorithms, fourier, host
from .adjoint import image_gradient
from .contract import Operations
from .errors import UnsupportedError
from .geometry import NO_PADDING, Geometry
from .planner import Plan, Problem, plan

if TYPE_CHECKING:
    from .rules import Rule

ALGORITHMS = ("auto", "direct", "native", "taps", "phase", "matmul", "fft", "separable", "host")


def compute(ops: Operations, rule: Rule, a: Any, b: Any) -> Any:
    """A rule's result in the planned way; without gradient."""
    return run(ops, rule, a, b, planned(ops, rule, a, b))


def run(ops: Operations, rule: Rule, a: Any, b: Any, made: Plan) -> Any:
    """`compute` by a plan."""
    dtype = ops.dtype(a) or ""
    narrow = dtype in ("float16", "bfloat16") and made.way != "native"
    if narrow:
        a, b = ops.cast(a, "float32"), ops.cast(b, "float32")
    with ops.scope(dtype):
        y = _ways(ops, rule, a, b, made)
    return ops.cast(y, dtype) if narrow else y


def planned(ops: Operations, rule: Rule, a: Any, b: Any) -> Plan:
    """The plan for a rule and its inputs.

    Raises:
        UnsupportedError: a named algorithm that can't compute it.
    """
    return plan_for(ops, rule, ops.sizes(a), ops.sizes(b), ops.dtype(a) or "", ops.mode(a, b))


def plan_for(ops: Operations, rule: Rule, first: Any, second: Any, dtype: str, mode: str) -> Plan:
    """`planned` for shapes."""
    if ops.adapter is None:
        return Plan("native", {}, {})
    problem = Problem.of(rule, first, second, dtype)
    arguments = ops.adapter.name, ops.adapter.algorithms, mode, problem
    made = plan(*arguments, rule.algorithm)
    if not made.way and rule.part != "y":  # a named algorithm needn't have a gradient of its own
        return plan(*arguments, "auto")
    if not made.way:
        why = "; ".join(dict.fromkeys(made.refused.values()))
        raise UnsupportedError(
            f"algorithm: got {rule.algorithm!r}, which can't compute this: {why}.",
            hint="algorithm='auto' finds the fastest that can.",
        )
    return made


def _ways(ops: Operations, rule: Rule, a: Any, b: Any, made: Plan) -> Any:
    if made.factored or rule.algorithm == "separable":
        factors = _factors(ops, rule, b)
        if factors is not None:
            way = made.factored or made.way
            return _result(ops, rule, a, b, lambda x, k, g: _separable(ops, way, x, factors, g))
        if rule.algorithm == "separable" and rule.part != "k":
            raise UnsupportedError(
                "K: got a kernel of rank above 1 with algorithm='separable', expected an outer product.",
                hint="algorithm='auto' separates a kernel whenever it can.",
            )
    if made.way in ("fft", "fft@host"):
        return _fft(ops, rule, a, b, made.way)
    return _direct(ops, rule, a, b, made.way)


def _direct(ops: Operations, rule: Rule, a: Any, b: Any, way: str) -> Any:
    if way == "native" and rule.part != "y":
        return _native_gradient(ops, rule, a, b)
    if rule.part == "k":
        return _KERNEL_GRADIENTS[way](ops, a, b, rule.geometry)
    return _result(ops, rule, a, b, functools.partial(_RESULTS[way], ops))


def _result(ops: Operations, rule: Rule, a: Any, k: Any, correlate: Callable[[Any, Any, Geometry], Any]) -> Any:
    """Part "y" or "x", which is a correlation too."""
    if rule.part == "y":
        return correlate(a, k, rule.geometry)
    return image_gradient(ops, a, k, rule.geometry, rule.size, correlate)


def _fft(ops: Operations, rule: Rule, a: Any, b: Any, way: str) -> Any:
    def other() -> Any:
        exact = rule._replace(algorithm="direct")
        return compute(ops, exact, a, b)

    integers: Any = False
    if rule.algorithm == "auto":
        integers = _integral(ops, b)
        if integers is not False:
            integers = integers & _integral(ops, a)
        if integers is True:
            return other()
    if rule.part == "k":
        y = _KERNEL_GRADIENTS[way](ops, a, b, rule.geometry)
    else:
        y = _result(ops, rule, a, b, functools.partial(_RESULTS[way], ops))
    sound = ops.every(abs(y) < ops.number(math.inf, y)) if way == "fft" else True
    if integers is not False:  # while tracing it is known only at run time
        sound = sound & ops.every(ops.number(0.0, y) < ops.cast(~integers, ops.dtype(y)))
    return y if sound is True else ops.choose(sound, lambda: y, other)


def _integral(ops: Operations, x: Any) -> Any:
    """Whether all of x's values are integers: a bool, or a tensor while tracing."""
    return ops.every(~(ops.floor(x) != x))


def factors_of(ops: Operations, k: Any) -> tuple[Any, Any] | None:
    """Two vectors whose outer product is the kernel k, of shape (h, w) or (1, 1, h, w); None if there are none."""
    if not ops.is_concrete(k):
        return None
    kernel = ops.to_numpy(k)
    return host.separate(kernel.reshape(kernel.shape[-2:]))


def _factors(ops: Operations, rule: Rule, k: Any) -> tuple[Any, Any] | None:
    if rule.part == "k" or ops.sizes(k)[0] != 1:
        return None
    found = factors_of(ops, k)
    if found is None or rule.part == "y":
        return found
    u, v = found
    return u[::-1], v[::-1]  # of the flipped kernel


def _native_gradient(ops: Operations, rule: Rule, a: Any, b: Any) -> Any:
    geometry = rule.geometry
    if geometry.padding == NO_PADDING or geometry.padding_mode == "zeros":
        return ops.conv_gradient(rule.part, a, b, geometry, rule.size)
    inner = geometry._replace(padding=NO_PADDING)
    if rule.part == "k":
        return ops.conv_gradient("k", algorithms.extend(ops, a, geometry), b, inner, rule.size)
    return image_gradient(ops, a, b, geometry, rule.size, functools.partial(native, ops))


def native(ops: Operations, x: Any, k: Any, geometry: Geometry) -> Any:
    """The framework's own convolution, with its gradients."""
    if geometry.padding != NO_PADDING and geometry.padding_mode != "zeros":
        x, geometry = algorithms.extend(ops, x, geometry), geometry._replace(padding=NO_PADDING)
    return ops.conv(x, k, geometry)


def _taps(ops: Operations, x: Any, k: Any, geometry: Geometry) -> Any:
    return algorithms.taps(ops, algorithms.extend(ops, x, geometry), k, geometry)


def _separable(ops: Operations, way: str, x: Any, factors: Any, geometry: Geometry) -> Any:
    u, v = factors
    if way == "separable@host":
        return ops.from_host(host.separable(ops.as_host(x), u, v, geometry), x)
    (h, w), (sh, sw), (dh, dw), (rows, columns) = (
        geometry.kernel_size,
        geometry.stride,
        geometry.dilation,
        geometry.padding,
    )
    dtype = ops.dtype(x) or ""
    vertical = geometry._replace(kernel_size=(h, 1), stride=(sh, 1), padding=(rows, (0, 0)), dilation=(dh, 1))
    x = _taps(ops, x, ops.asarray(u.reshape(1, 1, h, 1), dtype, x), vertical)
    horizontal = geometry._replace(kernel_size=(1, w), stride=(1, sw), padding=((0, 0), columns), dilation=(1, dw))
    return _taps(ops, x, ops.asarray(v.reshape(1, 1, 1, w), dtype, x), horizontal)


def _on_host(function: str, algorithm: str) -> Callable[..., Any]:
    def run(ops: Operations, a: Any, b: Any, geometry: Geometry) -> Any:
        arrays = ops.as_host(a), ops.as_host(b)
        return ops.from_host(getattr(host, function)(*arrays, geometry, algorithm), a)

    return run


_RESULTS: dict[str, Callable[..., Any]] = {
    "native": native,
    "taps": _taps,
    "phase": algorithms.phase,
    "matmul": algorithms.matmul,
    "fft": fourier.correlate,
    "host": _on_host("correlate", "direct"),
    "fft@host": _on_host("correlate", "fft"),
}
_KERNEL_GRADIENTS: dict[str, Callable[..., Any]] = {
    "matmul": algorithms.matmul_kernel_gradient,
    "fft": fourier.kernel_gradient,
    "host": _on_host("kernel_gradient", "direct"),
    "fft@host": _on_host("kernel_gradient", "fft"),
}
