"""JAX's side of the contract."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from convlab.contract import Operations
from convlab.geometry import Geometry
from convlab.reproducible import Rule

_WIDE = ("int64", "float64", "complex128")
_LAYOUTS = {"NCHW": ("NCHW", "OIHW", "NCHW"), "NHWC": ("NHWC", "HWIO", "NHWC")}


class JaxOperations(Operations):
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
        if dtype in _WIDE and not jax.config.jax_enable_x64:
            return jax.enable_x64(True)
        return contextlib.nullcontext()

    def shape(self, x: Any) -> tuple[int, ...]:
        return x.shape  # type: ignore[no-any-return]

    def dtype(self, x: Any) -> str:
        return x.dtype.name  # type: ignore[no-any-return]

    def asarray(self, array: np.ndarray, dtype: str, like: Any = None) -> Array:
        with self.scope(dtype):
            return jnp.asarray(array, dtype)

    def to_numpy(self, x: Any) -> np.ndarray:
        return np.asarray(x, dtype=np.float32 if x.dtype.name == "bfloat16" else None)

    def cast(self, x: Any, dtype: str) -> Array:
        with self.scope(dtype):
            return jnp.asarray(x, dtype)

    def reshape(self, x: Any, shape: Sequence[int]) -> Array:
        return jnp.reshape(x, shape)

    def transpose(self, x: Any, axes: Sequence[int]) -> Array:
        return jnp.transpose(x, axes)

    def pad(self, x: Any, widths: Sequence[tuple[int, int]]) -> Array:
        return jnp.pad(x, widths)

    def flip(self, x: Any, axes: Sequence[int]) -> Any:
        return jnp.flip(x, axes)

    def take(self, x: Any, index: Sequence[int] | np.ndarray, axis: int) -> Array:
        chosen = np.asarray(index, np.int32)
        runs = np.split(chosen, np.flatnonzero(np.diff(chosen) != 1) + 1)
        if len(runs) > 64 or not chosen.size:
            return jnp.take(x, chosen, axis=axis, mode="clip")
        # A border's few pixels: slices are faster, and have a gradient in float64 without the x64 flag.
        return jnp.concatenate([lax.slice_in_dim(x, run[0], run[-1] + 1, axis=axis) for run in runs], axis)

    def stack(self, tensors: Sequence[Any], axis: int) -> Array:
        return jnp.stack(tensors, axis)

    def where(self, condition: Any, x: Any, y: Any) -> Array:
        return jnp.where(condition, x, y)

    def zeros(self, shape: Sequence[int], like: Any) -> Array:
        return jnp.zeros(shape, like.dtype)

    def part(self, x: Any, start: Any, size: int, axis: int) -> Array:
        return lax.dynamic_slice_in_dim(x, start, size, axis)

    def fold(self, function: Callable[[Any, Any], Any], total: Any, count: int) -> Any:
        if self.is_concrete(total):  # then a loop would be compiled anew at every call
            return super().fold(function, total, count)
        return lax.fori_loop(0, count, lambda index, total: function(total, index), total)

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return jax.jit(function)

    def apply(self, rule: Rule, *inputs: Any) -> Array:
        return _function(rule)(*inputs)  # type: ignore[no-any-return]

    def vjp(self, function: Callable[..., Any], inputs: Sequence[Any], dy: Any) -> tuple[Any, ...]:
        with self.scope(self.dtype(dy)):
            return jax.vjp(function, *inputs)[1](dy)

    def conv(self, x: Any, kernel: Any, geometry: Geometry) -> Array:
        return lax.conv_general_dilated(
            x,
            kernel,
            window_strides=geometry.stride,
            padding=geometry.padding,
            rhs_dilation=geometry.dilation,
            dimension_numbers=_LAYOUTS[geometry.data_format],
            feature_group_count=geometry.groups,
            # On a CPU all precisions are alike; elsewhere the default one is less than float32.
            precision=lax.Precision.HIGHEST,
        )


@functools.lru_cache(1024)  # each holds compiled programs
def _function(rule: Rule) -> Callable[..., Array]:
    """A rule as a JAX function, compiled once for each shape."""
    function = jax.custom_vjp(functools.partial(rule.compute, ops))

    def forward(*inputs: Any) -> tuple[Any, tuple[Any, ...]]:
        return function(*inputs), inputs

    def backward(inputs: tuple[Any, ...], dy: Any) -> tuple[Any, ...]:
        return tuple(rule.gradients(ops, inputs, dy, (True,) * len(inputs)))

    function.defvjp(forward, backward)
    return jax.jit(function)


ops = JaxOperations()
