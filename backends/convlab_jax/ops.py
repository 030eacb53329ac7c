"""JAX's side of the contract."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from convlab.algorithms.taps import by_taps, too_long
from convlab.compiled import kernels
from convlab.compiled.tiling import numba_installed
from convlab.contract.call import Call, Variant
from convlab.contract.operations import Mode
from convlab.contract.rule import Rule
from convlab.correlation.call import execute
from convlab.correlation.compute import compute
from convlab.correlation.on_host import reproducible_on_host
from convlab.errors import UnsupportedError
from convlab.geometry.geometry import Geometry, Pair
from convlab.planning.execute import choose_for

from . import adapter, ffi, private
from .arrays import WIDE, JaxArrays, needs_x64

_BIAS_GRADIENT = Rule("b", Geometry((1, 1)))
_LAYOUTS = {"NCHW": ("NCHW", "OIHW", "NCHW"), "NHWC": ("NHWC", "HWIO", "NHWC")}


class JaxOperations(JaxArrays):
    adapter = adapter
    jitted = True

    def mode(self, *tensors: Any) -> Mode:
        if not all(self.is_concrete(x) for x in tensors):
            # With several devices XLA's partitioner may have to share the work, which it can't do with all operators.
            if _embeds():
                return "embedded"
            return "traced" if jax.default_backend() == "cpu" and jax.device_count() == 1 else "other"
        devices = {device for x in tensors for device in x.devices()}
        if any(device.platform != "cpu" for device in devices):
            return "other"
        return "eager" if len(devices) == 1 else "native"  # the partitioner knows how to share a convolution

    def as_host(self, x: Any) -> np.ndarray:
        return np.asarray(x)

    def host_empty(self, shape: Sequence[int], dtype: Any) -> np.ndarray:
        return kernels.aligned(shape, dtype)  # JAX would copy anything else

    def from_host(self, array: np.ndarray, like: Any) -> Array:
        device, dtype = next(iter(like.devices())), array.dtype.name
        # An array over NumPy's memory is committed to its device, which makes no difference where there is only one.
        if jax.device_count() == 1 and array.size and array.ctypes.data % 64 == 0 and not needs_x64(dtype):
            y = private.from_dlpack(array, device)
            if y is not None:
                return y
        with self.scope(dtype):
            placed: Array = jax.device_put(array, device if like.committed else None)
        return placed

    def signature(self, x: Any, k: Any, b: Any) -> Hashable | None:
        if isinstance(x, jax.core.Tracer) or type(k) is not type(x):
            return None
        if b is None:
            return x.shape, x.dtype, x.sharding, k.shape, k.dtype, k.sharding
        if type(b) is not type(x):
            return None
        return x.shape, x.dtype, x.sharding, k.shape, k.dtype, k.sharding, b.shape, b.dtype, b.sharding

    def prepare(self, call: Call) -> Callable[..., Any] | None:
        if call.algorithm == "reproducible":
            return None
        # A separable kernel is known by its values, which a program doesn't have.
        if call.variant.on_host and (not _embeds() or call.variant is Variant.SEPARABLE_ON_HOST):
            return None
        compiled: Callable[..., Any] = ffi.per_number_of_threads if _shares_work(call) else jax.jit
        run = compiled(functools.partial(execute, self, call))

        def wide(x: Any, k: Any, b: Any) -> Any:
            with self.scope(call.dtype):
                return run(x, k, b)

        return wide if call.dtype in WIDE else run

    def fold(self, function: Callable[[Any, Any], Any], total: Any, count: int) -> Any:
        if self.is_concrete(total):  # outside of a program, XLA's loop would be compiled anew at every call
            return super().fold(function, total, count)
        try:
            return lax.fori_loop(0, count, lambda index, total: function(total, index), total)
        except TypeError:  # inside shard_map the total begins the same on all devices, and doesn't stay so
            total = function(total, jnp.int32(0))
            return lax.fori_loop(1, count, lambda index, total: function(total, index), total)

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return jax.jit(function)

    def wait(self, y: Any) -> Any:
        return jax.block_until_ready(y)  # type: ignore[no-untyped-call]

    def apply(self, rule: Rule, *inputs: Any) -> Array:
        inputs = tuple(_varying_alike(inputs))
        return correlate_p.bind(*inputs, rule=rule)  # type: ignore[no-any-return, no-untyped-call]

    def vjp(self, function: Callable[..., Any], inputs: Sequence[Any], dy: Any) -> tuple[Any, ...]:
        with self.scope(self.dtype(dy)):
            *inputs, dy = _varying_alike((*inputs, dy))
            slopes: tuple[Any, ...] = jax.vjp(function, *inputs)[1](dy)
        return slopes

    def conv(self, x: Any, kernel: Any, geometry: Geometry) -> Array:
        if too_long(x.shape[2:] if geometry.data_format == "NCHW" else x.shape[1:3], geometry):
            return by_taps(self, x, kernel, geometry)  # type: ignore[no-any-return]
        return lax.conv_general_dilated(
            x,
            kernel,
            window_strides=geometry.stride,
            padding=geometry.padding,
            rhs_dilation=geometry.dilation,
            dimension_numbers=_LAYOUTS[geometry.data_format],
            feature_group_count=geometry.groups,
            # The default precision is less than float32 on other processors than a CPU.
            precision=lax.Precision.HIGHEST,
        )

    def conv_transpose(self, y: Any, kernel: Any, geometry: Geometry, output_padding: Pair) -> Array:
        rows, groups = 2 if geometry.data_format == "NCHW" else 1, geometry.groups
        size = geometry.transposed_size(y.shape[rows : rows + 2], output_padding)
        channels = kernel.shape[1 if rows == 2 else 2] * groups
        shape = (len(y), channels, *size) if rows == 2 else (len(y), *size, channels)
        image = jax.ShapeDtypeStruct(shape, y.dtype)  # type: ignore[no-untyped-call]
        x: Array = jax.linear_transpose(lambda x: self.conv(x, kernel, geometry), image)(y)[0]
        return x


@functools.lru_cache(1024)
def _compiled(rule: Rule) -> Callable[..., Array]:
    return jax.jit(functools.partial(correlate_p.bind, rule=rule))


def _evaluate(*inputs: Any, rule: Rule) -> Array:
    """A rule's result for tensors with values; JAX's gradients may be NumPy's arrays."""
    with ops.scope(inputs[0].dtype.name):
        inputs = tuple(x if isinstance(x, Array) else jnp.asarray(x) for x in inputs)
        if ops.mode(*inputs) == "eager":
            here = reproducible_on_host(ops, rule, *inputs)
            if here or (rule.algorithm != "reproducible" and choose_for(ops, rule, *inputs).variant.on_host):
                return compute(ops, rule, *inputs)  # type: ignore[no-any-return]
        return _compiled(rule)(*inputs)


