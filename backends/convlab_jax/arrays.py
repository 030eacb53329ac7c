"""JAX's arrays as the contract's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from convlab.contract.operations import Operations
from convlab.geometry.geometry import Pair

# The dtypes that JAX has only where it is told to.
WIDE = ("int64", "uint64", "float64", "complex128")


class JaxArrays(Operations[Array]):
    """What concerns arrays alone, with values or without."""

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
        scope: AbstractContextManager[Any] = jax.enable_x64(True) if needs_x64(dtype) else contextlib.nullcontext()
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

    def part(self, x: Any, start: Any, size: int, axis: int) -> Array:
        return lax.dynamic_slice_in_dim(x, start, size, axis)


def needs_x64(dtype: str | None) -> bool:
    """Whether JAX computes in a dtype only where it is told to."""
    return dtype in WIDE and not jax.config.jax_enable_x64  # type: ignore[attr-defined]
