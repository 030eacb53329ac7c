"""JAX's side of the contract."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
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
from convlab.contract.operations import Mode, Operations
from convlab.contract.rule import Rule
from convlab.correlation.call import execute
from convlab.correlation.compute import compute, gradients_of_rule
from convlab.correlation.on_host import reproducible_on_host
from convlab.errors import UnsupportedError
from convlab.geometry.geometry import Geometry, Pair
from convlab.planning.execute import choose_for

from . import adapter, ffi, private

_WIDE = ("int64", "uint64", "float64", "complex128")
_LAYOUTS = {"NCHW": ("NCHW", "OIHW", "NCHW"), "NHWC": ("NHWC", "HWIO", "NHWC")}


class JaxOperations(Operations[Array]):
    adapter = adapter
    jitted = True

    @property
    def version(self) -> str:
        return jax.__version__

    def devices(self) -> list[str]:
        return [str(device) for device in jax.devices()]

    def device(self, x: Any) -> Hashable | None:
        # JAX itself moves arrays that nobody has committed to a device.
        if isinstance(x, jax.core.Tracer) or not getattr(x, "committed", False):
            return None
        return tuple(sorted(str(device) for device in x.devices()))

    def is_concrete(self, x: Any) -> bool:
        return not isinstance(x, jax.core.Tracer)

    def scope(self, dtype: str | None) -> AbstractContextManager[Any]:
        scope: AbstractContextManager[Any] = jax.enable_x64(True) if _needs_x64(dtype) else contextlib.nullcontext()
        return scope

    def shape(self, x: Any) -> tuple[int, ...]:
        return x.shape  # type: ignore[no-any-return]

    def dtype(self, x: Any) -> str:
        return x.dtype.name  # type: ignore[no-any-return]

    def asarray(self, array: np.ndarray, dtype: str, like: Any = None) -> Array:
        with self.scope(dtype):
            return jnp.asarray(array, dtype)

    def to_numpy(self, x: Any) -> np.ndarray:
        return np.asarray(x, dtype=np.float32 if x.dtype.name == "bfloat16" else None)

    def cast(self, x: Any, dtype: str | None) -> Array:
        with self.scope(dtype):
            return jnp.asarray(x, dtype)

    def reshape(self, x: Any, shape: Sequence[int]) -> Array:
        return jnp.reshape(x, shape)

    def transpose(self, x: Any, axes: Sequence[int]) -> Array:
        return jnp.transpose(x, axes)

    def pad(self, x: Any, widths: Sequence[tuple[int, int]], value: float = 0.0) -> Array:
        return jnp.pad(x, widths, constant_values=value)

    def flip(self, x: Any, axes: Sequence[int]) -> Any:
        return jnp.flip(x, axes)

    def take(self, x: Any, index: Sequence[int] | np.ndarray, axis: int) -> Array:
        chosen = np.asarray(index, np.int32)
        runs = np.split(chosen, np.flatnonzero(np.diff(chosen) != 1) + 1)
        if len(runs) > 64 or not chosen.size:
            return jnp.take(x, chosen, axis=axis, mode="clip")
        # Slices are faster for a border's few pixels, and have a gradient in float64 without the x64 flag.
        return jnp.concatenate([lax.slice_in_dim(x, run[0], run[-1] + 1, axis=axis) for run in runs], axis)

    def stack(self, tensors: Sequence[Any], axis: int) -> Array:
        return jnp.stack(tensors, axis)

    def where(self, condition: Any, x: Any, y: Any) -> Array:
        return jnp.where(condition, x, y)

    def zeros(self, shape: Sequence[int], like: Any) -> Array:
        return jnp.zeros(shape, like.dtype)

    def sum(self, x: Any, axes: tuple[int, ...]) -> Array:
        return x.sum(axes)  # type: ignore[no-any-return]

    def rfft2(self, x: Any, size: Pair) -> Array:
        return jnp.fft.rfft2(x, size)

    def irfft2(self, spectrum: Any, size: Pair) -> Array:
        return jnp.fft.irfft2(spectrum, size)

    def conj(self, x: Any) -> Array:
        return jnp.conj(x)

    def floor(self, x: Any) -> Array:
        return jnp.floor(x)

    def every(self, condition: Any) -> Any:
        answer = condition.all()
        return bool(answer) if self.is_concrete(answer) else answer

    def choose(self, condition: Any, yes: Callable[[], Any], no: Callable[[], Any]) -> Any:
        return super().choose(condition, yes, no) if isinstance(condition, bool) else lax.cond(condition, yes, no)

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
        if jax.device_count() == 1 and array.size and array.ctypes.data % 64 == 0 and not _needs_x64(dtype):
            y = private.from_dlpack(array, device)
            if y is not None:
                return y
        with self.scope(dtype):
            placed: Array = jax.device_put(array, device if like.committed else None)
        return placed

    def signature(self, x: Any, k: Any, b: Any) -> Hashable | None:
        if isinstance(x, jax.core.Tracer) or not isinstance(k, jax.Array) or isinstance(k, jax.core.Tracer):
            return None
        if b is None:
            return x.shape, x.dtype, x.sharding, k.shape, k.dtype, k.sharding
        if not isinstance(b, jax.Array) or isinstance(b, jax.core.Tracer):
            return None
        return x.shape, x.dtype, x.sharding, k.shape, k.dtype, k.sharding, b.shape, b.dtype, b.sharding

    def prepare(self, call: Call) -> Callable[..., Any] | None:
        if call.algorithm == "reproducible":
            return None
        # A separable kernel is known by its values, which a program doesn't have.
        if call.variant.on_host and (not _embeds() or call.variant is Variant.SEPARABLE_ON_HOST):
            return None
        compiled: Callable[..., Any] = ffi.per_number_of_threads if call.variant.on_host else jax.jit
        run = compiled(functools.partial(execute, self, call))

        def wide(x: Any, k: Any, b: Any) -> Any:
            with self.scope(call.dtype):
                return run(x, k, b)

        return wide if call.dtype in _WIDE else run

    def part(self, x: Any, start: Any, size: int, axis: int) -> Array:
        return lax.dynamic_slice_in_dim(x, start, size, axis)

    def fold(self, function: Callable[[Any, Any], Any], total: Any, count: int) -> Any:
        if self.is_concrete(total):  # outside of a program, XLA's loop would be compiled anew at every call
            return super().fold(function, total, count)
        try:
            return lax.fori_loop(0, count, lambda index, total: function(total, index), total)
        except TypeError:  # inside shard_map the total begins the same on all devices, and doesn't stay so
            total = function(total, jnp.int32(0))
            return lax.fori_loop(1, count, lambda index, total: function(total, index), total)

    def portable(self) -> JaxOperations:
        return _Portable()

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return jax.jit(function)

    def wait(self, y: Any) -> Any:
        return jax.block_until_ready(y)  # type: ignore[no-untyped-call]

    def apply(self, rule: Rule, *inputs: Any) -> Array:
        inputs = tuple(_varying_alike(inputs))
        if rule.algorithm == "reproducible":
            return _function(rule)(*inputs)
        if self.mode(*inputs) == "eager" and choose_for(self, rule, *inputs).variant.on_host:
            return compute(self, rule, *inputs)  # type: ignore[no-any-return]
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


@functools.lru_cache(1024)  # bounded, since each function holds compiled programs
def _function(rule: Rule) -> Callable[..., Array]:
    """A rule as a JAX function with its gradient; XLA compiles what convlab's kernels don't compute."""
    compiled = jax.jit(functools.partial(compute, ops, rule))

    def run(*inputs: Any) -> Any:
        here = reproducible_on_host(ops, rule, *inputs)
        return compute(ops, rule, *inputs) if here else compiled(*inputs)

    function = jax.custom_vjp(run)

    def forward(*inputs: Any) -> tuple[Any, tuple[Any, ...]]:
        return function(*inputs), inputs

    def backward(inputs: tuple[Any, ...], dy: Any) -> tuple[Any, ...]:
        return tuple(gradients_of_rule(ops, rule, inputs, dy, (True,) * len(inputs)))

    function.defvjp(forward, backward)
    return function


class _Portable(JaxOperations):
    """Operations for programs that may run anywhere."""

    def mode(self, *tensors: Any) -> Mode:
        mode = super().mode(*tensors)
        return "traced" if mode == "embedded" else mode


@functools.lru_cache(1024)
def _compiled(rule: Rule) -> Callable[..., Array]:
    return jax.jit(functools.partial(correlate_p.bind, rule=rule))


def _operators(a: Any, b: Any, rule: Rule) -> Array:
    """A rule's result by XLA's own operators."""
    return compute(ops.portable(), rule, a, b)  # type: ignore[no-any-return]


def _calls(a: Any, b: Any, rule: Rule) -> Array:
    """A rule's result by the compiled kernels, if they are the fastest."""
    variant = choose_for(ops, rule, a, b).variant
    empty = 0 in (*a.shape, *b.shape, *rule.output_shape(a.shape, b.shape))
    if not variant.on_host or empty or not ffi.works():
        return _operators(a, b, rule)
    return ffi.compute(ops, rule, a, b, "fft" if variant is Variant.FFT_ON_HOST else "direct")  # type: ignore[no-any-return]


