"""Computing a `Rule` by the variant that the planner chose.

`algorithm="auto"` promises what its fastest candidates do. All algorithms but the FFT add up the very products that
corr2d is defined by, in some order: the result is exact for integer-valued data whose sums the dtype holds, and within
the bound of such a sum for other data. The FFT's error is bounded only relative to the norms of X and K. So "auto"
takes another algorithm where X and K hold integers, and computes a result again by another algorithm if the FFT's isn't
finite everywhere.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..algorithms import fourier
from ..algorithms.adjoint import image_gradient, transposed_correlation
from ..algorithms.border import with_border
from ..algorithms.phase import phase
from ..algorithms.taps import taps
from ..compiled import kernels
from ..contract.arrays import T
from ..contract.call import Variant
from ..contract.operations import Mode, Operations
from ..contract.rule import Rule
from ..errors import UnsupportedError
from ..geometry.geometry import NO_PADDING, Geometry, Pair
from . import large_fft
from .choose import Choice, Workload, cheapest

# A function of two tensors and the geometry: X and K to the result, or X and dY to the gradient of K.
Correlation = Callable[[Operations, Any, Any, Geometry], Any]


def by_plan(ops: Operations[T], rule: Rule, a: T, b: T) -> T:
    """A rule's result by the variant that the planner chooses, without gradient.

    Tensors without values are computed by the backend's operations.

    Raises:
        UnsupportedError: a named algorithm that can't compute it.
    """
    mode = ops.mode(a, b)
    # A backend whose programs can call the compiled kernels does so itself.
    mode = "traced" if mode == "embedded" else mode
    return compute_chosen(ops, rule, a, b, choose(ops, rule, ops.sizes(a), ops.sizes(b), ops.dtype(a) or "", mode))


def choose_for(ops: Operations[T], rule: Rule, a: T, b: T) -> Choice:
    """The planner's choice (see `choose`) for a rule and two tensors."""
    return choose(ops, rule, ops.sizes(a), ops.sizes(b), ops.dtype(a) or "", ops.mode(a, b))


def choose(
    ops: Operations[T], rule: Rule, first: Sequence[int], second: Sequence[int], dtype: str, mode: Mode
) -> Choice:
    """The planner's choice for a rule and inputs of two shapes.

    Raises:
        UnsupportedError: a named algorithm that can't compute it.
    """
    if ops.adapter is None:
        return Choice(Variant.NATIVE, {}, {})
    workload = Workload.of(rule, first, second, dtype)
    arguments = ops.adapter.name, ops.version, ops.adapter.algorithms, mode, workload
    choice = cheapest(*arguments, rule.algorithm)
    if choice.variant is not None:
        return choice
    if rule.part != "y":
        # A named algorithm needn't have a gradient of its own.
        return cheapest(*arguments, "auto")
    why = "; ".join(dict.fromkeys(choice.refused.values()))
    raise UnsupportedError(
        f"algorithm: got {rule.algorithm!r}, which can't compute this: {why}.",
        hint="algorithm='auto' finds the fastest that can.",
    )


def compute_chosen(ops: Operations[T], rule: Rule, a: T, b: T, choice: Choice) -> T:
    """A rule's result as a choice says. Half precision is computed in float32 and rounded once, unless natively."""
    dtype = ops.dtype(a) or ""
    narrow = dtype in ("float16", "bfloat16") and bool(choice.variant is not Variant.NATIVE or choice.factored)
    if narrow:
        a, b = ops.cast(a, "float32"), ops.cast(b, "float32")
    with ops.scope(dtype):
        y = _compute(ops, rule, a, b, settle(ops, rule, a, b, choice))
    return ops.cast(y, dtype) if narrow else y


class Settled(NamedTuple):
    """What a choice becomes for the values of two tensors.

    Attributes:
        variant: the variant that computes the result.
        factors: column and row of a separable kernel.
        integral: whether both hold integers only, as far as it matters: a bool, or a tensor while tracing.
        reason: why it isn't the variant that the planner chose for the shapes; "" if it is.
    """

    variant: Variant
    factors: tuple[Any, Any] | None = None
    integral: Any = False
    reason: str = ""


