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

import numpy as np

from . import algorithms, fourier, host
from .adjoint import image_gradient
from .contract import Operations
from .errors import UnsupportedError
from .geometry import NO_PADDING, Geometry
from .planner import ON_HOST, Plan, Problem, plan

if TYPE_CHECKING:
    from .rules import Rule

ALGORITHMS = ("auto", "direct", "native", "taps", "phase", "matmul", "fft", "separable", "host")


def compute(ops: Operations, rule: Rule, a: Any, b: Any) -> Any:
    """A rule's result in the planned way; without gradient."""
    return run(ops, rule, a, b, planned(ops, rule, a, b))


def run(ops: Operations, rule: Rule, a: Any, b: Any, made: Plan) -> Any:
    """`compute` by a plan."""
    dtype = ops.dtype(a) or ""
    narrow = dtype in ("float16", "bfloat16") and (made.way != "native" or made.factored)
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
    if made.factored or made.way.startswith("separable"):
        factors = _factors(ops, rule, b)
        if factors is not None:
            way = made.factored or made.way
            return _result(ops, rule, a, b, lambda x, k, g: _separable(ops, way, x, factors, g))
        if made.way.startswith("separable") and rule.part == "y":
            raise UnsupportedError(
                "K: got a kernel of rank above 1 with algorithm='separable', expected an outer product.",
                hint="algorithm='auto' separates a kernel whenever it can.",
            )
    if made.way in ("fft", "fft@host", "phase"):
        return _checked(ops, rule, a, b, made.way)
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


def _checked(ops: Operations, rule: Rule, a: Any, b: Any, way: str) -> Any:
    """A way that spreads what isn't finite over its neighbours, or isn't exact: there another one does it again."""

    def again() -> Any:
        return compute(ops, rule._replace(algorithm="direct"), a, b)

    integers: Any = False
    if rule.algorithm == "auto" and way != "phase":
        integers = integral(ops, b, way)
        if integers is not False:
            integers = integers & integral(ops, a, way)
        if integers is True:
            return again()
    y = _direct(ops, rule, a, b, way)
    if way == "fft@host" and integers is False:
        return y  # it has looked itself
    sound = ops.every(abs(y) < ops.number(math.inf, y))
    if integers is not False:  # while tracing, which is known only at run time
        sound = sound & ops.every(ops.number(0.0, y) < ops.cast(~integers, ops.dtype(y)))
    return ops.choose(sound, lambda: y, again)


def integral(ops: Operations, x: Any, way: str = "fft@host") -> Any:
    """Whether all of x's values are integers: a bool, or a tensor while tracing."""
    if way in ON_HOST:
        array = ops.as_host(x)
        few = array[..., :1, :]  # enough to tell for most images, without a pass over all of it
        return bool((np.floor(few) == few).all()) and bool((np.floor(array) == array).all())
    return ops.every(~(ops.floor(x) != x))


def factors_of(ops: Operations, k: Any) -> tuple[Any, Any] | None:
    """Two vectors whose outer product is the kernel k, of shape (h, w) or (1, 1, h, w); None if there are none.

    The row is scaled by a power of 2, which is exact, so that what it makes of an image can't overflow.
    """
    if not ops.is_concrete(k):
        return None
    kernel = ops.to_numpy(k)
    found = host.separate(kernel.reshape(kernel.shape[-2:]))
    if found is None:
        return None
    u, v = (each.astype(np.float64) for each in found)
    scale = 2.0 ** math.ceil(math.log2(float(np.abs(v).sum())))
    if np.abs(u).max() * scale > np.finfo(kernel.dtype).max:
        return None
    return (u * scale).astype(kernel.dtype), (v / scale).astype(kernel.dtype)


def _factors(ops: Operations, rule: Rule, k: Any) -> tuple[Any, Any] | None:
    if rule.part == "k" or ops.sizes(k)[0] != 1 or (rule.part == "x" and rule.geometry.stride != (1, 1)):
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
        image = ops.as_host(x)
        y = ops.host_empty((*image.shape[:2], *geometry.output_size(image.shape[2:])), image.dtype)
        return ops.from_host(host.separable(image, u, v, geometry, y), x)
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


def _hosted(algorithm: str) -> Callable[..., Any]:
    def correlate(ops: Operations, x: Any, k: Any, geometry: Geometry) -> Any:
        image, kernel = ops.as_host(x), ops.as_host(k)
        shape = len(image), len(kernel), *geometry.output_size(image.shape[2:])
        y = ops.host_empty(shape, image.dtype)
        return ops.from_host(host.correlate(image, kernel, geometry, algorithm, y), x)

    return correlate


def _hosted_gradient(algorithm: str) -> Callable[..., Any]:
    def kernel_gradient(ops: Operations, x: Any, dy: Any, geometry: Geometry) -> Any:
        return ops.from_host(host.kernel_gradient(ops.as_host(x), ops.as_host(dy), geometry, algorithm), x)

    return kernel_gradient


_RESULTS: dict[str, Callable[..., Any]] = {
    "native": native,
    "taps": _taps,
    "phase": algorithms.phase,
    "matmul": algorithms.matmul,
    "fft": fourier.correlate,
    "host": _hosted("direct"),
    "fft@host": _hosted("fft"),
}
_KERNEL_GRADIENTS: dict[str, Callable[..., Any]] = {
    "matmul": algorithms.matmul_kernel_gradient,
    "fft": fourier.kernel_gradient,
    "host": _hosted_gradient("direct"),
    "fft@host": _hosted_gradient("fft"),
}