def _operators(*inputs: Any, rule: Rule) -> Array:
    """A rule's result by XLA's own operators."""
    return compute(ops, rule, *inputs)  # type: ignore[no-any-return]


def _calls(*inputs: Any, rule: Rule) -> Array:
    """A rule's result by the compiled kernels, if they are the fastest."""
    if rule.algorithm == "reproducible":
        calls = ffi.calls() if reproducible_on_host(ops, rule, *inputs, mode="embedded") else None
        return calls.reproduce(ops, rule, *inputs) if calls else _operators(*inputs, rule=rule)
    a, b = inputs
    variant = choose_for(ops, rule, a, b).variant
    empty = 0 in (*a.shape, *b.shape, *rule.output_shape(a.shape, b.shape))
    calls = ffi.calls() if variant.on_host and not empty else None
    if calls is None:
        return _operators(a, b, rule=rule)
    return calls.compute(ops, rule, a, b, "fft" if variant is Variant.FFT_ON_HOST else "direct")  # type: ignore[no-any-return]


_lower_operators = mlir.lower_fun(_operators, multiple_results=False)
_lower_calls = mlir.lower_fun(_calls, multiple_results=False)


def _lower_for_cpu(context: Any, *inputs: Any, rule: Rule) -> Any:
    """An exported program may run where convlab isn't: it has XLA's own operators only."""
    exported = context.module_context.lowering_parameters.for_export
    return (_lower_operators if exported else _lower_calls)(context, *inputs, rule=rule)


def _shares_work(call: Call) -> bool:
    """Whether the program of an eager call runs kernels on several threads."""
    if call.variant is not Variant.HOST:
        return call.variant.on_host
    geometry = call.geometry._replace(data_format="NCHW")
    return kernels.is_shared(*call.canonical_shapes(), geometry, call.dtype or "")


def _embeds() -> bool:
    """Whether programs can call the compiled kernels."""
    return os.name == "posix" and jax.default_backend() == "cpu" and jax.device_count() == 1 and numba_installed()


def _varying_alike(inputs: Sequence[Any]) -> Sequence[Any]:
    """The inputs as if all differed between the devices; inside shard_map images do, and kernels don't.

    JAX's own operators make them alike, which here join no numbers to each input; then the gradient of a kernel is
    summed over the devices, too.
    """
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return inputs
    nothing = jnp.concatenate([x.ravel()[:0] for x in inputs])
    return [jnp.concatenate([x.ravel(), nothing]).reshape(x.shape) for x in inputs]


def _shape(*inputs: Any, rule: Rule) -> Any:
    return _shaped(inputs[0], rule.output_shape(*(x.shape for x in inputs)))


def _shaped(x: Any, shape: Sequence[int]) -> Any:
    """What is known of a result of this shape that is computed from x."""
    if jax.sharding.get_abstract_mesh().manual_axes:
        # The result differs between the devices as the inputs do.
        return x.update(shape=shape)
    return jax.core.ShapedArray(shape, x.dtype)