def settle(ops: Operations[T], rule: Rule, a: T, b: T, choice: Choice) -> Settled:
    """What a choice becomes for these values: separable kernels are separated, and integers kept exact."""
    variant = choice.variant
    if choice.factored or variant.algorithm == "separable":
        factors = _factors(ops, rule, b)
        if factors is not None:
            reason = f"K is an outer product: {1e3 * choice.factored_cost:.3g} ms predicted" if choice.factored else ""
            return Settled(choice.factored or variant, factors, reason=reason)
        if variant.algorithm == "separable" and rule.part == "y":
            raise UnsupportedError(
                "K: got a kernel of rank above 1 with algorithm='separable', expected an outer product.",
                hint="algorithm='auto' separates a kernel whenever it can.",
            )
    if variant.algorithm != "fft" or rule.algorithm != "auto":
        return Settled(variant)
    integers = integral(ops, b, variant)
    if integers is not False:
        integers = integers & integral(ops, a, variant)
    if integers is True:
        direct = choose_for(ops, rule._replace(algorithm="direct"), a, b)
        exact = choice.instead_of(direct.variant, direct.costs.get(direct.variant, 0.0))
        factors = _factors(ops, rule, b) if exact.factored else None
        reason = "X and K hold integers, which the FFT wouldn't keep exact"
        if factors is not None:
            return Settled(exact.factored or exact.variant, factors, reason=f"{reason}; K is an outer product")
        return Settled(exact.variant, reason=reason)
    return Settled(variant, integral=integers)


def _compute(ops: Operations[T], rule: Rule, a: T, b: T, settled: Settled) -> T:
    """A rule's result as is settled; by `_checked` for a variant that spreads infinities."""
    if settled.factors is not None:
        separable = functools.partial(_separable, ops, settled.variant, settled.factors)
        return _result(ops, rule, a, b, lambda x, _, geometry: separable(x, geometry))
    if settled.variant.algorithm in ("fft", "phase"):
        return _checked(ops, rule, a, b, settled)
    return _direct(ops, rule, a, b, settled.variant)


def _direct(ops: Operations[T], rule: Rule, a: T, b: T, variant: Variant) -> T:
    """A rule's result by a variant, without a check."""
    if variant is Variant.NATIVE and rule.part != "y":
        return _native_gradient(ops, rule, a, b)
    if rule.part == "k":
        gradient: T = _KERNEL_GRADIENTS[variant](ops, a, b, rule.geometry)
        return gradient
    return _result(ops, rule, a, b, functools.partial(_RESULTS[variant], ops))


def _result(ops: Operations[T], rule: Rule, a: T, k: T, correlate: Callable[[T, T, Geometry], T]) -> T:
    """Part "y" or "x", which is a correlation too."""
    if rule.part == "y":
        return correlate(a, k, rule.geometry)
    return image_gradient(ops, a, k, rule.geometry, rule.size, correlate)


def _checked(ops: Operations[T], rule: Rule, a: T, b: T, settled: Settled) -> T:
    """A rule's result by the FFT or by `phase`, which spread numbers that aren't finite.

    It is computed again directly if it isn't finite, or if the data prove to be integers while traced code runs.
    """
    y = _direct(ops, rule, a, b, settled.variant)
    if settled.variant is Variant.FFT_ON_HOST and settled.integral is False:
        # The kernel has checked it.
        return y
    sound = ops.every(abs(y) < ops.number(math.inf, y))
    if settled.integral is not False:
        # While tracing it is a tensor, whose value is known only at run time.
        sound = sound & ops.every(ops.number(0.0, y) < ops.cast(~settled.integral, ops.dtype(y)))
    return ops.choose(sound, lambda: y, lambda: by_plan(ops, rule._replace(algorithm="direct"), a, b))


def integral(ops: Operations[T], x: T, variant: Variant) -> Any:
    """Whether all of x's values are integers: a bool, or a tensor while tracing."""
    if variant.on_host:
        array = ops.as_host(x)
        # Most images without integers show it in their first row, which spares a pass over all of them.
        few = array[..., :1, :]
        return bool((np.floor(few) == few).all()) and bool((np.floor(array) == array).all())
    return ops.every(~(ops.floor(x) != x))


def _factors_of(ops: Operations[T], k: T) -> tuple[Any, Any] | None:
    """Two vectors whose outer product is the kernel k, of shape (h, w) or (1, 1, h, w); None if there are none.

    The row is scaled by a power of 2, which is exact, so that its correlation with an image can't overflow.
    """
    if not ops.is_concrete(k):
        return None
    kernel = ops.to_numpy(k)
    factors = kernels.separate(kernel.reshape(kernel.shape[-2:]))
    if factors is None:
        return None
    u, v = (factor.astype(np.float64) for factor in factors)
    scale = 2.0 ** math.ceil(math.log2(float(np.abs(v).sum())))
    if np.abs(u).max() * scale > np.finfo(kernel.dtype).max:
        return None
    return (u * scale).astype(kernel.dtype), (v / scale).astype(kernel.dtype)


def _factors(ops: Operations[T], rule: Rule, k: T) -> tuple[Any, Any] | None:
    """Column and row of the kernel that a rule correlates with, if it is separable."""
    if rule.part == "k" or math.prod(ops.sizes(k)[:-2]) != 1 or (rule.part == "x" and rule.geometry.stride != (1, 1)):
        return None
    factors = _factors_of(ops, k)
    if factors is None or rule.part == "y":
        return factors
    # The gradient of X is a correlation with the flipped kernel.
    u, v = factors
    return u[::-1], v[::-1]


