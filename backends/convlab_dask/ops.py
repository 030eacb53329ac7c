"""Dask's side of the contract: lazy arrays; a whole call of corr2d becomes a graph of chunks (`graph.correlate`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import dask
import dask.array as da
import numpy as np

from convlab.contract.call import Call
from convlab.contract.operations import Operations
from convlab.correlation.arguments import check_supported
from convlab.correlation.call import check_reproducible
from convlab.correlation.decide import decide
from convlab.errors import IntegerOverflowError, ShapeError, UnsupportedError
from convlab.geometry.geometry import Geometry
from convlab.reference import ops as reference
from convlab.registry import framework, inner_backend

from .blocks import Correlation
from .graph import correlate


class DaskOperations(Operations):
    @property
    def version(self) -> str:
        return str(dask.__version__)

    def devices(self) -> list[str]:
        return ["cpu"]

    def shape(self, x: Any) -> tuple[int, ...]:
        if any(math.isnan(n) for n in x.shape):
            raise ShapeError(
                f"dask: got an array of shape {x.shape}, expected known sizes.", hint="call its compute_chunk_sizes()."
            )
        return tuple(int(n) for n in x.shape)

    def dtype(self, x: Any) -> str:
        return str(x.dtype.name)

    def asarray(self, array: np.ndarray, dtype: str, like: Any = None) -> da.Array:
        return da.from_array(np.array(array, dtype))

    def to_numpy(self, x: Any) -> np.ndarray:
        return np.asarray(x.compute())

    def is_concrete(self, x: Any) -> bool:
        return False

    def cast(self, x: Any, dtype: str | None) -> da.Array:
        if x.dtype == np.uint64 and dtype == "int64":
            return x.map_blocks(_signed, dtype=np.int64)
        return x.astype(dtype)

    def reshape(self, x: Any, shape: Sequence[int]) -> da.Array:
        try:
            return x.reshape(tuple(shape))
        except NotImplementedError:  # Dask reshapes only axes that split or merge evenly
            return x.reshape(-1).reshape(tuple(shape))

    def transpose(self, x: Any, axes: Sequence[int]) -> da.Array:
        return x.transpose(tuple(axes))

    def pad(self, x: Any, widths: Sequence[tuple[int, int]], value: float = 0.0) -> da.Array:
        return da.pad(x, [*widths], constant_values=value)

    def flip(self, x: Any, axes: Sequence[int]) -> da.Array:
        return da.flip(x, tuple(axes))

    def take(self, x: Any, index: Sequence[int] | np.ndarray, axis: int) -> da.Array:
        return da.take(x, np.asarray(index), axis)

    def stack(self, tensors: Sequence[Any], axis: int) -> da.Array:
        return da.stack(tensors, axis)

    def where(self, condition: Any, x: Any, y: Any) -> da.Array:
        return da.where(condition, x, y)

    def zeros(self, shape: Sequence[int], like: Any) -> da.Array:
        return da.zeros(tuple(shape), dtype=like.dtype)

    def number(self, value: float, like: Any) -> Any:
        return like.dtype.type(value)

    def filter_spectrum(self, x: Any, response: np.ndarray) -> da.Array:
        whole = x.rechunk({2: -1, 3: -1})
        return whole.map_blocks(reference.filter_spectrum, response, dtype=x.dtype, meta=np.empty((0,) * 4, x.dtype))

    def wait(self, y: Any) -> da.Array:
        return y.persist()

    def correlate(self, call: Call, x: Any, k: Any, b: Any) -> da.Array:
        inner, dtype = framework(call.inner), call.dtype or ""
        check_supported(inner, dtype)
        if call.algorithm == "reproducible":
            check_reproducible(dtype)
        stand_in = inner.ops.asarray(np.zeros(1, "float32"), "float32")
        # An algorithm that can't compute the call is refused here, not in each chunk.
        decide(inner.ops, call._replace(inner=""), stand_in, stand_in)
        work = Correlation(call.inner, call.geometry, call.algorithm, call.flipped)
        return correlate(work, x, k, b, dtype)

    def conv(self, x: Any, kernel: Any, geometry: Geometry) -> da.Array:
        work = Correlation(inner_backend(None), geometry._replace(padding_mode="zeros"), "native", False)
        return correlate(work, x, kernel, None, x.dtype.name)

    def vjp(self, function: Callable[..., Any], inputs: Sequence[Any], dy: Any) -> tuple[Any, ...]:
        raise UnsupportedError("backend 'dask': Dask has no autograd.", hint="convert to another backend's tensors.")


def _signed(chunk: np.ndarray) -> np.ndarray:
    if chunk.size and int(chunk.max()) >= 2**63:
        raise IntegerOverflowError(
            f"dask: got {int(chunk.max())}, expected integers below 2**63: they are added up in int64.",
            hint="convert it to float64.",
        )
    return chunk.astype(np.int64)


ops = DaskOperations()
