"""A call of corr2d whose arguments are checked: what is computed, whatever the tensors hold."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import host
from .algorithms import extend, taps
from .contract import Operations, Shape
from .dtypes import COMPLEX, FLOATS
from .errors import IntegerOverflowError, UnsupportedError
from .geometry import NO_PADDING, Geometry
from .planned import native, plan_for, run
from .planner import ON_HOST, Plan
from .registry import backend
from .rules import Rule, correlate

if TYPE_CHECKING:
    from .lab import Backend


class Call(NamedTuple):
    """All about a call of corr2d but its tensors: it can be called with others of the same shapes and dtype."""

    lab: Backend
    geometry: Geometry
    image: Shape
    kernel: Shape
    dtype: str | None
    flipped: bool
    algorithm: str  # of its rule; "native", for none
    way: str = "native"  # that the planner found for the result
    inner: str = ""  # the backend that computes the pieces of a wrapping backend's result

    def __call__(self, x: Any, k: Any, b: Any) -> Any:
        """corr2d of tensors of one dtype."""
        ops = self.lab.ops
        with ops.scope(self.dtype):
            if self.flipped:
                k = flip(ops, k, self.geometry)
            if len(self.kernel) == 2:
                return self._single(x, k, b)
            if len(self.image) == 3:
                return self._batch(x[None, ...], k, b, self.geometry)[0, ...]
            return self._batch(x, k, b, self.geometry)

    def _single(self, x: Any, k: Any, b: Any) -> Any:
        """A rank-2 kernel: each image of the leading axes is a batch element with one channel."""
        ops, (h, w) = self.lab.ops, self.geometry.kernel_size
        layout = self.lab.adapter.image_layout if self.algorithm == "native" else "NCHW"
        kernel = ops.reshape(k, (1, 1, h, w) if layout == "NCHW" else (h, w, 1, 1))
        y = self._batch(ops.to_images(x, layout), kernel, b, self.geometry._replace(data_format=layout))
        return ops.from_images(y, x, layout)

    def _batch(self, x: Any, k: Any, b: Any, geometry: Geometry) -> Any:
        """Images in rank 4; integers are exact, and so reproducible, in their own way."""
        ops = self.lab.ops
        shape = ops.shape(x) or ()
        if 0 in shape:  # frameworks know how to pad an image without pixels, but not their convolutions
            x, geometry = extend(ops, x, geometry), geometry._replace(padding=NO_PADDING)
        if shape[:1] == (0,):
            return _nothing(ops, x, k, b, geometry)
        if self.dtype == "int64":
            return _add_bias(ops, _exact(self.lab, x, k, b, geometry), b, geometry)
        if self.algorithm == "native":
            return _add_bias(ops, native(ops, x, k, geometry), b, geometry)
        if self.algorithm == "reproducible":
            return _reproducible(ops, x, k, b, geometry)
        return _add_bias(ops, correlate(ops, x, k, None, geometry, self.algorithm), b, geometry)


def planned(
    lab: Backend,
    geometry: Geometry,
    image: Shape,
    kernel: Shape,
    dtype: str | None,
    flipped: bool,
    algorithm: str,
    tensors: tuple[Any, Any],
) -> Call:
    """The call for two shapes; `algorithm` is what the user asked for."""
    call = Call(lab, geometry, image, kernel, dtype, flipped, algorithm)
    if algorithm in ("reproducible", "native") or lab.adapter.wraps:  # whose pieces are planned
        return call
    ops = lab.ops
    if 0 in image:  # nothing to compute
        return call._replace(algorithm="native")
    if dtype not in FLOATS or ops.adapter is None:
        return call._replace(algorithm=_unplanned(algorithm, f"{dtype or 'an unknown dtype'} isn't planned"))
    if None in image or None in kernel:
        return call._replace(algorithm=_unplanned(algorithm, f"X has shape {image} while tracing"))
    mode = ops.mode(*tensors)
    if mode == "native":
        return call._replace(algorithm=_unplanned(algorithm, "the framework only takes its own operators here"))
    if mode == "deferred" and algorithm == "auto":  # shapes may be symbols that mustn't be compared
        _, weights = canonical(image, kernel, geometry)
        single = weights[1] == 1 and weights[0] == geometry.groups
        return call if single else call._replace(algorithm="native")
    if mode == "deferred":
        return call
    if mode == "traced" and not all(isinstance(n, int) for n in (*image, *kernel)):  # symbols
        return call._replace(algorithm=_unplanned(algorithm, f"X has shape {image} while tracing"))
    _, weights = canonical(image, kernel, geometry)
    if algorithm == "auto" and geometry.data_format == "NHWC" and len(kernel) == 4 and weights[:2] != (1, 1):
        return call._replace(algorithm="native")  # the ways compute NCHW, and two copies would cost what they save
    plans = plan_parts(call, mode)
    if all(plan.way == "native" and not plan.factored for plan in plans.values()):
        return call._replace(algorithm="native")
    if algorithm == "auto" and geometry.data_format == "NHWC" and plans["y"].way not in ON_HOST and len(kernel) == 4:
        return call._replace(algorithm="native")
    return call._replace(way=plans["y"].factored or plans["y"].way)


def plan_parts(call: Call, mode: str) -> dict[str, Plan]:
    """The plans for the result and, where there is autograd, both gradients."""
    ops, adapter = call.lab.ops, call.lab.adapter
    images, weights = canonical(call.image, call.kernel, call.geometry)
    rule = Rule("y", call.geometry._replace(data_format="NCHW"), algorithm=call.algorithm)
    plans = {"y": plan_for(ops, rule, images, weights, call.dtype or "", mode)}
    for part, *sources in rule.derivatives(images) if adapter.autograd else ():
        a, b = (rule.output_shape(images, weights) if i is None else (images, weights)[i] for i in sources)
        plans[part.part] = plan_for(ops, part, a, b, call.dtype or "", mode)
    return plans


def _unplanned(wanted: str, why: str) -> str:
    if wanted in ("auto", "direct"):
        return "native"
    raise UnsupportedError(
        f"algorithm: got {wanted!r}, expected 'auto': {why}.",
        hint="algorithm='auto' takes the framework's own convolution here.",
    )


def canonical(shape: Shape, kernel: Shape, geometry: Geometry) -> tuple[Any, Any]:
    """The shapes of X and K as (N, C, H, W) and (O, C/groups, h, w)."""
    if len(kernel) == 2:
        return (math.prod(shape[:-2]), 1, *shape[-2:]), (1, 1, *kernel)  # type: ignore[arg-type]
    images, weights = (1, *shape)[-4:], kernel
    if geometry.data_format == "NHWC":
        return tuple(images[i] for i in (0, 3, 1, 2)), tuple(weights[i] for i in (3, 2, 0, 1))
    return images, weights


def prepared(call: Call, x: Any, k: Any, b: Any) -> Callable[[Any, Any, Any], Any]:
    """What computes a call of these tensors, the first time and again: the fastest way there is."""
    ops = call.lab.ops
    if call.dtype == "int64" or 0 in call.image:  # whose values are looked at, and what frameworks refuse
        return call.__call__
    if not ops.records(x, k, b):
        images, weights = canonical(call.image, call.kernel, call.geometry)
        first = call.geometry.data_format == "NCHW" or len(call.kernel) == 2 or (images[1], weights[0]) == (1, 1)
        if call.way in ON_HOST and call.dtype != "bfloat16" and first:
            return _Hosted(call, images, weights)
        if call.way == "native":  # only gradients would be computed otherwise
            call = call._replace(algorithm="native")
    return ops.prepare(call)


class _Hosted:
    """A call straight to the compiled kernels on the tensors' memory, shaped there, which costs next to nothing."""

    def __init__(self, call: Call, images: Any, weights: Any) -> None:
        self.ops, self.images, self.weights = call.lab.ops, images, weights
        self.rule = Rule("y", call.geometry._replace(data_format="NCHW"), algorithm=call.algorithm)
        self.made = plan_for(self.ops, self.rule, images, weights, call.dtype or "", "eager")
        self.result = tuple(self.rule.output_shape(images, weights))
        shape, found = tuple(call.image), self.result
        if len(call.kernel) == 2:
            self.shape = (*shape[:-2], *found[2:])
        elif call.geometry.data_format == "NHWC":
            self.shape = (*shape[:-3], *found[2:], found[1])
        else:
            self.shape = (*shape[:-3], *found[1:])
        self.memory = copy.copy(backend("numpy").ops)
        self.memory.host_empty = self.ops.host_empty  # type: ignore[method-assign]
        self.summed = self.made.way == "host" and not self.made.factored and call.dtype != "float16"

    def __call__(self, x: Any, k: Any, b: Any) -> Any:
        ops = self.ops
        image, kernel = ops.as_host(x).reshape(self.images), ops.as_host(k).reshape(self.weights)
        if self.summed:
            made = ops.host_empty(self.result, image.dtype)
            y = host.correlate(image, kernel, self.rule.geometry, "direct", made)
        else:
            y = run(self.memory, self.rule, image, kernel, self.made)
        if b is not None:
            with self.memory.scope(None):
                y += ops.as_host(b).reshape(-1, 1, 1)
        return ops.from_host(y.reshape(self.shape), x)


