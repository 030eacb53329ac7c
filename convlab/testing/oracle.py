"""The true result and the true gradients, in float64 by the definition (`convlab_numpy`)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..corr import corr2d
from ..geometry import NO_PADDING, Geometry, check_shapes, kernel_size, lower, options
from ..lab import Backend
from ..registry import backend


class Gradients(NamedTuple):
    """Gradients of sum(dY * corr2d(X, K, bias=bias)) with respect to X, K and the bias."""

    X: np.ndarray
    K: np.ndarray
    bias: np.ndarray


def oracle(X: Any, K: Any, *, bias: Any = None, **geometry: Any) -> np.ndarray:
    """`corr2d(X, K)` of any arrays' values in float64; integers exactly.

    >>> oracle([[0.1, 0.2]], [[1, 1]])
    array([[0.3]])
    """
    arrays = [None if x is None else wide(x) for x in (X, K, bias)]
    return np.asarray(corr2d(*arrays[:2], bias=arrays[2], backend="numpy", **geometry))


def oracle_gradients(X: Any, K: Any, dY: Any, **geometry: Any) -> Gradients:
    """The gradients of `oracle`, written out for the definition and checked against exact arithmetic.

    >>> oracle_gradients([[1, 2, 3]], [[10, 20]], [[1, 1]]).K
    array([[3., 5.]])
    """
    x, k, dy = (wide(a).astype(np.float64) for a in (X, K, dY))
    lowered = lowered_geometry(x.shape, k.shape, **geometry)
    nhwc = k.ndim == 4 and lowered.data_format == "NHWC"
    if k.ndim == 2:
        x4, k4 = x.reshape(-1, 1, *x.shape[-2:]), k[None, None]
        dy4 = dy.reshape(-1, 1, *dy.shape[-2:])
    else:
        x4, dy4 = (a if a.ndim == 4 else a[None] for a in (x, dy))
        x4, dy4 = (np.moveaxis(a, -1, 1) if nhwc else a for a in (x4, dy4))
        k4 = k.transpose(3, 2, 0, 1) if nhwc else k
    down, right = (
        selection(n, pads, lowered.padding_mode) for n, pads in zip(x4.shape[2:], lowered.padding, strict=True)
    )
    padded = np.einsum("in,bcnm,jm->bcij", down, x4, right)
    vjp = backend("numpy").ops.conv_vjp  # type: ignore[attr-defined]
    inner, dk, db = vjp(padded, k4, dy4, lowered._replace(padding=NO_PADDING, data_format="NCHW"))
    dx = np.einsum("in,bcij,jm->bcnm", down, inner, right)
    dx = (np.moveaxis(dx, 1, -1) if nhwc else dx).reshape(x.shape)
    dk = (dk.transpose(2, 3, 1, 0) if nhwc else dk).reshape(k.shape)
    return Gradients(dx, dk, db)


def gradients(lab: Backend, X: Any, K: Any, bias: Any, dY: Any, **geometry: Any) -> Gradients:
    """The gradients of a backend's `corr2d`, by its framework's autograd, as NumPy arrays."""

    def function(x: Any, k: Any, b: Any) -> Any:
        return lab.corr2d(x, k, bias=b, **geometry)

    found = lab.ops.vjp(function, [lab.asarray(a) for a in (X, K, bias)], lab.asarray(dY))
    return Gradients(*(lab.to_numpy(a) for a in found))


def lowered_geometry(shape: Any, kernel: Any, **geometry: Any) -> Geometry:
    """The geometry of a call in integers."""
    data_format = geometry.get("data_format", "NCHW")
    checked, named = options(kernel_size(kernel, data_format), **geometry)
    return lower(checked, named, check_shapes(shape, kernel, checked))


def selection(n: int, pads: tuple[int, int], mode: str) -> np.ndarray:
    """The 0/1 matrix, (padded size, n), that pads an axis."""
    if mode == "zeros":
        return np.pad(np.eye(n), (pads, (0, 0)))
    index = np.pad(np.arange(n), pads, mode={"reflect": "reflect", "replicate": "edge", "circular": "wrap"}[mode])  # type: ignore[call-overload]
    chosen: np.ndarray = np.eye(n)[index]
    return chosen


def wide(x: Any) -> np.ndarray:
    """Values as int64 (integers) or float64."""
    array = np.asarray(x)
    return array.astype(
        {"i": np.int64, "u": np.int64, "b": np.int64, "c": np.complex128}.get(array.dtype.kind, np.float64)
    )