def _differentiate(inputs: Sequence[Any], tangents: Sequence[Any], rule: Rule) -> tuple[Any, Any]:
    """The result and its tangent: a rule is linear in each of two inputs, and the third, a bias, is added."""
    correlate = functools.partial(correlate_p.bind, rule=rule)
    y, (x, *others) = correlate(*inputs), inputs
    along: tuple[Callable[[Any], Any], ...] = (
        lambda tangent: correlate(tangent, *others[:1]),
        lambda tangent: correlate(x, tangent),
        lambda tangent: spread_p.bind(tangent, shape=y.shape),  # type: ignore[no-untyped-call]
    )
    terms = [term(tangent) for term, tangent in zip(along, tangents, strict=False) if not isinstance(tangent, ad.Zero)]
    return y, functools.reduce(ad.add_tangents, terms)


def _transpose(dy: Any, *inputs: Any, rule: Rule) -> list[Any]:
    """The gradient of the input that is linear, which has only an `aval` here; it is another rule's result."""
    slopes: list[Any] = [None] * len(inputs)
    if isinstance(dy, ad.Zero):
        return slopes
    which = next(i for i, x in enumerate(inputs) if isinstance(x, ad.UndefinedPrimal))
    shape = inputs[0].aval.shape if which == 0 else inputs[0].shape
    if rule.part == "b":
        slopes[which] = spread_p.bind(dy, shape=shape)  # type: ignore[no-untyped-call]
    else:
        derived, *sources = rule.derivatives(shape)[which]
        slopes[which] = ops.apply(derived, *(dy if source is None else inputs[source] for source in sources))
    return slopes


def _batch(inputs: Sequence[Any], axes: Sequence[Any], rule: Rule) -> tuple[Any, int]:
    """The rule of vmap: more images for one kernel, or more groups."""
    (size,) = {x.shape[axis] for x, axis in zip(inputs, axes, strict=True) if axis is not None}
    if rule.part in ("y", "x") and not any(axis is not None for axis in axes[1:]):
        a = jnp.moveaxis(inputs[0], axes[0], 0)
        y = ops.apply(rule, a.reshape(-1, *a.shape[2:]), *inputs[1:])
        return y.reshape(size, -1, *y.shape[1:]), 0
    whole = [
        jnp.broadcast_to(x, (size, *x.shape)) if axis is None else jnp.moveaxis(x, axis, 0)
        for x, axis in zip(inputs, axes, strict=True)
    ]
    # Kernels and biases have no axis of images, which would come first.
    merged = [_merge(x) if i == 0 or rule.part == "k" else x.reshape(-1, *x.shape[2:]) for i, x in enumerate(whole)]
    rule = rule._replace(geometry=rule.geometry._replace(groups=rule.geometry.groups * size))
    try:
        if rule.algorithm != "reproducible":
            choose_for(ops, rule, *merged)
    except UnsupportedError:  # the call's algorithm doesn't know groups
        rule = rule._replace(algorithm="auto")
    y = ops.apply(rule, *merged)
    if rule.part in ("k", "b"):
        return y.reshape(size, -1, *y.shape[1:]), 0
    return y.reshape(y.shape[0], size, -1, *y.shape[2:]), 1


def _merge(x: Any) -> Any:
    """(B, N, C, H, W) as (N, B * C, H, W)."""
    x = jnp.moveaxis(x, 0, 1)
    return x.reshape(x.shape[0], -1, *x.shape[3:])


def _spread(b: Any, shape: Sequence[int]) -> Array:
    """A bias (O,) at each pixel of an image (N, O, H, W)."""
    return jnp.broadcast_to(b.reshape(1, -1, 1, 1), shape)


def _collect(dy: Any, b: Any, shape: Sequence[int]) -> list[Array]:
    """The gradient of the bias from that of `_spread`."""
    return [ops.apply(_BIAS_GRADIENT, dy)]


def _batch_spread(inputs: Sequence[Any], axes: Sequence[Any], shape: Sequence[int]) -> tuple[Any, int]:
    b = jnp.moveaxis(inputs[0], axes[0], 0)
    images, outputs, *size = shape
    y = spread_p.bind(b.reshape(-1), shape=(images, b.size, *size))  # type: ignore[no-untyped-call]
    return y.reshape(images, len(b), outputs, *size), 1


# As the primitive is linear in each input, its derivatives of any order, and its batches, are rules again.
correlate_p = Primitive("convlab")
correlate_p.def_impl(_evaluate)  # type: ignore[no-untyped-call]
correlate_p.def_abstract_eval(_shape)  # type: ignore[no-untyped-call]
mlir.register_lowering(correlate_p, _lower_operators)
mlir.register_lowering(correlate_p, _lower_for_cpu, platform="cpu")
ad.primitive_jvps[correlate_p] = _differentiate
ad.primitive_transposes[correlate_p] = _transpose
batching.primitive_batchers[correlate_p] = _batch

# The gradient of a bias is a rule, so that its inverse, which is linear too, has a name.
spread_p = Primitive("convlab_spread")
spread_p.def_impl(_spread)  # type: ignore[no-untyped-call]
spread_p.def_abstract_eval(_shaped)  # type: ignore[no-untyped-call]
mlir.register_lowering(spread_p, mlir.lower_fun(_spread, multiple_results=False))
ad.deflinear2(spread_p, _collect)  # type: ignore[no-untyped-call]
batching.primitive_batchers[spread_p] = _batch_spread

ops = JaxOperations()