_lower_operators = mlir.lower_fun(_operators, multiple_results=False)
_lower_calls = mlir.lower_fun(_calls, multiple_results=False)


def _lower_for_cpu(context: Any, *inputs: Any, rule: Rule) -> Any:
    """An exported program may run where convlab isn't: it has XLA's own operators only."""
    exported = context.module_context.lowering_parameters.for_export
    return (_lower_operators if exported else _lower_calls)(context, *inputs, rule=rule)


def _embeds() -> bool:
    """Whether programs can call the compiled kernels."""
    return os.name == "posix" and jax.default_backend() == "cpu" and jax.device_count() == 1 and numba_installed()


def _needs_x64(dtype: str | None) -> bool:
    """Whether JAX computes in a dtype only where it is told to."""
    return dtype in _WIDE and not jax.config.jax_enable_x64  # type: ignore[attr-defined]


def _varying_alike(inputs: Sequence[Any]) -> Sequence[Any]:
    """The inputs as if all differed between the devices; inside shard_map images do, and kernels don't.

    JAX's own operators make them alike, which here join no numbers to each input; then the gradient of a kernel is
    summed over the devices, too.
    """
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return inputs
    nothing = jnp.concatenate([x.ravel()[:0] for x in inputs])
    return [jnp.concatenate([x.ravel(), nothing]).reshape(x.shape) for x in inputs]