def flip(ops: Operations, k: Any, geometry: Geometry) -> Any:
    """A kernel with its rows and its columns in reverse order."""
    first = 2 if geometry.data_format == "NCHW" and len(ops.known_rank(k)) == 4 else 0
    return ops.flip(k, (first, first + 1))


def check_reproducible(dtype: str | None) -> None:
    """Raise `UnsupportedError` for a complex dtype."""
    if dtype in COMPLEX:
        raise UnsupportedError(
            f"reproducible: got dtype {dtype}, expected a real one.", hint="correlate real and imaginary parts apart."
        )


def _reproducible(ops: Operations, x: Any, k: Any, b: Any, geometry: Geometry) -> Any:
    dtype, shape = ops.dtype(x), ops.shape(x)
    check_reproducible(dtype)
    size = (shape[2:] if geometry.data_format == "NCHW" else shape[1:3]) if shape else (None,)
    if None in size and dtype is not None:  # MXNet's symbols, which have no dtype, are computed when they have values
        raise UnsupportedError(
            f"X: got an image of size {size} while tracing with reproducible=True, expected a known one.",
            hint="give the image's height and width to the tracer; the batch may stay unknown.",
        )
    return correlate(ops, x, k, b, geometry, "reproducible")


def _add_bias(ops: Operations, y: Any, b: Any, geometry: Geometry) -> Any:
    if b is None:
        return y
    b = ops.reshape(b, (-1, 1, 1) if geometry.data_format == "NCHW" else (-1,))
    return y + ops.cast(b, ops.dtype(y))  # which torch.autocast may have made narrower