def _native_gradient(ops: Operations[T], rule: Rule, a: T, b: T) -> T:
    """The framework's own gradient, in any padding mode."""
    geometry = rule.geometry
    if geometry.padding == NO_PADDING or geometry.padding_mode == "zeros":
        return ops.conv_gradient(rule.part, a, b, geometry, rule.size)
    inner = geometry._replace(padding=NO_PADDING)
    if rule.part == "k":
        return ops.conv_gradient("k", with_border(ops, a, geometry), b, inner, rule.size)
    return image_gradient(ops, a, b, geometry, rule.size, functools.partial(native, ops))


def native(ops: Operations[T], x: T, k: T, geometry: Geometry) -> T:
    """The framework's own convolution, with its gradients."""
    if geometry.padding != NO_PADDING and geometry.padding_mode != "zeros":
        x, geometry = with_border(ops, x, geometry), geometry._replace(padding=NO_PADDING)
    return ops.conv(x, k, geometry)


def native_transposed(ops: Operations[T], y: T, k: T, geometry: Geometry, output_padding: Pair) -> T:
    """The framework's own transposed convolution, with its gradients, or else its convolution of rearranged kernels."""
    if type(ops).conv_transpose is not Operations.conv_transpose:
        return ops.conv_transpose(y, k, geometry, output_padding)
    return transposed_correlation(ops, y, k, geometry, output_padding, functools.partial(native, ops))


def _taps(ops: Operations[T], x: T, k: T, geometry: Geometry) -> T:
    return taps(ops, with_border(ops, x, geometry), k, geometry)


def _separable(ops: Operations[T], variant: Variant, factors: tuple[Any, Any], x: T, geometry: Geometry) -> T:
    """The correlation of x with the outer product of two vectors, by one after the other."""
    u, v = factors
    if variant.on_host:
        image = ops.as_host(x)
        y = ops.host_empty((*image.shape[:2], *geometry.output_size(image.shape[2:])), image.dtype)
        return ops.from_host(kernels.separable(image, u, v, geometry, y), x)
    (h, w), (sh, sw), (dh, dw) = geometry.kernel_size, geometry.stride, geometry.dilation
    rows, columns = geometry.padding
    dtype = ops.dtype(x) or ""
    vertical = geometry._replace(kernel_size=(h, 1), stride=(sh, 1), padding=(rows, (0, 0)), dilation=(dh, 1))
    x = _taps(ops, x, ops.asarray(u.reshape(1, 1, h, 1), dtype, x), vertical)
    horizontal = geometry._replace(kernel_size=(1, w), stride=(1, sw), padding=((0, 0), columns), dilation=(1, dw))
    return _taps(ops, x, ops.asarray(v.reshape(1, 1, 1, w), dtype, x), horizontal)


def _hosted(correlate: Callable[[np.ndarray, np.ndarray, Geometry, np.ndarray], np.ndarray]) -> Correlation:
    """A correlation of arrays that is written to a fourth, as one of tensors on their memory."""

    def hosted(ops: Operations[T], x: T, k: T, geometry: Geometry) -> T:
        image, kernel = ops.as_host(x), ops.as_host(k)
        shape = len(image), len(kernel), *geometry.output_size(image.shape[2:])
        return ops.from_host(correlate(image, kernel, geometry, ops.host_empty(shape, image.dtype)), x)

    return hosted


def _hosted_gradient(gradient: Callable[[np.ndarray, np.ndarray, Geometry], np.ndarray]) -> Correlation:
    """A gradient of K for arrays as one for tensors on their memory."""

    def hosted(ops: Operations[T], x: T, dy: T, geometry: Geometry) -> T:
        return ops.from_host(gradient(ops.as_host(x), ops.as_host(dy), geometry), x)

    return hosted


def _direct_sums(x: np.ndarray, k: np.ndarray, geometry: Geometry, y: np.ndarray) -> np.ndarray:
    return kernels.correlate(x, k, geometry, "direct", y)


_RESULTS: dict[Variant, Correlation] = {
    Variant.NATIVE: native,
    Variant.TAPS: _taps,
    Variant.PHASE: phase,
    Variant.FFT: fourier.fft_correlation,
    Variant.HOST: _hosted(_direct_sums),
    Variant.FFT_ON_HOST: _hosted(large_fft.fft_on_host),
}
_KERNEL_GRADIENTS: dict[Variant, Correlation] = {
    Variant.FFT: fourier.fft_kernel_gradient,
    Variant.HOST: _hosted_gradient(kernels.kernel_gradient),
    Variant.FFT_ON_HOST: _hosted_gradient(large_fft.fft_gradient_on_host),
}