def _shape(a: Any, b: Any, rule: Rule) -> Any:
    shape = rule.output_shape(a.shape, b.shape)
    if jax.sharding.get_abstract_mesh().manual_axes:
        return a.update(shape=shape)  # the result differs between the devices as the inputs do
    return jax.core.ShapedArray(shape, a.dtype)


def _transpose(which: int, dy: Any, a: Any, b: Any, rule: Rule) -> Any:
    """The gradient of one input, which has only an `aval` here; the gradient is another rule's result."""
    shape = a.aval.shape if which == 0 else a.shape
    derived, *sources = rule.derivatives(shape)[which]
    return ops.apply(derived, *(dy if source is None else (a, b)[source] for source in sources))


def _batch(inputs: Sequence[Any], axes: Sequence[Any], rule: Rule) -> tuple[Any, int]:
    """The rule of vmap: more images for one kernel, or more groups."""
    (size,) = {x.shape[axis] for x, axis in zip(inputs, axes, strict=True) if axis is not None}
    if axes[1] is None and rule.part != "k":
        a = jnp.moveaxis(inputs[0], axes[0], 0)
        y = ops.apply(rule, a.reshape(-1, *a.shape[2:]), inputs[1])
        return y.reshape(size, -1, *y.shape[1:]), 0
    a, b = (
        jnp.broadcast_to(x, (size, *x.shape)) if axis is None else jnp.moveaxis(x, axis, 0)
        for x, axis in zip(inputs, axes, strict=True)
    )
    a, b = _merge(a), _merge(b) if rule.part == "k" else b.reshape(-1, *b.shape[2:])
    rule = rule._replace(geometry=rule.geometry._replace(groups=rule.geometry.groups * size))
    try:
        choose_for(ops, rule, a, b)
    except UnsupportedError:  # the call's algorithm doesn't know groups
        rule = rule._replace(algorithm="auto")
    y = ops.apply(rule, a, b)
    if rule.part == "k":
        return y.reshape(size, -1, *y.shape[1:]), 0
    return y.reshape(y.shape[0], size, -1, *y.shape[2:]), 1


def _merge(x: Any) -> Any:
    """(B, N, C, H, W) as (N, B * C, H, W)."""
    x = jnp.moveaxis(x, 0, 1)
    return x.reshape(x.shape[0], -1, *x.shape[3:])


# As the primitive is bilinear, its derivatives of any order, and its batches, are rules again.
correlate_p = Primitive("convlab")
correlate_p.def_impl(lambda a, b, rule: _compiled(rule)(a, b))  # type: ignore[no-untyped-call]
correlate_p.def_abstract_eval(_shape)  # type: ignore[no-untyped-call]
mlir.register_lowering(correlate_p, _lower_operators)
mlir.register_lowering(correlate_p, _lower_for_cpu, platform="cpu")
ad.defbilinear(correlate_p, functools.partial(_transpose, 0), functools.partial(_transpose, 1))  # type: ignore[no-untyped-call]
batching.primitive_batchers[correlate_p] = _batch

ops = JaxOperations()