def _nothing(ops: Operations, x: Any, k: Any, b: Any, geometry: Geometry) -> Any:
    """The result for no images, which not every framework's convolution survives; all gradients are zero."""
    nhwc = geometry.data_format == "NHWC"
    height, width = ops.sizes(x)[1:3] if nhwc else ops.sizes(x)[2:]
    rows, columns = geometry.output_size((height, width))
    outputs = ops.sizes(k)[3 if nhwc else 0]
    y = ops.reshape(x, (0, rows, columns, outputs) if nhwc else (0, outputs, rows, columns))
    for value in (k, b):
        if value is not None:  # no elements of it, so that nothing has to be summed up over nothing
            y = y + ops.reshape(ops.reshape(value, (-1,))[:0], ops.sizes(y))
    return y


def _exact(lab: Backend, x: Any, k: Any, b: Any, geometry: Geometry) -> Any:
    """Integers: by the framework's float64 convolution if no sum can reach 2**53, else in int64 with a check."""
    ops = lab.ops
    concrete = all(value is None or ops.is_concrete(value) for value in (x, k, b))
    bound = _largest_sum(_numpy(ops, x), _numpy(ops, k), _numpy(ops, b), geometry) if concrete else 0.0
    if concrete and bound < 2.0**53:
        y = native(ops, ops.cast(x, "float64"), ops.cast(k, "float64"), geometry)
        return ops.cast(y, "int64")
    nhwc = geometry.data_format == "NHWC"
    if nhwc:
        x, k = ops.transpose(x, (0, 3, 1, 2)), ops.transpose(k, (3, 2, 0, 1))
        geometry = geometry._replace(data_format="NCHW")
    x, geometry = extend(ops, x, geometry), geometry._replace(padding=NO_PADDING)
    if bound >= 2.0**63:
        _check_overflow(_numpy(ops, x), _numpy(ops, k), _numpy(ops, b), geometry)
    y = taps(ops, x, k, geometry)
    return ops.transpose(y, (0, 2, 3, 1)) if nhwc else y


def _numpy(ops: Operations, x: Any) -> Any:
    return None if x is None else ops.to_numpy(x)


def _largest_sum(x: np.ndarray, k: np.ndarray, b: np.ndarray | None, geometry: Geometry) -> float:
    """An upper bound on the magnitude of every partial sum (up to the rounding of this very number)."""
    if not x.size:
        return 0.0
    axes = (1, 2, 3) if geometry.data_format == "NCHW" else (0, 1, 2)
    largest = max(float(x.max()), -float(x.min()))
    bias = 0.0 if b is None else float(np.abs(b.astype(float)).max())
    return 1.001 * (largest * float(np.abs(k.astype(float)).sum(axes).max()) + bias)


def _check_overflow(x: np.ndarray, k: np.ndarray, b: np.ndarray | None, geometry: Geometry) -> None:
    """Raise `IntegerOverflowError` if the exact result, computed in Python's own integers, leaves int64.

    int64 arithmetic is exact modulo 2**64, so that sums may leave int64 on their way.
    """
    exact = taps(backend("numpy").ops, x.astype(object), k.astype(object), geometry)
    if b is not None:
        exact = exact + np.reshape(b, (-1, 1, 1)).astype(object)
    for worst in (exact.max(), exact.min()):
        if not -(2**63) <= worst < 2**63:
            raise IntegerOverflowError(
                f"X, K: got a result of {worst}, expected one that fits into int64.",
                hint="convert X to float64, or scale the kernel down.",
            )
